"""Checks a definition whole, before it is registered: every fault with its path, not only the first.

What only one pattern has is in `pattern_faults.py`. Pure: nothing is called, and nothing is registered. Invariant: a
definition without faults names only what there is, ends, and needs no check while it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from perdure.actors.workflows.defined.condition_faults import faults_in, path_faults
from perdure.actors.workflows.defined.errors import Fault
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Compensation, RetryPolicy, Step, WorkflowDefinition
from perdure.actors.workflows.defined.pattern_faults import LONGEST_SECONDS, event_faults, pattern_faults
from perdure.actors.workflows.defined.wording import nearest, under

ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
"""What workflows and steps may be called: a step's id is its key in the log."""

MOST_RETRIES: Final = 1000


def check(definition: WorkflowDefinition, known: Known) -> list[Fault]:
    """Return everything that is wrong with a definition whose shape was read (`reading.py`); empty: nothing."""
    return [*_whole(definition), *_steps(definition, known), *pattern_faults(definition, known)]


def _whole(definition: WorkflowDefinition) -> Iterator[Fault]:
    if not ID.fullmatch(definition.id):
        yield Fault("id", _id_text(definition.id))
    if definition.timeout is not None:
        yield from _seconds(definition.timeout, "timeout")
    for name, least, most in (("concurrency", 1, 10_000), ("page_size", 1, 10_000), ("max_visits", 1, 1_000_000)):
        if not least <= getattr(definition, name) <= most:
            yield Fault(name, f"it is {least} to {most:_}, not {getattr(definition, name)}".replace("_", ","))
    if not definition.steps:
        yield Fault("steps", "there is none: a workflow has one step or more")


def _id_text(id: str) -> str:
    return f"an id is 1 to 100 letters, digits and the characters _ . : -, not {id!r}"


def _seconds(seconds: float, at: str, *, may_be_zero: bool = False) -> Iterator[Fault]:
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not may_be_zero) or seconds > LONGEST_SECONDS:
        yield Fault(at, f"it is seconds, more than 0 and at most ten years, not {seconds:g}")


def _steps(definition: WorkflowDefinition, known: Known) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for number, step in enumerate(definition.steps):
        at = f"steps[{number}]"
        if not ID.fullmatch(step.id):
            yield Fault(f"{at}.id", _id_text(step.id))
        elif step.id in first:
            yield Fault(f"{at}.id", f"{step.id!r} is the id of steps[{first[step.id]}] too: each step has its own")
        first.setdefault(step.id, number)
        yield from _step(step, at, known)


def _step(step: Step, at: str, known: Known) -> Iterator[Fault]:
    yield from _called(step, at, known)
    if step.timeout is not None:
        yield from _seconds(step.timeout, f"{at}.timeout")
    yield from faults_in(step.conditions, f"{at}.conditions", known.predicates)
    yield from _mapping(step.input_mapping, f"{at}.input_mapping", sources=True)
    yield from _mapping(step.output_mapping, f"{at}.output_mapping", sources=False)
    yield from path_faults(step.answer, f"{at}.answer")
    if step.retry is not None:
        yield from _retry(step.retry, f"{at}.retry", known)
        yield from _of_fallback(step.retry, step.action, f"{at}.retry", known)
    if step.publish is not None:
        yield from event_faults(step.publish, f"{at}.publish", known)
    if step.compensation is not None:
        yield from _compensation(step, step.compensation, f"{at}.compensation", known)


def _called(step: Step, at: str, known: Known) -> Iterator[Fault]:
    named = {word: getattr(step, word) for word in ("agent", "tool", "workflow") if getattr(step, word) is not None}
    if len(named) != 1:
        yield Fault(at, f"it names {' and '.join(named) or 'nobody'}: a step calls one agent, one tool or one workflow")
    if step.agent is not None:
        yield from _agent(step.agent, step.action, at, known)
    elif step.action != "process":
        yield Fault(f"{at}.action", "only an agent is told an action")
    if step.tool is not None:
        yield from _tool(step, step.tool, at, known)
    if step.workflow is not None and step.workflow not in known.workflows:
        yield Fault(
            f"{at}.workflow", f"there is no workflow {step.workflow!r}; {nearest(step.workflow, known.workflows)}"
        )
    if (child := known.child(step)) is not None:
        yield from _workflow(step, child, at)


def _workflow(step: Step, name: str, at: str) -> Iterator[Fault]:
    """Yield what a step says that means nothing for a workflow."""
    if step.effect is not None:
        yield Fault(f"{at}.effect", f"{name} is a workflow, which has no effect class: its own steps have")
    if step.retry is not None and step.retry.max_retries:
        text = f"{name} is a workflow, which is run once: its own steps are tried again"
        yield Fault(f"{at}.retry.max_retries", f"{text}; write 0 for a fallback_agent alone")


