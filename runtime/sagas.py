"""Sagas that a caller drives step by step: started, asked for a step, looked at. All of it is in the log.

Invariant: what is told of a saga is read from its run, so it is the same after a restart, and a step that was asked for
twice, because the caller does not know whether it was, is one step.
"""

from typing import Any

import msgspec
import uuid_utils

from perdure.actors.workflows.agents.agent import PREFIX
from perdure.actors.workflows.agents.messages import AgentResponse
from perdure.actors.workflows.defined.checking import check
from perdure.actors.workflows.defined.errors import Fault, InvalidDefinitionError
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Compensation, Step, WorkflowDefinition
from perdure.actors.workflows.defined.stepwise import NAME, STEP, sent_step, step_key
from perdure.actors.workflows.errors import OrchestrationError, UnknownRunError
from perdure.runtime.options import OptionValues
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.records import Query, Recorded, StreamId

_ENDS = ("run-completed", "run-failed", "run-cancelled")
_TYPES = (
    "run-started", "run-retried", "step-started", "step-completed", "step-failed", "step-in-doubt", "step-not-done",
    "child-ended", "saga-failed", "saga-compensated", *_ENDS,
)  # fmt: skip


class SagaClosedError(OrchestrationError):
    """The saga has ended, or is being undone: no step of it is performed any more."""

    message = "saga {saga_id} {state}: no step of it is performed any more"
    saga_id: str
    state: str


class SagaState(msgspec.Struct, frozen=True, kw_only=True):
    """How a saga stands."""

    saga_id: str
    name: str
    total_steps: int
    current_step: int
    """How many steps have been completed."""
    completed_steps: tuple[dict[str, Any], ...]
    """The step's key and its result, for each."""
    compensated_steps: tuple[str, ...]
    """The keys of those that were undone, in the order in which they were to be."""
    data: dict[str, Any]
    """What it was started with."""
    completed: bool
    failed: bool
    error: str | None = None
    in_doubt: tuple[str, ...] = ()
    """The keys of the steps, and of what undoes them, that wait for a person (`rt.run(saga_id).settle_done(…)`)."""


class _Input(msgspec.Struct, frozen=True):
    name: str
    total_steps: int
    data: dict[str, Any]


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of a saga's run, what is told."""

    step: str | None = None
    tool: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    reason: str = ""
    status: str = ""
    undone: tuple[str, ...] = ()


def step_of(given: Step | dict[str, Any], number: int) -> Step:
    """Return a step from its short form: `{"agent", "service", "compensation"}`, the last one being an action.

    Raises:
        UsageError: it has other keys.
    """
    if isinstance(given, Step):
        return given
    known = {"agent", "service", "compensation"}
    if strange := given.keys() - known:
        raise UsageError(f"a saga's step has agent, service and compensation, or is a Step: not {', '.join(strange)}")
    undo = given.get("compensation")
    return Step(
        id=step_key(number),
        agent=given.get("agent"),
        action=given.get("service", "process"),
        compensation=None if undo is None else Compensation(action=undo),
    )


def check_step(name: str, step: Step, known: Known) -> None:
    """Check a step as one of a definition is checked.

    Raises:
        InvalidDefinitionError: it has faults; names all of them.
    """
    faults = check(WorkflowDefinition(id="saga", pattern="saga", steps=(step,)), known)
    if step.conditions:
        faults.append(Fault("steps[0].conditions", "who asks for the step decides whether it is performed"))
    if step.on_failure != "stop":
        faults.append(Fault("steps[0].on_failure", "a saga that is asked for its steps one by one stops at a failure"))
    if step.pause:
        faults.append(Fault("steps[0].pause", "who asks for the steps decides when the next one is performed"))
    if faults:
        raise InvalidDefinitionError(workflow_id=name, faults=tuple(faults))


