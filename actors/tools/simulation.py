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
    Transition,
    admit,
    after_outcome,
    after_transition,
    judge,
)
from perdure.store.expected import checked_function


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


@checked_function
def simulate(policy: BreakerPolicy, outcomes: Iterable[PastCall]) -> Simulation:
    """Return what *policy* would have made of *outcomes*, given in the order of their ends.

    Calls that ran beside one another are replayed beside one another: one that had begun when the circuit opened is
    not refused, and its outcome moves nothing.
    """
    calls = list(outcomes)
    replay = _Replay(policy)
    # Where times are equal the order of the ends decides, and each call begins before it ends.
    moments = [(past.ended_at - past.micros, number, False) for number, past in enumerate(calls)]
    moments += [(past.ended_at, number, True) for number, past in enumerate(calls)]
    for _, number, is_end in sorted(moments):
        replay.end(number, calls[number]) if is_end else replay.begin(number, calls[number])
    refused = [calls[number] for number in replay.refused]
    saved = [past for past in refused if past.error_type is not None]
    return Simulation(
        calls=len(calls),
        opened_at=tuple(replay.opened_at),
        refused=len(refused),
        saved=len(saved),
        lost=len(refused) - len(saved),
        saved_micros=sum(past.micros for past in saved),
    )


class _Replay:
    """The breaker of another policy, shown calls of the past."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.opened_at: list[int] = []
        self.refused: list[int] = []
        self._state = Breaker()
        self._recent: list[Outcome] = []
        self._generations: dict[int, int] = {}

    def begin(self, number: int, past: PastCall) -> None:
        admission, moved = admit(self._state, self.policy, str(number), 0, past.ended_at - past.micros)
        if admission.is_admitted:
            self._generations[number] = admission.generation
        else:
            self.refused.append(number)
        self._move(moved)

    def end(self, number: int, past: PastCall) -> None:
        generation = self._generations.pop(number, None)
        if generation is None:
            return
        state, now, failure = self._state, past.ended_at, past.error_type
        if failure in self.policy.excluded:
            self._state = after_outcome(state, str(number), generation=generation, is_success=None)
            return
        outcome = Outcome(now, generation, failure is not None, past.micros)
        self._recent = [*self._recent[1 - WINDOW_CALLS :], outcome]
        moved = judge(state, self.policy, generation=generation, failure=failure, now=now, window=self._recent)
        self._state = after_outcome(state, str(number), generation=generation, is_success=failure is None)
        self._move(moved)

    def _move(self, moved: Iterable[Transition]) -> None:
        for event in moved:
            self._state = after_transition(self._state, event)
            if isinstance(event, CircuitOpened):
                self.opened_at.append(event.at)
