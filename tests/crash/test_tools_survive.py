"""SIGKILL with a circuit open, a backoff half waited and a rate limit's bucket half empty: all stand as they stood.

The second life runs on a clock that is moved by hand and starts at the moment of the kill, so the times are exact.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import Query, Runtime
from perdure.store.reader import LogReader
from perdure.testing import TestClock
from tests.crash.nursery import ROOT
from tests.crash.oracle import data_of
from tests.crash.survivor import BACKOFF, LIMIT, RESET_SECONDS, Shop
from tests.support.runs import play

MICROSECOND = timedelta(microseconds=1)


def micros(duration: timedelta) -> int:
    return duration // MICROSECOND


class Aftermath:
    """What the killed process left, and a way to go on from there."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.crash.survivor", str(directory)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.kill()
        assert child.returncode == -9
        self.directory = directory
        with LogReader.open(directory / "log.db") as log:
            self.events = log.read(Query())
        self.shop = Shop(directory)
        self.killed_at = self.events[-1].at

    def fact(self, kind: str) -> dict[str, Any]:
        return [data_of(event) for event in self.events if event.type == kind][-1]

    def go_on(self, scenario: Callable[[Runtime, TestClock], Coroutine[Any, Any, None]]) -> None:
        async def life() -> None:
            clock = TestClock(datetime.fromtimestamp(0, UTC) + self.killed_at * MICROSECOND)
            async with self.shop.runtime(self.directory, clock=clock) as rt:
                await clock.settle()
                await scenario(rt, clock)

        play(life)

    def executed(self) -> Counter[str]:
        return Counter(line.tool for line in self.shop.effects.all())


@pytest.fixture
def left(tmp_path: Path) -> Aftermath:
    return Aftermath(tmp_path)


@pytest.mark.crash
@pytest.mark.row("A0-23")
def test_a_circuit_is_open_after_a_kill_until_its_old_deadline(left: Aftermath) -> None:
    opened_at = left.fact("circuit-opened")["at"]

    async def scenario(rt: Runtime, clock: TestClock) -> None:
        figures = (await rt.statistics()).tools["broken"]
        assert (figures.state, figures.failures, figures.calls, figures.rejected) == ("open", 3, 3, 1)
        assert figures.opened_at == opened_at / 1e6
        assert "circuit_breaker" in await rt.dispatch("broken")

        await clock.advance((opened_at + RESET_SECONDS * 1_000_000 - left.killed_at) * MICROSECOND)
        assert "circuit_breaker" in await rt.dispatch("broken")
        assert left.executed()["broken"] == 3

        await clock.advance(MICROSECOND)
        assert "circuit_breaker" not in await rt.dispatch("broken")
        assert left.executed()["broken"] == 4

    left.go_on(scenario)


@pytest.mark.crash
def test_a_backoff_goes_on_after_a_kill_and_ends_when_it_was_due(left: Aftermath) -> None:
    failed = left.fact("attempt-failed")

    async def scenario(rt: Runtime, clock: TestClock) -> None:
        assert left.executed()["flaky"] == 1

        await clock.advance((failed["retry_at"] - left.killed_at - 1) * MICROSECOND)
        assert left.executed()["flaky"] == 1

        await clock.advance(MICROSECOND)
        assert left.executed()["flaky"] == 2
        assert await rt.run("patient", left.shop.patient).result() == 2

    assert 0 < failed["retry_at"] - left.killed_at <= micros(BACKOFF)
    left.go_on(scenario)


@pytest.mark.crash
def test_a_bucket_is_half_empty_after_a_kill_and_fills_as_if_nothing_had_happened(left: Aftermath) -> None:
    full_at = left.fact("token-taken")["full_at"]

    async def scenario(rt: Runtime, clock: TestClock) -> None:
        told = [await rt.dispatch("limited") for _ in range(3)]
        assert ["rate_limited" in one for one in told] == [False, False, True]
        assert left.executed()["limited"] == 4

        # The fifth token is there when it would have been without the kill: a spacing before the first two are back.
        due = full_at + 2 * LIMIT.spacing - LIMIT.tolerance
        await clock.advance((due - left.killed_at - 1) * MICROSECOND)
        assert "rate_limited" in await rt.dispatch("limited")
        await clock.advance(MICROSECOND)
        assert "rate_limited" not in await rt.dispatch("limited")

    left.go_on(scenario)
