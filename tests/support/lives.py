"""Random workflows lived through: with people who answer, operators who intervene, and a process that dies anywhere.

Not what the workflows do (`programs.py`) nor what they do it to (`worlds.py`). The invariant: whoever acts does so at
times of their own, once, whether or not the process died meanwhile; so a life with crashes is to end as one without.
"""

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeAlias

import msgspec

from perdure import (
    ControlRefusedError,
    NotInDoubtError,
    Query,
    QuestionNotOpenError,
    Recorded,
    RunClosedError,
    Runtime,
    Settings,
    WrongAnswerError,
)
from perdure.store.errors import LogWriteError
from perdure.store.protocols import EventLog, Ticket
from perdure.store.records import Unit
from perdure.testing import MemoryDisk, TestClock
from tests.support.programs import Program, interpret, micros
from tests.support.runs import Box, data, disk_until
from tests.support.worlds import Job, world

SECOND = 1_000_000
BEGIN = TestClock().moment().now
ROUND = 11
"""Seconds between two things that people do."""
ROUNDS = 600
CLOSING = {"run-completed", "run-failed", "run-cancelled", "run-continued"}
ENDING = {
    "step-completed", "step-failed", "step-cancelled", "timer-fired", "signal-taken", "signal-expired",
    "signal-wait-withdrawn", "question-answered", "question-expired", "question-withdrawn", "call-approved",
    "call-rejected", "event-taken", "event-expired", "event-wait-withdrawn", "event-sent", "child-ended", "race-won",
    "timeout-passed", "branches-failed", "saga-failed", "saga-compensated",
}  # fmt: skip
"""What ends something, and is in the log at the same time whether or not the process died."""

Action: TypeAlias = Callable[[], Awaitable[object]]


class Script(msgspec.Struct, frozen=True):
    """What an operator does with the first run, in seconds from its start."""

    cancel: int | None = None
    deadline: int | None = None
    pauses: tuple[tuple[int, int], ...] = ()
    """When it is paused, and for how long."""


class Ended(msgspec.Struct, frozen=True):
    """What a life came to."""

    outcomes: dict[str, tuple[str, str, str, str]]
    effects: list[tuple[int, str, str]]
    ends: Counter[tuple[str, str, str, int]]
    log: list[Recorded]
    disk: "MarkedDisk"
    jobs: list[Job]


class MarkedDisk(MemoryDisk):
    """A disk that knows where the units end: nothing of one is on a disk, or all of it."""

    def __init__(self, copied: MemoryDisk | None = None) -> None:
        super().__init__()
        if copied is not None:
            self._storage = copied._storage
        self.borders = set[int]()
        self.position = len(self._storage.events)

    async def open(self, on_failure: Callable[[LogWriteError], None]) -> EventLog:
        """See `MemoryDisk.open`."""
        log = await super().open(on_failure)
        append = log.append

        def marked(unit: Unit, *, is_refusable: bool = True) -> Ticket:
            ticket = append(unit, is_refusable=is_refusable)
            self.position = log.position
            self.borders.add(log.position)
            return ticket

        log.append = marked  # type: ignore[method-assign]
        return log


def check(log: list[Recorded]) -> None:
    """Check what holds for every log, whatever happened: what begins ends, once, and no run is blocked."""
    begun: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for row in log:
        assert row.type != "run-blocked", row.data
        step = data(row).get("step")
        if row.type in {"step-started", "timer-set", "signal-awaited", "event-awaited", "question-asked"}:
            begun[row.stream, step] += 1
        elif row.type in {"step-completed", "step-failed", "step-cancelled"}:
            ended[row.stream, step] += 1
    assert max(begun.values(), default=1) == 1, "begun twice"
    assert max(ended.values(), default=1) == 1, "ended twice"
    steps = {(row.stream, data(row)["step"]) for row in log if row.type == "step-started"}
    assert ended.keys() == steps
    taken = Counter((row.stream, data(row)["signal"]) for row in log if row.type == "signal-taken")
    assert max(taken.values(), default=1) == 1, "a signal was taken twice"


async def whole_log(rt: Runtime) -> list[Recorded]:
    return await rt.read(Query(limit=1_000_000))


