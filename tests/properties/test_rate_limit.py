"""The rate limit beside a bucket of tokens as a float, which is filled and emptied by hand."""

import itertools
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import RateLimit
from perdure.actors.kernel.messages import Moment
from perdure.actors.tools.breaker import Admission
from perdure.actors.tools.limits import KEYS_KEPT, tokens_left
from perdure.actors.tools.tool import Admit, Guard, ToolBehavior, ToolState
from perdure.store.codec import Event
from perdure.store.records import StreamId

SECOND = 1_000_000

limits = st.builds(
    RateLimit,
    calls=st.integers(1, 8),
    per=st.sampled_from([timedelta(seconds=1), timedelta(seconds=8), timedelta(milliseconds=1)]),
    burst=st.none() | st.integers(1, 12),
    max_wait=st.sampled_from([timedelta(0), timedelta(seconds=1), timedelta(days=1)]),
)
asks = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3 * SECOND) | st.just(0)), max_size=40)


class FloatBucket:
    """Tokens that drip in; a call may take one that is not there yet, and waits for it."""

    def __init__(self, limit: RateLimit, now: int) -> None:
        self.capacity = float(limit.burst or limit.calls)
        self.tokens, self.at, self.spacing = self.capacity, now, limit.spacing
        self.max_wait = limit.max_wait.total_seconds() * SECOND

    def look(self, now: int) -> float:
        self.tokens = min(self.capacity, self.tokens + (now - self.at) / self.spacing)
        self.at = now
        return self.tokens

    def take(self, now: int) -> float | None:
        """Return how long the call waits, or None when it may not."""
        wait = max(0.0, (1 - self.look(now)) * self.spacing)
        if wait > self.max_wait + 0.5:
            return None
        self.tokens -= 1
        return wait


def admitted(limit: RateLimit, schedule: list[tuple[str, int]]) -> list[tuple[str, int, Admission, ToolState]]:
    """Ask the tool's actor for each call of the schedule; bring the state back from its events at each."""
    behavior = ToolBehavior({"t": Guard(rate=limit)})
    events, now = list[Event](), 1_000 * SECOND
    seen: list[tuple[str, int, Admission, ToolState]] = []
    for number, (key, pause) in enumerate(schedule):
        now += pause
        state = behavior.initial(StreamId("tool/t"))
        for event in events:
            state = behavior.evolve(state, event)
        decision = behavior.decide(state, Admit(f"c{number}", 1, key=key), Moment(now, now))
        events.extend(decision.events)
        seen.append((key, now, decision.reply, state))
    return seen


@given(limit=limits, schedule=asks)
def test_calls_wait_and_are_refused_as_by_a_bucket_of_tokens(limit: RateLimit, schedule: list[tuple[str, int]]) -> None:
    buckets = {key: FloatBucket(limit, 0) for key in "ab"}

    for key, now, admission, state in admitted(limit, schedule):
        left = tokens_left(state.buckets.get(key, 0), limit, now)
        assert abs(left - max(0.0, buckets[key].look(now))) < 0.01

        wait = buckets[key].take(now)

        assert admission.is_admitted == (wait is not None), (admission, wait)
        if wait is not None:
            assert abs(admission.delay - wait) <= 1


@given(limit=limits, schedule=asks)
@example(RateLimit(calls=2, burst=1, max_wait=timedelta(days=1)), [("a", 0)] * 5)
def test_in_no_span_of_time_more_calls_begin_than_the_limit_gives(
    limit: RateLimit, schedule: list[tuple[str, int]]
) -> None:
    begins: dict[str, list[int]] = {"a": [], "b": []}
    for key, now, admission, _ in admitted(limit, schedule):
        if admission.is_admitted:
            begins[key].append(now + admission.delay)

    for times in begins.values():
        assert times == sorted(times)  # first come, first served
        for first, begin in enumerate(times):
            for last in range(first, len(times)):
                assert last - first + 1 <= (limit.burst or limit.calls) + (times[last] - begin) / limit.spacing


@given(limit=limits, schedule=asks)
def test_a_refused_call_takes_no_token(limit: RateLimit, schedule: list[tuple[str, int]]) -> None:
    asked = admitted(limit, schedule)

    for (_, _, admission, before), (_, _, _, after) in itertools.pairwise(asked):
        assert (before.buckets == after.buckets) == (not admission.is_admitted)


@settings(max_examples=20)
@given(keys=st.integers(KEYS_KEPT - 1, KEYS_KEPT + 3))
def test_a_thousand_keys_are_kept_and_the_emptiest_buckets_last(keys: int) -> None:
    limit = RateLimit(calls=1, per=timedelta(days=1))
    behavior = ToolBehavior({"t": Guard(rate=limit)})
    state = behavior.initial(StreamId("tool/t"))

    for number in range(keys):
        decision = behavior.decide(state, Admit(f"c{number}", 1, key=f"k{number}"), Moment(number + 1, number + 1))
        for event in decision.events:
            state = behavior.evolve(state, event)

    assert set(state.buckets) == {f"k{number}" for number in range(max(0, keys - KEYS_KEPT), keys)}
