"""The actor of one tool: its circuit breaker, its rate limit, its figures, its calls outside of runs. The pure core.

A call inside a run has its intent in the run's stream; a call outside has it here (`call-started`), so that after a
crash nobody has to guess whether it happened. A tool whose scope is the conversation has a stream, and so a circuit,
for each: `tool/NAME@CONVERSATION`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.tools.breaker import (
    WINDOW_CALLS,
    Admission,
    Breaker,
    BreakerPolicy,
    Circuit,
    CircuitClosed,
    CircuitForced,
    CircuitHalfOpened,
    CircuitOpened,
    Outcome,
    ProbeAdmitted,
    RefusedBy,
    admit,
    after_outcome,
    after_transition,
    force,
    judge,
)
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.events import (
    CallCancelled,
    CallFailed,
    CallLost,
    CallRefused,
    CallStarted,
    CallSucceeded,
)
from perdure.actors.tools.limits import RateLimit, TokenTaken, after_token, take
from perdure.actors.tools.statistics import ToolStatistics, breaker_now, percentile
from perdure.store.codec import OptionalPayload
from perdure.store.errors import InternalError
from perdure.store.records import StreamId

_MICROSECOND = timedelta(microseconds=1)

CALLERS_FAULT = frozenset({"InvalidArgumentsError"})
"""Errors that never count against a tool, whatever its policy says."""


class Guard(msgspec.Struct, frozen=True):
    """What stands between callers and a tool."""

    breaker: BreakerPolicy = BreakerPolicy()
    rate: RateLimit | None = None


class Admit(Command, frozen=True, tag="admit"):
    """Ask whether a call may go ahead; answered with an `Admission`."""

    call: str
    life: int
    intent: str | None = None
    """The effect class when the call is to be recorded here before it is made."""
    key: str = ""
    """Whose bucket the call's token comes from, where there is a rate limit."""
    has_token: bool = False
    """Whether it has waited for its token already, in this life or a former one: then it takes no other."""


class Refuse(Command, frozen=True, tag="refuse"):
    """Record that a call was not let through, by somebody who asked nobody: the bulkhead."""

    call: str
    reason: str
    by: RefusedBy


class RecordSuccess(Command, frozen=True, tag="record-success"):
    """Report that an admitted call returned."""

    call: str
    generation: int
    micros: int
    result: OptionalPayload = msgspec.UNSET
    """To be kept here, since it is kept nowhere else."""


class RecordFailure(Command, frozen=True, tag="record-failure"):
    """Report that an admitted call failed."""

    call: str
    generation: int
    micros: int
    error_type: str
    error: str
    bases: tuple[str, ...] = ()
    """Names of the error's base classes, which the policy may exclude."""
    result: OptionalPayload = msgspec.UNSET
    """In which the error was reported, to be kept here."""


class RecordCancel(Command, frozen=True, tag="record-cancel"):
    """Report that an admitted call was given up."""

    call: str
    generation: int
    micros: int


class GiveUpLost(Command, frozen=True, tag="give-up-lost"):
    """Record that calls of former lives of the runtime are lost."""

    life: int


class ForceCircuit(Command, frozen=True, tag="force-circuit"):
    """Take the circuit over as an operator, or give it back (`auto`)."""

    to: Forcing
    because: str


class GetToolStatistics(Command, frozen=True, tag="get-tool-statistics"):
    """Ask for the figures of the tool; answered with `ToolStatistics`."""


ToolCommands: TypeAlias = (
    Admit | Refuse | RecordSuccess | RecordFailure | RecordCancel | GiveUpLost | ForceCircuit | GetToolStatistics
)


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
    recent: tuple[Outcome, ...] = ()
    """The last hundred outcomes: what rates and percentiles are taken over."""
    buckets: dict[str, int] = {}
    """By key, when the bucket of the rate limit is full again (steady microseconds)."""
    open_calls: dict[str, OpenCall] = {}


