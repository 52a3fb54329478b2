"""Random definitions: good ones come back as they were, broken ones are faults with a path, never a traceback."""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perdure import (
    Agent,
    Branching,
    Compensation,
    Fault,
    InvalidDefinitionError,
    RetryPolicy,
    Step,
    Trigger,
    WorkflowDefinition,
    Workflows,
    load_definition,
)
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import PATTERNS

KNOWN = Known(agents={"a": Agent("a", lambda message: message.data)}, predicates={"risky": bool})
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CONDITIONS: st.SearchStrategy[Any] = st.sampled_from(
    [{}, "risky", {"if": "x.y", "gt": 0}, {"not": {"if": "a", "in": [1]}}]
)
SECONDS = st.floats(0.1, 1000)
RETRIES = st.builds(
    RetryPolicy, max_retries=st.integers(0, 9), backoff=st.floats(1, 4), jitter=st.booleans(),
    fallback_agent=st.none() | st.just("a"), retry_on=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip
COMMON: dict[str, Any] = {
    "agent": st.just("a"), "action": TEXT, "arguments": st.dictionaries(TEXT, JSON, max_size=2),
    "input_mapping": st.sampled_from([{}, {"q": "a.b"}, {"all": "."}]),
    "output_mapping": st.sampled_from([{}, {"r.0": "x.y"}]), "conditions": CONDITIONS,
    "retry": st.none() | RETRIES, "timeout": st.none() | SECONDS,
    "effect": st.sampled_from([None, "read", "irreversible"]), "on_failure": st.sampled_from(["stop", "continue"]),
}  # fmt: skip
REFUSED = {"parallel": ("output_mapping",), "map_reduce": ("output_mapping", "on_failure")}


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    pattern = draw(st.sampled_from(PATTERNS))
    count = draw(st.integers(2, 3))
    own: dict[str, Any] = {}
    steps: list[Step] = []
    for number in range(count):
        following = f"s{number + 1}" if number + 1 < count else None
        if pattern == "conditional" and following:
            turn = Branching(
                condition=draw(CONDITIONS), if_true=following, if_false=draw(st.sampled_from([None, "s0"]))
            )
            own = {"next": draw(st.sampled_from([turn, following]))}
        elif pattern == "conditional":
            own = {}
        elif pattern == "saga":
            own = {
                "compensation": draw(st.none() | st.builds(Compensation, timeout=SECONDS, retry=st.none() | RETRIES))
            }
        elif pattern == "event_driven":
            own = {"on": (Trigger(event="e.f", filter=draw(CONDITIONS), within=draw(st.none() | SECONDS)),)}
        refused = REFUSED.get(pattern, ())
        common = {name: draw(values) for name, values in COMMON.items() if name not in refused}
        steps.append(Step(id=f"s{number}", **common, **own))
    return WorkflowDefinition(
        id="random", pattern=pattern, steps=tuple(steps), name=draw(TEXT), timeout=draw(st.none() | SECONDS),
        metadata=draw(st.dictionaries(TEXT, JSON, max_size=2)),
    )  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in *value*."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in items for place in places(each, (*path, key)))]


def faults_of(read: Callable[[], object]) -> tuple[Fault, ...]:
    """The faults for which something is refused, one at least; none: it is not refused."""
    try:
        read()
    except InvalidDefinitionError as refused:
        return refused.faults or (Fault("", ""),)
    return ()


@given(definitions())
def test_a_definition_comes_back_from_json_as_it_was_and_is_accepted(made: WorkflowDefinition) -> None:
    text = msgspec.json.encode(made)

    read = load_definition(text)

    assert read == made
    assert load_definition(json.loads(text)) == load_definition(made) == made
    assert msgspec.json.encode(read) == text
    assert Workflows([text], KNOWN)["random"].name == "random"


@given(definitions(), st.data())
def test_a_definition_that_was_broken_somewhere_is_accepted_or_has_faults_with_paths(
    made: WorkflowDefinition, data: st.DataObject
) -> None:
    plain: Any = json.loads(msgspec.json.encode(made))
    *way, last = data.draw(st.sampled_from([place for place in places(plain) if place]))
    target = plain
    for key in way:
        target = target[key]
    match data.draw(st.sampled_from(["drop", "replace", "rename"])):
        case "drop":
            del target[last]
        case "rename" if isinstance(target, dict):
            target[data.draw(TEXT)] = target.pop(last)
        case _:
            target[last] = data.draw(JSON | st.floats() | st.just(10**30))

    for fault in faults_of(lambda: Workflows([plain], KNOWN)):
        assert fault.text
        assert fault.path or "JSON" in fault.text or "object" in fault.text


@given(st.text() | st.binary() | JSON)
def test_whatever_is_read_is_a_definition_or_a_refusal_that_says_where(source: Any) -> None:
    if isinstance(source, str) and re.search(r"\.(json|toml)$", source, re.IGNORECASE):
        return
    for fault in faults_of(lambda: load_definition(source if isinstance(source, (str, bytes)) else json.dumps(source))):
        assert fault.text
