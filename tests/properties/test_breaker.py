"""The circuit breaker beside two oracles: purgatory, an independent library, and a naive model over the history.

purgatory differs by design in four points, where it is not asked:

* it knows no generations: an outcome of a call that was let through before the circuit changed moves it. Here such an
  outcome counts in the statistics only. So purgatory is told of outcomes of the present generation only.
* while half open it lets every call through; here one probe at a time. So it is not asked while a probe is in flight.
* it needs one success to close, and knows no given-up calls: the comparison uses `successes_to_close=1`, and calls that
  were given up are nothing it hears of.
* it reads the wall clock: it is given the steady one. At exactly the reset timeout both still refuse (strictly more).
"""

from datetime import timedelta
from typing import Any
from unittest import mock

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from purgatory.domain import model as purgatory

from perdure.actors.tools.breaker import (
    Admission,
    Breaker,
    BreakerPolicy,
    Circuit,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    admit,
    after_outcome,
    after_transition,
    judge,
)

SECOND = 1_000_000
NAMES = {"closed": Circuit.CLOSED, "opened": Circuit.OPEN, "half-opened": Circuit.HALF_OPEN}


class Time:
    """What purgatory takes for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * SECOND

    def time(self) -> float:
        return self.now / SECOND


class Guarded:
    """The breaker as a tool's actor uses it."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = Breaker()
        self.transitions: list[Any] = []

    def ask(self, call: str, life: int, now: int) -> Admission:
        admission, moved = admit(self.state, self.policy, call, life, now)
        self._move(moved)
        return admission

    def end(self, call: str, generation: int, failure: str | None, now: int) -> None:
        moved = judge(self.state, self.policy, generation=generation, failure=failure, now=now)
        self.state = after_outcome(self.state, call, generation=generation, is_success=failure is None)
        self._move(moved)

    def give_up(self, call: str, generation: int) -> None:
        self.state = after_outcome(self.state, call, generation=generation, is_success=None)

    def _move(self, moved: list[Any]) -> None:
        for event in moved:
            self.transitions.append(event)
            self.state = after_transition(self.state, event)


class AsPurgatoryDoes(RuleBasedStateMachine):
    """Many calls in flight, outcomes in any order, time in steps around the reset timeout."""

    calls: Bundle[tuple[str, int]] = Bundle("calls")

    @initialize(threshold=st.integers(1, 4), seconds=st.integers(0, 5))
    def begin(self, threshold: int, seconds: int) -> None:
        self.time = Time()
        self.patch = mock.patch.object(purgatory, "time", self.time)
        self.patch.start()
        self.guarded = Guarded(BreakerPolicy(threshold, timedelta(seconds=seconds)))
        self.oracle = purgatory.Context("tool", threshold, seconds)
        self.number = 0

    @rule(target=calls)
    def call(self) -> Any:
        self.number += 1
        call = f"c{self.number}"
        has_probe = bool(self.guarded.state.probes)
        admission = self.guarded.ask(call, 1, self.time.now)
        if not has_probe:
            assert admission.is_admitted == self._oracle_admits()
        return (call, admission.generation) if admission.is_admitted else (call, -1)

    def _oracle_admits(self) -> bool:
        try:
            self.oracle.handle_new_request()
        except purgatory.OpenedState:
            return False
        return True

    @rule(one=consumes(calls), fails=st.booleans())
    def outcome(self, one: tuple[str, int], fails: bool) -> None:
        call, generation = one
        if generation < 0:
            return
        is_present = generation == self.guarded.state.generation
        self.guarded.end(call, generation, "an error" if fails else None, self.time.now)
        if is_present and fails:
            self.oracle.handle_exception(ValueError())
        elif is_present:
            self.oracle.handle_end_request()

    @rule(one=consumes(calls))
    def give_up(self, one: tuple[str, int]) -> None:
        self.guarded.give_up(*one)

    @rule(micros=st.sampled_from([0, 1, SECOND - 1, SECOND, 3 * SECOND, 60 * SECOND]))
    def wait(self, micros: int) -> None:
        self.time.now += micros

    @rule()
    def wait_until_the_very_end(self) -> None:
        if self.guarded.state.circuit is Circuit.OPEN:
            end = self.guarded.state.opened_at + int(self.guarded.policy.reset_timeout.total_seconds()) * SECOND
            self.time.now = max(self.time.now, end)

    @invariant()
    def both_stand_alike(self) -> None:
        assert self.guarded.state.circuit is NAMES[self.oracle.state]
        if self.guarded.state.circuit is Circuit.CLOSED:
            assert self.guarded.state.failures == self.oracle.failure_count

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.stop()