def _agent(name: str, action: str | None, at: str, known: Known) -> Iterator[Fault]:
    """Yield what is wrong with calling an agent; no *action*: only whether it is there."""
    found = known.agents.get(name)
    if found is None:
        yield Fault(f"{at}.agent", f"there is no agent {name!r}; {nearest(name, known.agents)}")
    elif action is not None and found.known_actions is not None and action not in found.known_actions:
        yield Fault(f"{at}.action", f"agent {name} has no action {action!r}; {nearest(action, found.known_actions)}")


def _tool(step: Step, name: str, at: str, known: Known) -> Iterator[Fault]:
    tool = known.tools.get(name)
    if tool is None:
        tools = [each for each in known.tools if not each.startswith("agent:")]
        yield Fault(f"{at}.tool", f"there is no tool {name!r}; {nearest(name, tools)}")
        return
    schema: dict[str, Any] = tool.schema["function"]["parameters"]
    for word in ("arguments", "input_mapping"):
        for key in getattr(step, word):
            if key not in schema["properties"]:
                yield Fault(
                    under(f"{at}.{word}", key), f"{name} has no such parameter; {nearest(key, schema['properties'])}"
                )
    given = {*step.arguments, *step.input_mapping}
    if step.input_mapping and (lacking := [key for key in schema["required"] if key not in given]):
        yield Fault(f"{at}.input_mapping", f"{name} needs {', '.join(lacking)} too")


def _mapping(mapping: Mapping[str, str], at: str, *, sources: bool) -> Iterator[Fault]:
    """Yield what is wrong with a mapping; with *sources* its keys are names and only its values are paths."""
    for key, path in mapping.items():
        yield from path_faults(path, under(at, key))
        if not sources:
            yield from path_faults(key, under(at, key))
        elif not key:
            yield Fault(at, "a key is empty")


def _retry(retry: RetryPolicy, at: str, known: Known) -> Iterator[Fault]:
    if not 0 <= retry.max_retries <= MOST_RETRIES:
        yield Fault(f"{at}.max_retries", f"it is 0 to {MOST_RETRIES}, not {retry.max_retries}")
    if not math.isfinite(retry.backoff) or retry.backoff < 1:
        yield Fault(
            f"{at}.backoff", f"each wait is so many times as long as the one before: at least 1, not {retry.backoff:g}"
        )
    yield from _seconds(retry.initial_seconds, f"{at}.initial_seconds", may_be_zero=True)
    yield from _seconds(retry.max_delay_seconds, f"{at}.max_delay_seconds", may_be_zero=True)
    if both := sorted(set(retry.retry_on) & set(retry.dont_retry_on)):
        yield Fault(f"{at}.dont_retry_on", f"{', '.join(both)} is in retry_on too")
    if retry.fallback_agent is not None and retry.fallback_agent not in known.agents:
        text = f"there is no agent {retry.fallback_agent!r}; {nearest(retry.fallback_agent, known.agents)}"
        yield Fault(f"{at}.fallback_agent", text)


def _compensation(step: Step, undo: Compensation, at: str, known: Known) -> Iterator[Fault]:
    if undo.agent is not None and undo.tool is not None:
        yield Fault(at, "it names agent and tool: one of them undoes the step")
    if undo.agent is None and undo.tool is None and step.agent is None:
        yield Fault(at, "it names nobody, and the step has no agent that could undo it: name an agent or a tool")
    if undo.tool is not None and undo.action != "compensate" and (undo.retry is None or not undo.retry.fallback_agent):
        yield Fault(f"{at}.action", "only an agent is told an action")
    if undo.tool is not None and undo.tool not in known.tools:
        yield Fault(f"{at}.tool", f"there is no tool {undo.tool!r}; {nearest(undo.tool, known.tools)}")
    agent = undo.agent or (step.agent if undo.tool is None else None)
    if agent is not None and (undo.agent is not None or agent in known.agents):  # the step's own is told there
        yield from _agent(agent, undo.action, at, known)
    for name in (agent, None if undo.retry is None else undo.retry.fallback_agent):
        if name is not None and name in known.agents and known.agents[name].workflow is not None:
            yield Fault(at, f"agent {name} is a workflow, which undoes nothing: name a tool, or another agent")
    yield from _seconds(undo.timeout, f"{at}.timeout")
    yield from _mapping(undo.input_mapping, f"{at}.input_mapping", sources=True)
    if undo.retry is not None:
        yield from _retry(undo.retry, f"{at}.retry", known)
        yield from _of_fallback(undo.retry, undo.action, f"{at}.retry", known)
    if step.retry is not None and undo.agent is None and undo.tool is None:
        yield from _of_fallback(step.retry, undo.action, at, known)  # what it did, it undoes


def _of_fallback(retry: RetryPolicy, action: str, at: str, known: Known) -> Iterator[Fault]:
    if retry.fallback_agent is not None and retry.fallback_agent in known.agents:
        yield from _agent(retry.fallback_agent, action, at, known)
