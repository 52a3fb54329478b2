"""The circuit breaker beside a naive model and beside purgatory, through any order of calls, crashes and clock jumps.

Purgatory differs by design, and only so: it lets any number of probes through, takes the result of a call from before a
transition for one of after it, and knows neither rates nor operators. Every divergence is one of these, or an error.
"""

import random
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from perdure import BreakerPolicy, PastCall, simulate
from perdure.actors.tools.breaker import Command
from tests.support.breakers import SECOND, NapkinBreaker, NapkinWindow, Rig, any_policy, play_at_random

SCHEDULES = 10_000
STEPS = 30

times = st.sampled_from([0, 1, SECOND, 5 * SECOND, 5 * SECOND + 1, 3600 * SECOND])
rates = st.sampled_from([None, 0.25, 0.5, 1.0])


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens, the breaker stands where the napkin stands, and purgatory where it should agree."""

    rig: Rig

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(
        threshold=st.integers(1, 3), probes=st.integers(1, 3), needed=st.integers(1, 3), failures=rates, slow=rates
    )
    def build(self, threshold: int, probes: int, needed: int, failures: float | None, slow: float | None) -> None:
        policy = BreakerPolicy(
            threshold,
            timedelta(seconds=5),
            probes,
            needed,
            window_calls=4,
            window_time=timedelta(seconds=60),
            minimum_calls=2,
            failure_rate=failures,
            slow_call=None if slow is None else timedelta(seconds=1),
            slow_call_rate=slow,
            excluded=("NotFoundError",),
        )
        self.rig = Rig(policy, self.patch)

    @rule()
    def begin(self) -> None:
        self.rig.begin()

    @precondition(lambda self: self.rig.flights)
    @rule(data=st.data(), how=st.sampled_from(["ok", "fail", "fail", "excluded", "cancel"]))
    def end(self, data: st.DataObject, how: str) -> None:
        self.rig.end(data.draw(st.sampled_from(sorted(self.rig.flights))), how)

    @rule(micros=times)
    def pass_time(self, micros: int) -> None:
        self.rig.pass_time(micros)

    @rule(micros=times, sign=st.sampled_from([-1, 1]))
    def jump(self, micros: int, sign: int) -> None:
        self.rig.jump(sign * micros)

    @rule(to=st.sampled_from(["open", "closed", "disabled", "auto"]))
    def force(self, to: Command) -> None:
        self.rig.force(to)

    @rule()
    def crash(self) -> None:
        self.rig.crash()


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestBreaker = BreakerMachine.TestCase


def test_ten_thousand_schedules_diverge_nowhere_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, together = Counter[str](), 0

    for seed in range(SCHEDULES):
        draw = random.Random(seed)
        rig = Rig(any_policy(draw), monkeypatch)
        try:
            play_at_random(rig, draw, STEPS)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed} of {rig.policy}") from error
        explained.update(rig.explained)
        together += rig.purgatory is not None

    assert set(explained) == {
        "purgatory closes after one success, and knows no rates",
        "purgatory takes a result of before a transition for one of after it",
        "purgatory lets any number of probes through",
        "purgatory obeys no operator",
    }
    assert together > SCHEDULES // 5


# Simulation


def naive_replay(policy: BreakerPolicy, calls: list[PastCall]) -> tuple[list[int], int, int]:
    """Return when the napkin opens, how many calls it refuses, and how many of those had failed."""
    napkin = NapkinBreaker(
        policy.failure_threshold,
        round(policy.reset_timeout.total_seconds() * SECOND),
        policy.probes,
        policy.successes_to_close,
        lambda: NapkinWindow(policy),
    )
    epochs: dict[int, int | None] = {}
    opened: list[int] = []
    for now in sorted({call.ended_at for call in calls} | {call.ended_at - call.micros for call in calls}):
        for number, call in enumerate(calls):
            if call.ended_at - call.micros == now:
                epochs[number] = napkin.ask(str(number), now)
            if call.ended_at == now and (epoch := epochs[number]) is not None:
                before = napkin.state
                outcome = None if call.error_type in policy.excluded else call.error_type is None
                napkin.tell(str(number), epoch, outcome, now, call.micros)
                opened += [now] if napkin.state == "open" != before else []
    refused = [calls[number] for number, epoch in epochs.items() if epoch is None]
    return opened, len(refused), sum(call.error_type is not None for call in refused)


def past_calls(draw: random.Random) -> list[PastCall]:
    """Draw calls that ran beside one another, in the order of their ends."""
    now, calls = 1_000 * SECOND, list[PastCall]()
    for _ in range(draw.randint(0, 40)):
        now += draw.choice([0, 1, 2, 20]) * SECOND
        error = draw.choice([None, None, "TimeoutError", "TimeoutError", "LookupError"])
        calls.append(PastCall(now, draw.choice([0, 1, 3, 10]) * SECOND, error))
    return calls


def test_a_simulation_says_what_a_naive_replay_says() -> None:
    refusals = 0

    for seed in range(1_000):
        draw = random.Random(seed)
        policy, calls = any_policy(draw), past_calls(draw)

        answer = simulate(policy, calls)

        found = (list(answer.opened_at), answer.refused, answer.saved)
        assert found == naive_replay(policy, calls), f"seed {seed}"
        assert (answer.calls, answer.lost) == (len(calls), answer.refused - answer.saved)
        refusals += answer.refused

    assert refusals > 1_000


def test_a_call_that_had_begun_when_the_circuit_opened_would_not_have_been_refused() -> None:
    calls = [PastCall(10 * SECOND, SECOND, "TimeoutError"), PastCall(11 * SECOND, 5 * SECOND, "TimeoutError")]

    answer = simulate(BreakerPolicy(failure_threshold=1), calls)

    assert (answer.refused, answer.opened_at) == (0, (10 * SECOND,))


def test_a_simulation_counts_what_would_have_been_saved_and_what_lost() -> None:
    policy = BreakerPolicy(failure_threshold=2, reset_timeout=timedelta(seconds=60))
    ends = [(10, "E"), (20, "E"), (30, "E"), (40, None), (50, "E"), (90, None), (95, None)]
    calls = [PastCall(at * SECOND, 2 * SECOND, error) for at, error in ends]

    answer = simulate(policy, calls)

    assert (answer.calls, answer.opened_at) == (7, (20 * SECOND,))
    assert (answer.refused, answer.saved, answer.lost, answer.saved_micros) == (3, 2, 1, 4 * SECOND)


def test_excluded_errors_do_not_dilute_a_rate() -> None:
    policy = BreakerPolicy(failure_threshold=50, failure_rate=1.0, minimum_calls=2, excluded=("NotFound",))
    errors = ["NotFound", "E", "NotFound", "NotFound", "E", "E"]
    calls = [PastCall(at * SECOND, 0, error) for at, error in enumerate(errors)]

    answer = simulate(policy, calls)

    assert (answer.opened_at, answer.refused) == ((4 * SECOND,), 1)