class Told(msgspec.Struct):
    """A call as the naive model remembers it."""

    call: str
    generation: int
    life: int
    outcome: str = "in flight"


class AsTheRulesSay(RuleBasedStateMachine):
    """Everything that the breaker offers, beside the rules written down once more over the whole history."""

    calls: Bundle[Told] = Bundle("calls")

    @initialize(
        threshold=st.integers(1, 3), seconds=st.integers(0, 3), probes=st.integers(1, 3), closing=st.integers(1, 3)
    )
    def begin(self, threshold: int, seconds: int, probes: int, closing: int) -> None:
        self.now = 1_700_000_000 * SECOND
        self.life = 1
        self.policy = BreakerPolicy(threshold, timedelta(seconds=seconds), probes, closing)
        self.guarded = Guarded(self.policy)
        self.generation = 0
        self.circuit = Circuit.CLOSED
        self.opened_at = 0
        self.since: list[Told] = []  # calls of this generation, in the order of their outcomes
        self.told: list[Told] = []

    def _move(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.generation += 1
        self.since = []

    @rule(target=calls)
    def call(self) -> Told:
        call = f"c{len(self.told)}"
        admission = self.guarded.ask(call, self.life, self.now)
        assert admission.is_admitted == self._admits()
        told = Told(call, self.generation if admission.is_admitted else -1, self.life)
        self.told.append(told)
        assert admission.generation == self.generation
        return told

    def _admits(self) -> bool:
        if self.circuit is Circuit.OPEN:
            if self.now - self.opened_at <= self.policy.reset_timeout // timedelta(microseconds=1):
                return False
            self._move(Circuit.HALF_OPEN)
        if self.circuit is Circuit.CLOSED:
            return True
        flying = [
            t for t in self.told if t.generation == self.generation and t.outcome == "in flight" and t.life == self.life
        ]
        succeeded = sum(t.outcome == "success" for t in self.since)
        return len(flying) < min(self.policy.probes, self.policy.successes_to_close - succeeded)

    @rule(told=consumes(calls), outcome=st.sampled_from(["success", "failure", "given up"]))
    def end(self, told: Told, outcome: str) -> None:
        if told.generation < 0 or told.life != self.life:
            return  # it was refused, or died with its life
        told.outcome = outcome
        if outcome == "given up":
            self.guarded.give_up(told.call, told.generation)
            return
        self.guarded.end(told.call, told.generation, "an error" if outcome == "failure" else None, self.now)
        if told.generation == self.generation:
            self._judge(told)

    def _judge(self, told: Told) -> None:
        self.since.append(told)
        in_a_row = 0
        for one in reversed(self.since):
            if one.outcome != "failure":
                break
            in_a_row += 1
        is_too_often = self.circuit is Circuit.CLOSED and in_a_row >= self.policy.failure_threshold
        if is_too_often or (self.circuit is Circuit.HALF_OPEN and told.outcome == "failure"):
            self._move(Circuit.OPEN)
            self.opened_at = self.now
        elif self.circuit is Circuit.HALF_OPEN and len(self.since) >= self.policy.successes_to_close:
            self._move(Circuit.CLOSED)

    @rule(micros=st.sampled_from([0, 1, SECOND, 2 * SECOND, 3 * SECOND, 60 * SECOND]))
    def wait(self, micros: int) -> None:
        self.now += micros

    @rule()
    def crash(self) -> None:
        self.life += 1
        self.guarded.state = msgspec.json.decode(msgspec.json.encode(self.guarded.state), type=Breaker)

    @invariant()
    def stands_as_the_rules_say(self) -> None:
        state = self.guarded.state
        assert (state.circuit, state.generation) == (self.circuit, self.generation)
        if self.circuit is Circuit.OPEN:
            assert state.opened_at == self.opened_at

    @invariant()
    def every_transition_starts_the_next_generation(self) -> None:
        moves = [
            t for t in self.guarded.transitions if isinstance(t, (CircuitOpened, CircuitHalfOpened, CircuitClosed))
        ]
        assert [move.generation for move in moves] == list(range(1, len(moves) + 1))


TestBesidePurgatory = AsPurgatoryDoes.TestCase
TestBesidePurgatory.settings = settings(max_examples=150, stateful_step_count=60)
TestBesideTheRules = AsTheRulesSay.TestCase
TestBesideTheRules.settings = settings(max_examples=400, stateful_step_count=60)