@checked_but("__init__")
class Sagas:
    """The sagas of one runtime."""

    def __init__(self, runtime: Any, known: Known) -> None:
        self._runtime = runtime
        self._known = known

    async def start(
        self, name: str, total_steps: int, data: dict[str, Any] | None = None, *, id: str | None = None
    ) -> SagaState:
        """Start a saga of so many steps; durable on return. With an *id*, starting it again is the same saga.

        Raises:
            UsageError: it has no steps.
            RunConflictError: the id belongs to another run.
        """
        if total_steps < 1:
            raise UsageError("a saga has one step or more")
        saga_id = id or f"saga_{uuid_utils.uuid7()}"
        given = {"name": name, "total_steps": total_steps, "data": data or {}}
        await self._runtime.start_named(NAME, (), given, OptionValues(id=saga_id))
        return await self.state(saga_id)

    async def execute(self, saga_id: str, step: Step | dict[str, Any]) -> SagaState:
        """Perform the next step of a saga; return how it stands then, undone if the step failed.

        Raises:
            SagaClosedError: it has ended, or is being undone; nothing was done.
            InvalidDefinitionError: the step has faults; nothing was done.
            SignalConflictError: another step was asked for in this place before, and is not done yet.
            UnknownRunError: there is no such saga.
        """
        history = await self._history(saga_id)
        before = await self._state(saga_id, history)
        if before.failed or before.completed:
            state = "has failed" if before.failed else "is completed"
            raise SagaClosedError(workflow_id=before.name, saga_id=saga_id, state=state)
        number = before.current_step + 1
        made = step_of(step, number)
        await self.check(before.name, made)
        text = sent_step(made, self._runtime.redaction)
        await self._runtime.run(saga_id).signal(STEP, text, id=step_key(number))
        await self._until_done(saga_id, number, history, is_last=number == before.total_steps)
        return await self.state(saga_id)

    async def check(self, name: str, step: Step) -> None:
        """Check a step as one of a definition is checked.

        Raises:
            InvalidDefinitionError: it has faults; names all of them.
        """
        check_step(name, step, self._known)

    async def _until_done(self, saga_id: str, number: int, history: list[Recorded], *, is_last: bool) -> None:
        """Wait until a step was performed, the saga has ended, or something in it waits for a person."""
        doubts, done = _in_doubt(history), {step_key(number), f"{step_key(number)}~"}
        if doubts:
            return
        async for event in self._runtime.tail(_last(history), _query(saga_id)):
            is_done = _is_completed(event) and _facts(event).step in done and not is_last
            if is_done or event.type in (*_ENDS, "step-in-doubt"):
                return

    async def state(self, saga_id: str) -> SagaState:
        """Return how a saga stands.

        Raises:
            UnknownRunError: there is no such saga.
        """
        return await self._state(saga_id, await self._history(saga_id))

    async def _history(self, saga_id: str) -> list[Recorded]:
        history: list[Recorded] = []
        while page := await self._runtime.read(_query(saga_id, _last(history))):
            history += page
        if not history:
            raise UnknownRunError(run=saga_id)
        return history

    async def _state(self, saga_id: str, history: list[Recorded]) -> SagaState:
        given = msgspec.json.decode(await self._payload(history[0], "input"), type=_Input)
        done = {f"{step_key(n)}{more}" for n in range(1, given.total_steps + 1) for more in ("", "~")}
        facts = [(event, _facts(event)) for event in history]
        agents = {fact.step for event, fact in facts if event.type == "step-started" and fact.tool.startswith(PREFIX)}
        completed = [
            {
                "step": fact.step,
                "result": _answer(await self._payload(event, "result"), is_response=fact.step in agents),
            }
            for event, fact in facts
            if _is_completed(event) and fact.step in done
        ]
        types = [event.type for event in history]
        again = len(types) - types[::-1].index("run-retried") if "run-retried" in types else 0
        since = facts[again:]
        errors = [fact.error or fact.reason for event, fact in since if event.type in ("run-failed", "run-cancelled")]
        return SagaState(
            saga_id=saga_id,
            name=given.name,
            total_steps=given.total_steps,
            current_step=len(completed),
            completed_steps=tuple(completed),
            compensated_steps=next((fact.undone for event, fact in facts if event.type == "saga-compensated"), ()),
            data=given.data,
            completed="run-completed" in types,
            failed=bool({"saga-failed", "run-failed", "run-cancelled"} & {event.type for event, _ in since}),
            error=errors[-1] if errors else None,
            in_doubt=_in_doubt(history),
        )

    async def _payload(self, event: Recorded, field: str) -> bytes:
        large = msgspec.json.decode(event.blobs, type=dict[str, str]).get(field) if event.blobs else None
        if large is not None:
            return await self._runtime.blob(large) or b"null"
        return bytes(getattr(_facts(event), field))


def _last(history: list[Recorded]) -> int:
    return history[-1].position if history else 0


def _query(saga_id: str, after: int = 0) -> Query:
    return Query(stream=StreamId(f"run/{saga_id}"), types=_TYPES, after=after)


def _facts(event: Recorded) -> _Facts:
    return msgspec.json.decode(event.data or "{}", type=_Facts)


def _is_completed(event: Recorded) -> bool:
    return event.type == "step-completed" or (event.type == "child-ended" and _facts(event).status == "completed")


def _in_doubt(history: list[Recorded]) -> tuple[str, ...]:
    """Return the keys of what waits for a person after these events, in the order in which it came to that."""
    doubts: dict[str, None] = {}
    for event in history:
        step = _facts(event).step or ""
        if event.type == "step-in-doubt":
            doubts[step] = None
        elif event.type in ("step-completed", "step-failed", "step-not-done"):
            doubts.pop(step, None)
    return tuple(doubts) if history[-1].type not in _ENDS else ()


def _answer(result: bytes, *, is_response: bool) -> Any:
    """Return what a step answered: of an agent's response the data."""
    return msgspec.json.decode(result, type=AgentResponse).data if is_response else msgspec.json.decode(result)
