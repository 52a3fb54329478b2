"""The circuit breaker: a pure state machine over the outcomes of calls.

It decides nothing about time, threads or calls: it is told the moment and answers with transitions. Every transition
starts a new generation; the outcome of a call admitted in an older one counts in the statistics and moves nothing.
Times are microseconds on the steady clock. Source: M. Nygard, Release It!, 2nd ed., ch. 5 (Circuit Breaker).
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import Enum
from typing import Literal, TypeAlias, get_args

import msgspec

from perdure.actors.kernel.spans import check_limit
from perdure.store.codec import Event
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields


class Circuit(Enum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


Command: TypeAlias = Literal["open", "closed", "disabled", "auto"]
"""What an operator may make of a circuit: refuse all, start afresh, let all through, go by its policy again."""

COMMANDS: tuple[Command, ...] = get_args(Command)

WINDOW_CALLS = 100
"""Outcomes that a tool's state keeps: no window is longer, so that a state stays a few kilobytes."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How a call ended, as far as windows and percentiles care."""

    at: int
    generation: int
    is_failure: bool
    micros: int


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When a circuit opens, and how it closes again.

    Failures in a row always count; a failure rate and a slow-call rate over a sliding window may be added.
    """

    failure_threshold: int = 3
    """This many failures in a row open the circuit."""
    reset_timeout: timedelta = timedelta(seconds=300)
    """How long it stays open; a probe is let through after more than this."""
    probes: int = 1
    """Calls in flight at the same time while half open."""
    successes_to_close: int = 1
    """Successful probes in a row that close it."""
    window_calls: int = WINDOW_CALLS
    """The window is the last so many calls, at most 100 …"""
    window_time: timedelta | None = None
    """… of these, the ones that ended within this time."""
    minimum_calls: int = 10
    """With fewer calls in the window no rate is judged."""
    failure_rate: float | None = None
    """The share of failures in the window, over 0 up to 1, that opens the circuit."""
    slow_call: timedelta | None = None
    """A call that takes longer is slow."""
    slow_call_rate: float | None = None
    """The share of slow calls in the window that opens the circuit."""
    excluded: tuple[str, ...] = ()
    """Names of error types that are no fault of the tool: neither a failure nor a success."""

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.failure_threshold, self.probes, self.successes_to_close, self.minimum_calls) < 1:
            raise UsageError("failure_threshold, probes, successes_to_close and minimum_calls are at least 1")
        check_limit(self.reset_timeout, "reset_timeout", may_be_over=True)
        if self.reset_timeout < timedelta(0):
            raise UsageError("reset_timeout is not negative")
        if not 1 <= self.window_calls <= WINDOW_CALLS:
            raise UsageError(f"window_calls is 1 to {WINDOW_CALLS}")
        if any(rate is not None and not 0 < rate <= 1 for rate in (self.failure_rate, self.slow_call_rate)):
            raise UsageError("failure_rate and slow_call_rate are over 0 and at most 1")
        if (self.slow_call is None) != (self.slow_call_rate is None):
            raise UsageError("slow_call and slow_call_rate go together")
        if self._has_rates and self.minimum_calls > self.window_calls:
            counts = f"minimum_calls ({self.minimum_calls}) is over window_calls ({self.window_calls})"
            raise UsageError(f"{counts}: no rate would ever be judged")

    @property
    def _has_rates(self) -> bool:
        return self.failure_rate is not None or self.slow_call_rate is not None


AGENT_POLICY = BreakerPolicy(failure_threshold=5, reset_timeout=timedelta(seconds=60), successes_to_close=3)
"""The policy of agents where nothing else is said; that of tools is `BreakerPolicy()`."""


class CircuitOpened(Event, frozen=True, tag="circuit-opened"):
    """Calls are refused from `at` on."""

    generation: int
    at: int
    reason: str


class CircuitHalfOpened(Event, frozen=True, tag="circuit-half-opened"):
    """The reset timeout has passed: probes are let through."""

    generation: int
    at: int


class CircuitClosed(Event, frozen=True, tag="circuit-closed"):
    """Calls are let through again."""

    generation: int
    at: int


class CircuitForced(Event, frozen=True, tag="circuit-forced"):
    """An operator took the circuit over, or gave it back; who it was is the event's principal."""

    generation: int
    at: int
    to: Command
    because: str


