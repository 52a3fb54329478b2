"""A workflow as data: what a definition, a step and its policies consist of.

Nothing is checked here beyond types (`checking.py` does) and nothing is performed (`patterns.py` does). Invariant: what
is here is plain JSON, so that a run carries the definition that it started with.
"""

from datetime import timedelta
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from perdure.actors.tools.definition import EffectClass
from perdure.actors.tools.retry import Retry

Pattern: TypeAlias = Literal[
    "sequential", "parallel", "fan_out_fan_in", "conditional", "saga", "map_reduce", "event_driven"
]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)

OnFailure: TypeAlias = Literal["stop", "continue"]

OnItemFailure: TypeAlias = Literal["fail", "continue"]

Reduce: TypeAlias = Literal["all", "fold"]

Conditions: TypeAlias = str | dict[str, Any]
"""A named predicate, or `{"if": "path", "gt": 0}`, `{"and": […]}`, `{"or": […]}`, `{"not": …}`, `{}` (always)."""

Mapping: TypeAlias = dict[str, str]
"""From where to where, as dotted paths: see `data.py`."""

MERGES = ("last_wins", "first_wins", "error")
"""What fan-in does by itself when two steps give the same key; any other word names a reducer."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a failed step is tried again, how far apart, and who is asked at last."""

    max_retries: int = 3
    """Attempts after the first: 3 are four in all."""
    backoff: float = 2.0
    """What each wait is multiplied by: 1, 2, 4 … seconds."""
    initial_seconds: float = 1.0
    """The wait before the second attempt."""
    max_delay_seconds: float = 300.0
    """No wait is longer."""
    jitter: bool = True
    """Wait a random part of it, so that many do not come back at once."""
    retry_on: tuple[str, ...] = ()
    """Names of the error types that are tried again, with those derived from them; all when left out."""
    dont_retry_on: tuple[str, ...] = ()
    """Names of the error types that are not."""
    fallback_agent: str | None = None
    """Asked once after the last attempt has failed; its answer is the step's."""

    def as_retry(self) -> Retry:
        """Return the same as the policy of a call.

        Raises:
            UsageError: a number is out of range; `checking.py` says so first.
        """
        return Retry(
            attempts=self.max_retries + 1,
            backoff=timedelta(seconds=self.initial_seconds),
            factor=self.backoff,
            cap=timedelta(seconds=self.max_delay_seconds),
            jitter=self.jitter,
            retry_on=self.retry_on or None,
            never_on=self.dont_retry_on,
        )


class Compensation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What undoes a step of a saga; it is told the data that the step was given and what it returned."""

    agent: str | None = None
    """Who undoes it; the step's own agent when neither an agent nor a tool is named."""
    tool: str | None = None
    action: str = "compensate"
    retry: RetryPolicy | None = None
    """Five attempts with backoff when left out."""
    timeout: float = 300.0
    """Seconds that one attempt may take."""
    input_mapping: Mapping = {}
    """Over `original_data` and `step_result`; both are sent when left out."""
    unsure: bool = False
    """Whether a step that failed is undone too, since it may have happened; `step_result` is null then."""


class Branching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a conditional workflow goes on, by a condition over its data. No step: it ends there."""

    condition: Conditions
    if_true: str | None = msgspec.field(default=None, name="true")
    if_false: str | None = msgspec.field(default=None, name="false")
    default: str | None = None
    """Where to go if the way that the condition chose is left out, or the condition cannot be judged."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event that a step of an event-driven workflow waits for."""

    event: str
    """Its type."""
    filter: Conditions = {}
    """Over the event's data; every event of the type when left out."""
    within: float | None = None
    """Seconds to wait for it; for ever when left out."""


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a definition: whom it calls, with what, and what becomes of the answer."""

    id: str
    agent: str | None = None
    """Exactly one of agent, tool and workflow is named."""
    tool: str | None = None
    workflow: str | None = None
    action: str = "process"
    """What an agent is asked to do: the type of the message."""
    arguments: dict[str, Any] = {}
    """What is sent as it stands here, under what `input_mapping` takes from the data."""
    input_mapping: Mapping = {}
    """The key that is sent ← where it is in the data. Left out: all data; to a tool, those that it has
    parameters for."""
    output_mapping: Mapping = {}
    """Where it is in the result → where it is put in the data."""
    conditions: Conditions = {}
    """Over the data: where they do not hold, the step is skipped."""
    retry: RetryPolicy | None = None
    """Left out: what the agent or the tool says itself."""
    timeout: float | None = 300.0
    """Seconds that one attempt may take."""
    effect: EffectClass | None = None
    """What a crash means for it; left out: what the agent or the tool says itself."""
    on_failure: OnFailure = "stop"
    """Whether the workflow goes on with the next step after this one failed for good."""
    compensation: Compensation | None = None
    """What undoes it; in a saga only."""
    pivot: bool = False
    """After it a saga only goes forward: what fails from here on waits for a person. In a saga only."""
    publish: str | None = None
    """The type of the event as which its result is published, for workflows that wait for it."""
    pause: bool = False
    """Whether the run is paused once the step was performed, until somebody resumes it with an answer. It then goes on
    at the step `{id}_resume` if there is one, and otherwise with the next."""
    answer: str = "answer"
    """Where in the data that answer is put."""
    next: str | Branching | None = None
    """Where a conditional workflow goes on; left out, it ends here."""
    on: tuple[Trigger, ...] = ()
    """What starts the step of an event-driven workflow: the first of these to come."""


class WorkflowDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workflow as data: steps, and the pattern in which they are performed."""

    id: str
    name: str = ""
    """For people; the id when left out."""
    description: str = ""
    pattern: Pattern = "sequential"
    steps: tuple[Step, ...]
    metadata: dict[str, Any] = {}
    """Anything, for those who list definitions; a run keeps it."""
    timeout: float | None = 1800.0
    """Seconds that a run may take."""
    start: str | None = None
    """The first step of a conditional workflow; the first one listed when left out."""
    entry_steps: tuple[str, ...] = ()
    """Steps that a conditional workflow is begun at too, by entry points (`EntryPoint.node`)."""
    max_visits: int = 100
    """How often a conditional workflow may come to one step before it fails: a bound for its cycles."""
    items: str = "items"
    """Where in the data the items of a map-reduce are."""
    concurrency: int = 16
    """Items of a map-reduce, or steps beside one another, that are worked on at the same time."""
    on_item_failure: OnItemFailure = "fail"
    """Whether a map-reduce goes on when an item has failed for good."""
    page_size: int = 1000
    """Items of a map-reduce that are read and recorded together."""
    reduce: Reduce = "all"
    """Whether a map-reduce gives its last step all results at once, or those of one page after the other (`fold`)."""
    merge: str = "last_wins"
    """How fan-in merges what the steps returned: last_wins, first_wins, error, or the name of a reducer."""
    until: Conditions | None = None
    """When an event-driven workflow is complete, over its data; left out: when every step has run once."""

    def step(self, id: str) -> Step:
        """Return the step of that id.

        Raises:
            KeyError: there is none.
        """
        for each in self.steps:
            if each.id == id:
                return each
        raise KeyError(id)


def defined_by(workflow: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """Return the definition that the input of a run carries, as plain data; None where its workflow is a function."""
    definition: Any = given.get("definition")
    if given.keys() != {"data", "definition"} or not isinstance(definition, dict):
        return None
    found = cast("dict[str, Any]", definition)
    return found if found.get("id") == workflow and "steps" in found else None
