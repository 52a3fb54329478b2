"""What another policy would have made of recorded calls: the breaker's own rules over outcomes of the past. Pure.

The outcomes are those that happened: a call that would have been refused did happen, and is saved when it failed.
"""

from collections.abc import Iterable

import msgspec

from perdure.actors.tools.breaker import (
    WINDOW_CALLS,
    Breaker,
    BreakerPolicy,
    CircuitOpened,
    Outcome,
    admit,
    after_outcome,
    after_transition,
    judge,
)


class PastCall(msgspec.Struct, frozen=True):
    """A recorded call; times are microseconds."""

    ended_at: int
    micros: int
    error_type: str | None = None
    """None: it succeeded."""


class Simulation(msgspec.Struct, frozen=True):
    """What would have happened."""

    calls: int
    opened_at: tuple[int, ...]
    """When the circuit would have opened (microseconds since 1970 UTC)."""
    refused: int
    saved: int
    """Refused calls that failed when they were made."""
    lost: int
    """Refused calls that succeeded when they were made."""
    saved_micros: int
    """Time that was spent in the calls saved."""


def simulate(policy: BreakerPolicy, outcomes: Iterable[PastCall]) -> Simulation:
    """Return what *policy* would have made of *outcomes*, in the order of their ends."""
    state, recent = Breaker(), list[Outcome]()
    opened: list[int] = []
    saved = lost = saved_micros = calls = 0
    for number, past in enumerate(outcomes):
        calls += 1
        call = str(number)
        admission, moved = admit(state, policy, call, 0, past.ended_at - past.micros)
        for event in moved:
            state = after_transition(state, event)
        if not admission.is_admitted:
            saved += past.error_type is not None
            lost += past.error_type is None
            saved_micros += past.micros if past.error_type is not None else 0
            continue
        failure = None if past.error_type in policy.excluded else past.error_type
        generation = admission.generation
        recent = [*recent[1 - WINDOW_CALLS :], Outcome(past.ended_at, generation, failure is not None, past.micros)]
        counts = past.error_type is None or failure is not None
        state_after = after_outcome(state, call, generation=generation, is_success=failure is None if counts else None)
        if counts:
            moved = judge(state, policy, generation=generation, failure=failure, now=past.ended_at, window=recent)
            opened.extend(event.at for event in moved if isinstance(event, CircuitOpened))
            for event in moved:
                state_after = after_transition(state_after, event)
        state = state_after
    return Simulation(calls, tuple(opened), saved + lost, saved, lost, saved_micros)
