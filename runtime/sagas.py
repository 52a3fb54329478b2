"""Sagas that a caller drives step by step: started, asked for a step, looked at. All of it is in the log.

Invariant: what is told of a saga is read from its run, so it is the same after a restart, and a step that was asked for
twice, because the caller does not know whether it was, is one step.
"""

from typing import Any, cast

import msgspec
import uuid_utils

from perdure.actors.workflows.defined.checking import check
from perdure.actors.workflows.defined.errors import InvalidDefinitionError
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Compensation, Step, WorkflowDefinition
from perdure.actors.workflows.defined.stepwise import NAME, STEP, step_key
from perdure.actors.workflows.errors import OrchestrationError, UnknownRunError
from perdure.runtime.options import OptionValues
from perdure.store.errors import UsageError
from perdure.store.records import Query, Recorded, StreamId

_TYPES = (
    "run-started", "step-completed", "saga-failed", "saga-compensated", "step-in-doubt",
    "run-completed", "run-failed", "run-cancelled",
)  # fmt: skip
_ENDS = {"run-completed", "run-failed", "run-cancelled", "step-in-doubt"}


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


class _Input(msgspec.Struct, frozen=True):
    name: str
    total_steps: int
    data: dict[str, Any]


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of a saga's run, what is told."""

    step: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    reason: str = ""
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


def check_steps(name: str, steps: tuple[Step, ...], known: Known) -> None:
    """Check steps as a definition is checked.

    Raises:
        InvalidDefinitionError: they have faults; names all of them.
    """
    if faults := check(WorkflowDefinition(id=name, pattern="saga", steps=steps), known):
        raise InvalidDefinitionError(workflow_id=name, faults=tuple(faults))


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
            UnknownRunError: there is no such saga.
        """
        before = await self.state(saga_id)
        if before.failed or before.completed:
            state = "has failed" if before.failed else "is completed"
            raise SagaClosedError(workflow_id=before.name, saga_id=saga_id, state=state)
        number = before.current_step + 1
        made = step_of(step, number)
        check_steps(before.name, (made,), self._known)
        await self._runtime.run(saga_id).signal(STEP, made, id=step_key(number))
        await self._until_done(saga_id, number, is_last=number == before.total_steps)
        return await self.state(saga_id)

    async def _until_done(self, saga_id: str, number: int, *, is_last: bool) -> None:
        query = Query(stream=StreamId(f"run/{saga_id}"), types=_TYPES)
        async for event in self._runtime.tail(0, query):
            facts = msgspec.json.decode(event.data or "{}", type=_Facts)
            is_done = event.type == "step-completed" and facts.step == step_key(number) and not is_last
            if is_done or event.type in _ENDS:
                return

    async def state(self, saga_id: str) -> SagaState:
        """Return how a saga stands.

        Raises:
            UnknownRunError: there is no such saga.
        """
        query = Query(stream=StreamId(f"run/{saga_id}"), types=_TYPES)
        history: list[Recorded] = []
        while page := await self._runtime.read(msgspec.structs.replace(query, after=_last(history))):
            history += page
        if not history:
            raise UnknownRunError(run=saga_id)
        given = msgspec.json.decode(await self._payload(history[0], "input"), type=_Input)
        done = {f"{step_key(n)}{more}" for n in range(1, given.total_steps + 1) for more in ("", "~")}
        facts = [(event, msgspec.json.decode(event.data or "{}", type=_Facts)) for event in history]
        completed = [
            {"step": fact.step, "result": _answer(await self._payload(event, "result"))}
            for event, fact in facts
            if event.type == "step-completed" and fact.step in done
        ]
        errors = [fact.error or fact.reason for event, fact in facts if event.type in ("run-failed", "run-cancelled")]
        types = {event.type for event in history}
        return SagaState(
            saga_id=saga_id,
            name=given.name,
            total_steps=given.total_steps,
            current_step=len(completed),
            completed_steps=tuple(completed),
            compensated_steps=next((fact.undone for event, fact in facts if event.type == "saga-compensated"), ()),
            data=given.data,
            completed="run-completed" in types,
            failed=bool(types & {"saga-failed", "run-failed", "run-cancelled"}),
            error=errors[-1] if errors else None,
        )

    async def _payload(self, event: Recorded, field: str) -> bytes:
        large = msgspec.json.decode(event.blobs, type=dict[str, str]).get(field) if event.blobs else None
        if large is not None:
            return await self._runtime.blob(large) or b"null"
        return bytes(getattr(msgspec.json.decode(event.data or "{}", type=_Facts), field))


def _last(history: list[Recorded]) -> int:
    return history[-1].position if history else 0


def _answer(result: bytes) -> Any:
    """Return what a step answered: of an agent's response the data."""
    answer: Any = msgspec.json.decode(result)
    if not isinstance(answer, dict):
        return answer
    fields = cast("dict[str, Any]", answer)
    return fields["data"] if fields.keys() == {"success", "data", "error", "metadata"} else fields