class ProbeAdmitted(Event, frozen=True, tag="probe-admitted"):
    """A call is let through a half-open circuit, in the life *life* of the runtime."""

    call: str
    life: int


Transition: TypeAlias = CircuitOpened | CircuitHalfOpened | CircuitClosed | CircuitForced | ProbeAdmitted


class Breaker(msgspec.Struct, frozen=True):
    """The state of a circuit breaker."""

    circuit: Circuit = Circuit.CLOSED
    generation: int = 0
    failures: int = 0
    """Failures in a row; a success sets it to zero."""
    opened_at: int = 0
    reason: str = ""
    probes: tuple[tuple[str, int], ...] = ()
    """Calls in flight while half open, with the life of the runtime that made them."""
    probe_successes: int = 0
    forced: Literal["", "open", "disabled"] = ""
    """What an operator made of it; empty: it goes by its policy."""


RefusedBy: TypeAlias = Literal["circuit", "rate", "bulkhead"]


class Admission(msgspec.Struct, frozen=True):
    """The answer to a call that asks to be let through."""

    is_admitted: bool
    generation: int
    retry_after: int = 0
    """Microseconds until a probe, or a token, may be there, when refused; 0: not known."""
    reason: str = ""
    refused_by: RefusedBy = "circuit"
    delay: int = 0
    """Microseconds that an admitted call has to wait for its token."""


def admit(state: Breaker, policy: BreakerPolicy, call: str, life: int, now: int) -> tuple[Admission, list[Transition]]:
    """Return whether *call* may go ahead at *now*, and the transitions that this causes.

    Probes of another life of the runtime died with it and hold no place; a call that asks again has the one it had.
    """
    if state.forced == "open":
        return _refused(state, state.reason), []
    if state.circuit is Circuit.CLOSED or state.forced == "disabled":
        return Admission(is_admitted=True, generation=state.generation), []
    if state.circuit is Circuit.OPEN:
        left = state.opened_at + _micros(policy.reset_timeout) - now
        if left >= 0:
            return _refused(state, state.reason, retry_after=left + 1), []
        generation = state.generation + 1
        return Admission(is_admitted=True, generation=generation), [
            CircuitHalfOpened(generation, now),
            ProbeAdmitted(call, life),
        ]
    in_flight = sum(1 for probe, probe_life in state.probes if probe_life == life and probe != call)
    if in_flight >= min(policy.probes, policy.successes_to_close - state.probe_successes):
        return _refused(state, "a probe is in flight"), []
    return Admission(is_admitted=True, generation=state.generation), [ProbeAdmitted(call, life)]


def _refused(state: Breaker, reason: str, retry_after: int = 0) -> Admission:
    return Admission(
        is_admitted=False,
        generation=state.generation,
        retry_after=retry_after,
        reason=reason,
    )


def judge(
    state: Breaker,
    policy: BreakerPolicy,
    *,
    generation: int,
    failure: str | None,
    now: int,
    window: Sequence[Outcome] = (),
) -> list[Transition]:
    """Return the transitions that the outcome of a call causes.

    *failure* says what went wrong, None is a success; *window* holds the outcomes so far, this one included.
    """
    if generation != state.generation or state.forced:
        return []
    if state.circuit is Circuit.HALF_OPEN:
        if failure is not None:
            return [CircuitOpened(state.generation + 1, now, f"the probe failed, {failure}")]
        if state.probe_successes + 1 >= policy.successes_to_close:
            return [CircuitClosed(state.generation + 1, now)]
        return []
    if state.circuit is Circuit.CLOSED and (reason := _why_open(state, policy, failure, now, window)) is not None:
        return [CircuitOpened(state.generation + 1, now, reason)]
    return []