class ToolBehavior:
    """The rules of a tool's actor."""

    kind = "tool"
    state_type = ToolState
    state_version = 2
    events = (
        CallStarted, CallSucceeded, CallFailed, CallCancelled, CallRefused, CallLost, TokenTaken,
        CircuitOpened, CircuitHalfOpened, CircuitClosed, CircuitForced, ProbeAdmitted,
    )  # fmt: skip

    def __init__(self, guards: Mapping[str, Guard]) -> None:
        self._guards = guards
        self._default = Guard()

    def guard(self, state: ToolState) -> Guard:
        """Return what stands between callers and the tool; the same in every conversation."""
        guard = self._guards.get(state.name)
        return self._guards.get(state.name.partition("@")[0], self._default) if guard is None else guard

    def initial(self, stream: StreamId) -> ToolState:
        """Return the state of a tool that was never called."""
        return ToolState(stream.partition("/")[2])

    def decide(self, state: ToolState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        match command:
            case Admit():
                return _admit(state, self.guard(state), command, moment)
            case RecordSuccess():
                return _record_success(state, self.guard(state).breaker, command, moment)
            case RecordFailure():
                return _record_failure(state, self.guard(state).breaker, command, moment)
            case RecordCancel(call=call, generation=generation, micros=micros):
                return Decision((CallCancelled(state.name, call, generation, micros),), None)
            case Refuse(call=call, reason=reason, by=by):
                return Decision((CallRefused(state.name, call, reason, 0, by),), None)
            case GiveUpLost(life=life):
                lost = [CallLost(call, c.effect) for call, c in state.open_calls.items() if c.life != life]
                return Decision(lost, len(lost))
            case ForceCircuit(to=to, because=because):
                forced = force(state.breaker, to, because, moment.steady)
                return Decision(forced, bool(forced))
            case GetToolStatistics():
                return Decision((), statistics(state, self.guard(state).breaker, moment))
            case _:
                raise InternalError(detail=f"a tool does not understand {type(command).__name__}")

    def evolve(self, state: ToolState, event: Event) -> ToolState:
        """Return the state after *event*."""
        replace = msgspec.structs.replace
        match event:
            case CallSucceeded():
                return _ended(state, event, is_success=True)
            case CallFailed():
                return _ended(state, event, is_success=False)
            case CallCancelled(call=call, generation=generation):
                breaker = after_outcome(state.breaker, call, generation=generation, is_success=None)
                open_calls = _without(state.open_calls, call)
                return replace(state, breaker=breaker, cancelled=state.cancelled + 1, open_calls=open_calls)
            case CallStarted(call=call, effect=effect, life=life):
                return replace(state, open_calls={**state.open_calls, call: OpenCall(effect, life)})
            case CallRefused():
                return replace(state, rejected=state.rejected + 1)
            case CallLost(call=call):
                return replace(state, lost=state.lost + 1, open_calls=_without(state.open_calls, call))
            case TokenTaken():
                return replace(state, buckets=after_token(state.buckets, event))
            case CircuitOpened() | CircuitHalfOpened() | CircuitClosed() | CircuitForced() | ProbeAdmitted():
                return replace(state, breaker=after_transition(state.breaker, event))
            case _:
                raise InternalError(detail=f"a tool has no event {type(event).__name__}")

    def index(self, state: ToolState) -> Index:
        """Return that a tool is open work while calls outside of runs are being made."""
        return Index(is_open=bool(state.open_calls))


def _admit(state: ToolState, guard: Guard, command: Admit, moment: Moment) -> Decision[Admission]:
    admission, moved = admit(state.breaker, guard.breaker, command.call, command.life, moment.steady)
    events: list[Event] = []
    if admission.is_admitted and guard.rate is not None and not command.has_token:
        admission, events = _take_token(state, guard.rate, command, admission, moment)
    if not admission.is_admitted:
        refused = CallRefused(state.name, command.call, admission.reason, admission.retry_after, admission.refused_by)
        return Decision((refused,), admission)
    events.extend(moved)
    if command.intent is not None:
        events.append(CallStarted(command.call, command.intent, command.life))
    return Decision(events, admission)


def _take_token(
    state: ToolState, rate: RateLimit, command: Admit, admission: Admission, moment: Moment
) -> tuple[Admission, list[Event]]:
    """Take a token, at once or ahead of its time: then the call has its place, and waits for it."""
    full_at, wait = take(state.buckets.get(command.key, 0), rate, moment.steady)
    if wait > rate.max_wait // _MICROSECOND:
        reason = f"the rate limit of {rate.calls} calls in {rate.per.total_seconds():g} s is used up"
        refusal = Admission(
            is_admitted=False, generation=admission.generation, retry_after=wait, reason=reason, refused_by="rate"
        )
        return refusal, []
    delayed = msgspec.structs.replace(admission, delay=wait) if wait else admission
    return delayed, [TokenTaken(command.call, command.key, full_at)]


def _record_success(state: ToolState, policy: BreakerPolicy, command: RecordSuccess, moment: Moment) -> Decision[None]:
    generation, now = command.generation, moment.steady
    succeeded = CallSucceeded(state.name, command.call, generation, command.micros, now, command.result)
    window = _window(state, policy, Outcome(now, generation, is_failure=False, micros=command.micros))
    moved = judge(state.breaker, policy, generation=generation, failure=None, now=now, window=window)
    return Decision((succeeded, *moved), None)


def _record_failure(state: ToolState, policy: BreakerPolicy, command: RecordFailure, moment: Moment) -> Decision[None]:
    generation, now, kind = command.generation, moment.steady, command.error_type
    counts = not any(name in policy.excluded or name in CALLERS_FAULT for name in (kind, *command.bases))
    failed = CallFailed(
        state.name, command.call, generation, command.micros, kind, command.error, now, counts, command.result
    )
    if not counts:
        return Decision((failed,), None)
    window = _window(state, policy, Outcome(now, generation, is_failure=True, micros=command.micros))
    moved = judge(state.breaker, policy, generation=generation, failure=kind, now=now, window=window)
    return Decision((failed, *moved), None)


def _window(state: ToolState, policy: BreakerPolicy, outcome: Outcome) -> tuple[Outcome, ...]:
    """Return the outcomes that rates are judged over; none where the policy has no rates."""
    if policy.failure_rate is None and policy.slow_call_rate is None:
        return ()
    return (*state.recent, outcome)


def _ended(state: ToolState, event: CallSucceeded | CallFailed, *, is_success: bool) -> ToolState:
    call, generation = event.call, event.generation
    counts = is_success or not isinstance(event, CallFailed) or event.counts
    outcome = Outcome(event.at, generation, is_failure=not is_success, micros=event.micros)
    kept = state.recent[1 - WINDOW_CALLS :] if len(state.recent) >= WINDOW_CALLS else state.recent
    return ToolState(
        name=state.name,
        breaker=after_outcome(state.breaker, call, generation=generation, is_success=is_success if counts else None),
        calls=state.calls + 1,
        successes=state.successes + is_success,
        failed=state.failed + (not is_success),
        rejected=state.rejected,
        cancelled=state.cancelled,
        lost=state.lost,
        total_micros=state.total_micros + event.micros,
        last_error=f"{event.error_type}: {event.error}" if isinstance(event, CallFailed) else state.last_error,
        recent=(*kept, outcome) if counts else state.recent,
        buckets=state.buckets,
        open_calls=_without(state.open_calls, call) if state.open_calls else state.open_calls,
    )


def _without(calls: dict[str, OpenCall], call: str) -> dict[str, OpenCall]:
    return {k: v for k, v in calls.items() if k != call} if call in calls else calls


def statistics(state: ToolState, policy: BreakerPolicy, moment: Moment) -> ToolStatistics:
    """Return the figures of a tool as of *moment*."""
    breaker = state.breaker
    circuit, retry_after = breaker_now(breaker, policy, moment)
    return ToolStatistics(
        state=circuit.value,
        failures=breaker.failures,
        successes=state.successes,
        avg_time=state.total_micros / 1e6 / state.calls if state.calls else 0.0,
        calls=state.calls,
        rejected=state.rejected,
        cancelled=state.cancelled,
        lost=state.lost,
        p50=percentile(state.recent, 0.5),
        p95=percentile(state.recent, 0.95),
        last_error=state.last_error,
        opened_at=breaker.opened_at / 1e6 if breaker.circuit is Circuit.OPEN else None,
        retry_after_seconds=retry_after,
        forced=breaker.forced,
    )
