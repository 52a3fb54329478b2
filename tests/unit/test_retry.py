"""When a failed attempt is tried again: pure policy."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Retry, UsageError
from perdure.actors.tools.retry import allows, next_due

SECOND = 1_000_000


def due(policy: Retry, attempt: int, *, first_at: int = 0, now: int = 0, chance: float = 0.5) -> int | None:
    return next_due(policy, attempt=attempt, first_at=first_at, now=now, chance=chance)


def test_one_attempt_is_never_retried() -> None:
    assert due(Retry(), 1) is None


def test_the_backoff_doubles_up_to_its_cap() -> None:
    policy = Retry(attempts=9, backoff=timedelta(seconds=2), cap=timedelta(seconds=10), jitter=False)

    assert [due(policy, attempt) for attempt in range(1, 6)] == [
        2 * SECOND,
        4 * SECOND,
        8 * SECOND,
        10 * SECOND,
        10 * SECOND,
    ]
    assert due(policy, 9) is None


def test_jitter_waits_a_part_of_the_backoff() -> None:
    policy = Retry(attempts=3, backoff=timedelta(seconds=10))

    assert due(policy, 1, chance=0.0) == 0
    assert due(policy, 1, chance=0.25) == 2.5 * SECOND


def test_no_attempt_begins_after_the_total() -> None:
    policy = Retry(attempts=9, backoff=timedelta(seconds=10), factor=1, jitter=False, total=timedelta(seconds=30))

    assert due(policy, 1, now=20 * SECOND) == 30 * SECOND
    assert due(policy, 1, now=20 * SECOND + 1) is None
    assert due(policy, 1, first_at=5, now=20 * SECOND + 5) == 30 * SECOND + 5


def test_a_thousand_attempts_and_more_are_no_trouble() -> None:
    policy = Retry(attempts=10_000, backoff=timedelta(seconds=1), cap=timedelta(seconds=60), jitter=False)

    assert due(policy, 5_000) == 60 * SECOND
    assert due(Retry(attempts=10_000, backoff=timedelta(0), jitter=False), 5_000) == 0


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (Retry(), True),
        (Retry(retry_on=("OSError",)), True),
        (Retry(retry_on=("ConnectionError",)), True),
        (Retry(retry_on=("ValueError",)), False),
        (Retry(retry_on=()), False),
        (Retry(never_on=("ConnectionError",)), False),
        (Retry(never_on=("ValueError",)), True),
        (Retry(retry_on=("OSError",), never_on=("ConnectionError",)), False),
    ],
)
def test_types_are_matched_with_their_bases(policy: Retry, allowed: bool) -> None:
    assert allows(policy, ("ConnectionResetError", "ConnectionError", "OSError")) is allowed


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"backoff": timedelta(-1)}, {"cap": timedelta(-1)}, {"factor": 0.5}], ids=str
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Retry(**options)  # type: ignore[arg-type] # on purpose


@given(
    attempts=st.integers(1, 50),
    attempt=st.integers(1, 60),
    backoff=st.timedeltas(timedelta(0), timedelta(days=1)),
    cap=st.timedeltas(timedelta(0), timedelta(days=1)),
    factor=st.floats(1, 100),
    now=st.integers(0, 2**50),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_due_time_is_never_before_now_nor_beyond_the_cap(
    attempts: int, attempt: int, backoff: timedelta, cap: timedelta, factor: float, now: int, chance: float
) -> None:
    policy = Retry(attempts=attempts, backoff=backoff, cap=cap, factor=factor)

    found = due(policy, attempt, now=now, chance=chance)

    assert (found is None) == (attempt >= attempts)
    assert found is None or now <= found <= now + cap // timedelta(microseconds=1)
