"""The circuit breaker: a pure state machine over the outcomes of calls.

It decides nothing about time, threads or calls: it is told the moment and answers with transitions. Every transition
starts a new generation; the outcome of a call admitted in an older one counts in the statistics and moves nothing.
Times are microseconds on the steady clock. Source: M. Nygard, Release It!, 2nd ed., ch. 5 (Circuit Breaker).
"""

from datetime import timedelta
from enum import Enum
from typing import TypeAlias

import msgspec

from perdure.store.codec import Event
from perdure.store.errors import UsageError


class Circuit(Enum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When a circuit opens, and how it closes again."""

    failure_threshold: int = 3
    """This many failures in a row open the circuit."""
    reset_timeout: timedelta = timedelta(seconds=300)
    """How long it stays open; a probe is let through after more than this."""
    probes: int = 1
    """Calls in flight at the same time while half open."""
    successes_to_close: int = 1
    """Successful probes in a row that close it."""

    def __post_init__(self) -> None:
        if min(self.failure_threshold, self.probes, self.successes_to_close) < 1:
            raise UsageError("failure_threshold, probes and successes_to_close are at least 1")
        if self.reset_timeout < timedelta(0):
            raise UsageError("reset_timeout is not negative")


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


class ProbeAdmitted(Event, frozen=True, tag="probe-admitted"):
    """A call is let through a half-open circuit, in the life *life* of the runtime."""

    call: str
    life: int


Transition: TypeAlias = CircuitOpened | CircuitHalfOpened | CircuitClosed | ProbeAdmitted


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


class Admission(msgspec.Struct, frozen=True):
    """The answer to a call that asks to be let through."""

    is_admitted: bool
    generation: int
    retry_after: int = 0
    """Microseconds until a probe may be let through, when refused."""
    reason: str = ""


def admit(state: Breaker, policy: BreakerPolicy, call: str, life: int, now: int) -> tuple[Admission, list[Transition]]:
    """Return whether *call* may go ahead at *now*, and the transitions that this causes.

    Probes of another life of the runtime died with it and hold no place.
    """
    if state.circuit is Circuit.CLOSED:
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
    in_flight = sum(1 for _, probe_life in state.probes if probe_life == life)
    if in_flight >= min(policy.probes, policy.successes_to_close - state.probe_successes):
        return _refused(state, "a probe is in flight"), []
    return Admission(is_admitted=True, generation=state.generation), [ProbeAdmitted(call, life)]


def _refused(state: Breaker, reason: str, retry_after: int = 0) -> Admission:
    return Admission(is_admitted=False, generation=state.generation, retry_after=retry_after, reason=reason)


def judge(state: Breaker, policy: BreakerPolicy, *, generation: int, failure: str | None, now: int) -> list[Transition]:
    """Return the transitions that the outcome of a call causes; *failure* says what went wrong, None is a success."""
    if generation != state.generation:
        return []
    if failure is not None:
        return _judge_failure(state, policy, failure, now)
    if state.circuit is Circuit.HALF_OPEN and state.probe_successes + 1 >= policy.successes_to_close:
        return [CircuitClosed(state.generation + 1, now)]
    return []


def _judge_failure(state: Breaker, policy: BreakerPolicy, failure: str, now: int) -> list[Transition]:
    if state.circuit is Circuit.HALF_OPEN:
        return [CircuitOpened(state.generation + 1, now, f"the probe failed, {failure}")]
    if state.circuit is Circuit.CLOSED and state.failures + 1 >= policy.failure_threshold:
        return [CircuitOpened(state.generation + 1, now, f"{state.failures + 1} failures in a row, last {failure}")]
    return []


def after_transition(state: Breaker, event: Transition) -> Breaker:
    """Return the state after a transition."""
    match event:
        case CircuitOpened(generation=generation, at=at, reason=reason):
            return Breaker(Circuit.OPEN, generation, failures=state.failures, opened_at=at, reason=reason)
        case CircuitHalfOpened(generation=generation):
            return Breaker(Circuit.HALF_OPEN, generation, failures=state.failures, opened_at=state.opened_at)
        case CircuitClosed(generation=generation):
            return Breaker(Circuit.CLOSED, generation)
        case ProbeAdmitted(call=call, life=life):
            return msgspec.structs.replace(state, probes=(*(p for p in state.probes if p[1] == life), (call, life)))


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