def _why_open(
    state: Breaker, policy: BreakerPolicy, failure: str | None, now: int, window: Sequence[Outcome]
) -> str | None:
    if failure is not None and state.failures + 1 >= policy.failure_threshold:
        failures = state.failures + 1
        return f"{failures} of {failures} calls failed, last {failure}"
    if policy.failure_rate is None and policy.slow_call_rate is None:
        return None
    return _rate_exceeded(policy, judged_window(policy, window, state.generation, now), failure)


def judged_window(policy: BreakerPolicy, window: Sequence[Outcome], generation: int, now: int) -> list[Outcome]:
    """Return the outcomes that a rate is judged over: of this generation, not too many, not too old."""
    recent = [o for o in window if o.generation == generation][-policy.window_calls :]
    if policy.window_time is None:
        return recent
    oldest = now - _micros(policy.window_time)
    return [o for o in recent if o.at > oldest]


def _rate_exceeded(policy: BreakerPolicy, window: Sequence[Outcome], failure: str | None) -> str | None:
    calls = len(window)
    if calls < policy.minimum_calls:
        return None
    failed = sum(o.is_failure for o in window)
    if policy.failure_rate is not None and failure is not None and failed / calls >= policy.failure_rate:
        return f"{failed} of {calls} calls failed, last {failure}"
    if policy.slow_call is not None and policy.slow_call_rate is not None:
        slow = sum(o.micros > _micros(policy.slow_call) for o in window)
        if slow / calls >= policy.slow_call_rate:
            return f"{slow} of {calls} calls took over {policy.slow_call.total_seconds():g} s"
    return None


def force(state: Breaker, to: Command, because: str, now: int) -> list[Transition]:
    """Return what an operator's word leads to; nothing when it is so already.

    Raises:
        UsageError: it is not one of the four words.
    """
    if to not in COMMANDS:
        raise UsageError(f"a circuit is made {', '.join(COMMANDS)}, not {to!r}")
    if (to == "auto" and not state.forced) or to == state.forced:
        return []
    return [CircuitForced(state.generation + 1, now, to, because)]


def after_transition(state: Breaker, event: Transition) -> Breaker:
    """Return the state after a transition."""
    match event:
        case CircuitOpened(generation=generation, at=at, reason=reason):
            return Breaker(Circuit.OPEN, generation, failures=state.failures, opened_at=at, reason=reason)
        case CircuitHalfOpened(generation=generation):
            return Breaker(Circuit.HALF_OPEN, generation, failures=state.failures, opened_at=state.opened_at)
        case CircuitClosed(generation=generation):
            return Breaker(Circuit.CLOSED, generation)
        case CircuitForced():
            return _forced(event)
        case ProbeAdmitted(call=call, life=life):
            others = (probe for probe in state.probes if probe[1] == life and probe[0] != call)
            return msgspec.structs.replace(state, probes=(*others, (call, life)))


def _forced(event: CircuitForced) -> Breaker:
    match event.to:
        case "open":
            reason = f"an operator opened it: {event.because}"
            return Breaker(Circuit.OPEN, event.generation, opened_at=event.at, reason=reason, forced="open")
        case "disabled":
            return Breaker(Circuit.CLOSED, event.generation, forced="disabled")
        case "closed" | "auto":
            return Breaker(Circuit.CLOSED, event.generation)


def after_outcome(state: Breaker, call: str, *, generation: int, is_success: bool | None) -> Breaker:
    """Return the state after a call ended, before the transitions that it caused; None: neither success nor failure."""
    if generation != state.generation:
        return state
    failures, successes = state.failures, state.probe_successes
    if is_success is not None:
        failures = 0 if is_success else failures + 1
        successes += 1 if is_success and state.circuit is Circuit.HALF_OPEN else 0
    if (failures, successes) == (state.failures, state.probe_successes) and not state.probes:
        return state
    probes = tuple(p for p in state.probes if p[0] != call)
    return msgspec.structs.replace(state, failures=failures, probes=probes, probe_successes=successes)


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