class Life:
    """One life of a process in which the workflow runs, from its start or from a crash to the end of all runs."""

    def __init__(self, rt: Runtime, clock: TestClock, script: Script, *, is_exact: bool) -> None:
        self._rt = rt
        self._clock = clock
        self._script = script
        self._is_exact = is_exact

    async def to_its_end(self) -> list[Recorded]:
        """Let time pass until all runs have ended; return the log."""
        for at, action in self._agenda():
            await self._clock.advance(timedelta(microseconds=at - self._clock.moment().now))
            log = await whole_log(self._rt)
            started = {row.stream for row in log if row.type == "run-started"}
            if started <= {row.stream for row in log if row.type in CLOSING}:
                return log
            if self._is_exact and any(row.at == at for row in log):
                continue  # that was done before the process died
            with contextlib.suppress(
                RunClosedError, ControlRefusedError, QuestionNotOpenError, WrongAnswerError, NotInDoubtError
            ):
                await action()
        views = [await self._rt.run(stream.removeprefix("run/")).status() for stream in started]
        raise AssertionError(f"no end of {[view for view in views if not view.is_closed]}")

    def _agenda(self) -> Iterator[tuple[int, Action]]:
        run = self._rt.run("r")
        own: list[tuple[int, Action]] = []
        if self._script.cancel is not None:
            own.append((self._script.cancel * SECOND + 3, lambda: run.cancel("enough")))
        for at, length in self._script.pauses:
            own.append((at * SECOND + 5, run.pause))
            own.append(((at + length) * SECOND + 7, run.resume))
        rounds: list[tuple[int, Action]] = [
            (k * ROUND * SECOND + micros(f"round {k}"), lambda k=k: self._act(k)) for k in range(1, ROUNDS)
        ]
        for after, action in sorted(own + rounds, key=lambda one: one[0]):
            if BEGIN + after >= self._clock.moment().now:
                yield BEGIN + after, action

    async def _act(self, k: int) -> None:
        """Do what somebody does in round *k*: one thing, for two could come to something in either order."""
        open_runs = sorted({run for run in await self._runs() if not (await self._rt.run(run).status()).is_closed})
        if not open_runs:
            return
        if k % 4 == 1:
            await self._rt.run(open_runs[k // 4 % len(open_runs)]).signal("go", f"s{k}", id=f"s{k}")
        elif k % 4 == 2:  # noqa: PLR2004 - every other of the rest
            await self._rt.publish("news", {"by": -k}, id=f"e{k}")
        elif not await self._settle(open_runs, k):
            await self._answer(k)

    async def _runs(self) -> list[str]:
        rows = await self._rt.read(Query(types=("run-started",), limit=1_000_000))
        return [row.stream.removeprefix("run/") for row in rows]

    async def _settle(self, runs: list[str], k: int) -> bool:
        for run in runs:
            for step in sorted((await self._rt.run(run).status()).in_doubt):
                match (micros(step) + k) % 3:
                    case 0:
                        await self._rt.run(run).settle_done(step, None if "undo" in step else k)
                    case 1:
                        await self._rt.run(run).settle_not_done(step)
                    case _:
                        await self._rt.run(run).settle_failed(step, "it cannot be")
                return True
        return False

    async def _answer(self, k: int) -> None:
        for question in sorted(await self._rt.questions(), key=lambda one: (one.run, one.id)):
            run, who = self._rt.run(question.run), f"p{k}"
            if not question.tool:
                await run.answer(question.id, k, who=who)
            elif k % 3:
                await run.approve(question.id, who=who)
            else:
                await run.reject(question.id, "no", who=who)
            return


async def live(
    program: Program,
    script: Script,
    settings: Settings,
    disk: MarkedDisk | None = None,
    *,
    at: int = BEGIN,
    jobs: list[Job] | None = None,
    is_exact: bool = True,
) -> Ended:
    """Live from the start, or from what a crash has left on *disk* at a time, with what had happened outside."""
    clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))
    kept = disk or MarkedDisk()
    world.begin(clock, jobs or (), lambda: kept.position)
    box = Box(kept, clock, workflows=[interpret], settings=settings)
    rt = await box.open()
    try:
        if disk is None:
            deadline = None if script.deadline is None else timedelta(seconds=script.deadline, microseconds=9)
            await rt.with_options(id="r", deadline=deadline).start(interpret, program)
        log = await Life(rt, clock, script, is_exact=is_exact).to_its_end()
        check(log)
        outcomes: dict[str, tuple[str, str, str, str]] = {}
        for stream in {row.stream for row in log if row.type == "run-started"}:
            view = await rt.run(stream.removeprefix("run/")).status()
            outcomes[view.run] = (view.status, view.result, view.error_type, view.error)
    finally:
        await box.close()
    ends = Counter((row.stream, row.type, str(data(row).get("step")), row.at) for row in log if row.type in ENDING)
    return Ended(outcomes, world.effects, ends, log, kept, list(world.jobs.values()))


def borders(ended: Ended, after: int = 0) -> list[int]:
    """The places of a log at which the process may have died, those of the runs' work."""
    first = next(row.position for row in ended.log if row.type == "run-started")
    last = max(row.position for row in ended.log if row.type in CLOSING)
    return [p for p in sorted(ended.disk.borders) if max(first, after) <= p < last]


async def crashed(
    before: Ended, position: int, program: Program, script: Script, settings: Settings, chance: Random
) -> Ended:
    """Live on after a crash that left what *before* has up to *position*; return how that ends.

    Of what was begun in the instant of the crash each may have reached the world, or not.
    """
    row, follows = before.log[position - 1], before.log[position]
    at = chance.choice([row.at, chance.randint(row.at, max(row.at, follows.at - 1))])
    jobs = [job for job in before.jobs if job.position <= position and (job.began < at or chance.random() < 0.5)]  # noqa: PLR2004 - either world
    done = {
        f"{row.stream.removeprefix('run/')}:{data(row)['step']}"
        for row in before.log[:position]
        if row.type == "step-completed"
    }
    ended = await live(
        program, script, settings, MarkedDisk(disk_until(before.disk, position)), at=at, jobs=jobs
    )
    again = done.intersection(world.calls)
    assert not again, f"{again} again after a crash at {position}"
    return ended


def compare(whole: Ended, after: Ended, where: str) -> None:
    """Check that a life came to the same as one without a crash."""
    assert after.outcomes == whole.outcomes, where
    assert after.effects == whole.effects, where
    assert sorted(after.ends.items()) == sorted(whole.ends.items()), where
