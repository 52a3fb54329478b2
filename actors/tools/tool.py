"""The actor of one tool: its circuit breaker, its figures, its calls outside of runs. The pure core.

A call inside a run has its intent in the run's stream; a call outside has it here (`call-started`), so that after a
crash nobody has to guess whether it happened.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.tools.breaker import (
    Admission,
    Breaker,
    BreakerPolicy,
    Circuit,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    ProbeAdmitted,
    admit,
    after_outcome,
    after_transition,
    judge,
)
from perdure.store.errors import InternalError
from perdure.store.records import StreamId


class CallStarted(Event, frozen=True, tag="call-started"):
    """A call outside of a run is about to be made."""

    call: str
    effect: str
    life: int


class CallSucceeded(Event, frozen=True, tag="call-succeeded"):
    """A call returned; `micros` is how long it took."""

    tool: str
    call: str
    generation: int
    micros: int


class CallFailed(Event, frozen=True, tag="call-failed"):
    """A call raised, timed out or reported an error."""

    tool: str
    call: str
    generation: int
    micros: int
    error_type: str
    error: str


class CallCancelled(Event, frozen=True, tag="call-cancelled"):
    """The caller gave the call up: neither a success nor a failure of the tool."""

    tool: str
    call: str
    generation: int
    micros: int


class CallRefused(Event, frozen=True, tag="call-refused"):
    """The circuit breaker did not let the call through."""

    tool: str
    call: str
    reason: str
    retry_after: int


class CallLost(Event, frozen=True, tag="call-lost"):
    """The process died during the call: whether it happened is not known."""

    call: str
    effect: str


class Admit(Command, frozen=True, tag="admit"):
    """Ask whether a call may go ahead; answered with an `Admission`."""

    call: str
    life: int
    intent: str | None = None
    """The effect class when the call is to be recorded here before it is made."""


class RecordSuccess(Command, frozen=True, tag="record-success"):
    """Report that an admitted call returned."""

    call: str
    generation: int
    micros: int


class RecordFailure(Command, frozen=True, tag="record-failure"):
    """Report that an admitted call failed."""

    call: str
    generation: int
    micros: int
    error_type: str
    error: str


class RecordCancel(Command, frozen=True, tag="record-cancel"):
    """Report that an admitted call was given up."""

    call: str
    generation: int
    micros: int


class GiveUpLost(Command, frozen=True, tag="give-up-lost"):
    """Record that calls of former lives of the runtime are lost."""

    life: int


class GetToolStatistics(Command, frozen=True, tag="get-tool-statistics"):
    """Ask for the figures of the tool; answered with `ToolStatistics`."""


ToolCommands: TypeAlias = Admit | RecordSuccess | RecordFailure | RecordCancel | GiveUpLost | GetToolStatistics


class OpenCall(msgspec.Struct, frozen=True):
    """A call outside of a run that is being made."""

    effect: str
    life: int


class ToolState(msgspec.Struct, frozen=True):
    """What the log knows of a tool."""

    name: str
    breaker: Breaker = Breaker()
    calls: int = 0
    successes: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    lost: int = 0
    total_micros: int = 0
    last_error: str = ""
    open_calls: dict[str, OpenCall] = {}


class ToolStatistics(msgspec.Struct, frozen=True):
    """The figures of a tool since its first call; a restart does not zero them."""

    state: str
    failures: int
    """Failures in a row."""
    successes: int
    avg_time: float
    """Seconds."""
    calls: int
    rejected: int
    cancelled: int
    lost: int
    last_error: str
    retry_after_seconds: float


class ToolBehavior:
    """The rules of a tool's actor."""

    kind = "tool"
    state_type = ToolState
    state_version = 1
    events = (
        CallStarted, CallSucceeded, CallFailed, CallCancelled, CallRefused, CallLost,
        CircuitOpened, CircuitHalfOpened, CircuitClosed, ProbeAdmitted,
    )  # fmt: skip

    def __init__(self, policies: Mapping[str, BreakerPolicy]) -> None:
        self._policies = policies
        self._default = BreakerPolicy()

    def initial(self, stream: StreamId) -> ToolState:
        """Return the state of a tool that was never called."""
        return ToolState(stream.partition("/")[2])

    def decide(self, state: ToolState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        policy = self._policies.get(state.name, self._default)
        match command:
            case Admit():
                return _admit(state, policy, command, moment)
            case RecordSuccess(call=call, generation=generation, micros=micros):
                moved = judge(state.breaker, policy, generation=generation, failure=None, now=moment.steady)
                return Decision((CallSucceeded(state.name, call, generation, micros), *moved), None)
            case RecordFailure(call=call, generation=generation, micros=micros, error_type=kind, error=error):
                failed = CallFailed(state.name, call, generation, micros, kind, error)
                moved = judge(state.breaker, policy, generation=generation, failure=kind, now=moment.steady)
                return Decision((failed, *moved), None)
            case RecordCancel(call=call, generation=generation, micros=micros):
                return Decision((CallCancelled(state.name, call, generation, micros),), None)
            case GiveUpLost(life=life):
                lost = [CallLost(call, c.effect) for call, c in state.open_calls.items() if c.life != life]
                return Decision(lost, len(lost))
            case GetToolStatistics():
                return Decision((), statistics(state, policy, moment))
            case _:
                raise InternalError(detail=f"a tool does not understand {type(command).__name__}")

    def evolve(self, state: ToolState, event: Event) -> ToolState:
        """Return the state after *event*."""
        match event:
            case CallSucceeded(call=call, generation=generation, micros=micros):
                return _ended(state, call, generation, micros, is_success=True)
            case CallFailed(call=call, generation=generation, micros=micros, error_type=kind, error=error):
                return _ended(state, call, generation, micros, is_success=False, error=f"{kind}: {error}")
            case CallCancelled(call=call, generation=generation):
                breaker = after_outcome(state.breaker, call, generation=generation, is_success=None)
                return msgspec.structs.replace(
                    state, breaker=breaker, cancelled=state.cancelled + 1, open_calls=_without(state.open_calls, call)
                )
            case CallStarted(call=call, effect=effect, life=life):
                return msgspec.structs.replace(state, open_calls={**state.open_calls, call: OpenCall(effect, life)})
            case CallRefused():
                return msgspec.structs.replace(state, rejected=state.rejected + 1)
            case CallLost(call=call):
                return msgspec.structs.replace(state, lost=state.lost + 1, open_calls=_without(state.open_calls, call))
            case CircuitOpened() | CircuitHalfOpened() | CircuitClosed() | ProbeAdmitted():
                return msgspec.structs.replace(state, breaker=after_transition(state.breaker, event))
            case _:
                raise InternalError(detail=f"a tool has no event {type(event).__name__}")

    def index(self, state: ToolState) -> Index:
        """Return that a tool is open work while calls outside of runs are being made."""
        return Index(is_open=bool(state.open_calls))


def _admit(state: ToolState, policy: BreakerPolicy, command: Admit, moment: Moment) -> Decision[Admission]:
    admission, moved = admit(state.breaker, policy, command.call, command.life, moment.steady)
    if not admission.is_admitted:
        refused = CallRefused(state.name, command.call, admission.reason, admission.retry_after)
        return Decision((refused,), admission)
    if command.intent is None:
        return Decision(moved, admission)
    return Decision((*moved, CallStarted(command.call, command.intent, command.life)), admission)


def _ended(
    state: ToolState, call: str, generation: int, micros: int, *, is_success: bool, error: str | None = None
) -> ToolState:
    return ToolState(
        name=state.name,
        breaker=after_outcome(state.breaker, call, generation=generation, is_success=is_success),
        calls=state.calls + 1,
        successes=state.successes + is_success,
        failed=state.failed + (not is_success),
        rejected=state.rejected,
        cancelled=state.cancelled,
        lost=state.lost,
        total_micros=state.total_micros + micros,
        last_error=state.last_error if error is None else error,
        open_calls=_without(state.open_calls, call),
    )


def _without(calls: dict[str, OpenCall], call: str) -> dict[str, OpenCall]:
    return {k: v for k, v in calls.items() if k != call} if call in calls else calls


def statistics(state: ToolState, policy: BreakerPolicy, moment: Moment) -> ToolStatistics:
    """Return the figures of a tool as of *moment*: a circuit whose time has come is half open, called or not."""
    circuit, retry_after = state.breaker.circuit, 0.0
    if circuit is Circuit.OPEN:
        left = state.breaker.opened_at + policy.reset_timeout // timedelta(microseconds=1) - moment.steady
        circuit, retry_after = (Circuit.OPEN, left / 1e6) if left >= 0 else (Circuit.HALF_OPEN, 0.0)
    return ToolStatistics(
        state=circuit.value,
        failures=state.breaker.failures,
        successes=state.successes,
        avg_time=state.total_micros / 1e6 / state.calls if state.calls else 0.0,
        calls=state.calls,
        rejected=state.rejected,
        cancelled=state.cancelled,
        lost=state.lost,
        last_error=state.last_error,
        retry_after_seconds=retry_after,
    )
