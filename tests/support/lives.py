"""Random workflows lived through: with people who answer, operators who intervene, and a process that dies anywhere.

Not what the workflows do (`programs.py`) nor what they do it to (`worlds.py`). The invariant: whoever acts does so at
times of their own, once, whether or not the process died meanwhile; so a life with crashes is to end as one without.
"""

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeAlias

import msgspec

from perdure import (
    ControlRefusedError,
    NotInDoubtError,
    Query,
    QuestionNotOpenError,
    Recorded,
    RunClosedError,
    RunHandle,
    Runtime,
    RunView,
    Settings,
    WrongAnswerError,
)
from perdure.store.errors import LogWriteError
from perdure.store.protocols import EventLog, Ticket
from perdure.store.records import Unit
from perdure.testing import MemoryDisk, TestClock
from tests.support.programs import Op, Program, everything, interpret, members, micros
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
        step = str(data(row).get("step"))
        if row.type in {"step-started", "timer-set", "signal-awaited", "event-awaited", "question-asked"}:
            begun[str(row.stream), step] += 1
        elif row.type in {"step-completed", "step-failed", "step-cancelled"}:
            ended[str(row.stream), step] += 1
    assert max(begun.values(), default=1) == 1, "begun twice"
    assert max(ended.values(), default=1) == 1, "ended twice"
    steps = {(row.stream, data(row)["step"]) for row in log if row.type == "step-started"}
    assert ended.keys() == steps
    taken = Counter((row.stream, data(row)["signal"]) for row in log if row.type == "signal-taken")
    assert max(taken.values(), default=1) == 1, "a signal was taken twice"


def check_sagas(program: Program, ended: Ended) -> None:
    """Check that of each saga everything that can be is undone, or nothing.

    Left out are those that passed a pivot, and compensations that a person may have given up.
    """
    undone = {int(effect.removeprefix("unbooked ")) for _, _, effect in ended.effects if effect.startswith("unb")}
    done = {
        f"{row.stream.removeprefix('run/')}:{data(row)['step']}" for row in ended.log if row.type == "step-completed"
    }
    booked = {
        int(effect.removeprefix("booked ")) for _, key, effect in ended.effects if effect[0] == "b" and key in done
    }

    def is_whole(saga: Op) -> bool:
        direct, inner = members(saga.parts)
        every = {op.n for op in direct} | {op.n for one in inner for op in everything((one,)) if op.kind == "book"}
        of_children = {op.n for op in everything((saga,)) if op.kind in {"child", "detach"} for op in everything((op,))}
        stuck = {op.n for op in everything((saga,)) if op.name == "stuck"}
        due = (every & booked) - of_children - stuck
        return due <= undone or (not undone & {op.n for op in direct} and all(is_whole(one) for one in inner))

    for saga in [op for op in everything(program) if op.kind == "saga"]:
        if not any(op.name == "pivot" for op in everything(program)):
            assert is_whole(saga), f"saga {saga.n}: booked {sorted(booked)}, undone {sorted(undone)}"


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
        started: set[str] = set()
        for at, action in self._agenda():
            await self._clock.advance(timedelta(microseconds=at - self._clock.moment().now))
            log = await whole_log(self._rt)
            started = {str(row.stream) for row in log if row.type == "run-started"}
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
        run: RunHandle[Any] = self._rt.run("r")
        own: list[tuple[int, Action]] = []
        if self._script.cancel is not None:
            own.append((self._script.cancel * SECOND + 3, lambda: run.cancel("enough")))
        for at, length in self._script.pauses:
            own.append((at * SECOND + 5, run.pause))
            own.append(((at + length) * SECOND + 7, run.resume))
        first = max(1, (self._clock.moment().now - BEGIN) // (ROUND * SECOND))
        rounds: list[tuple[int, Action]] = [
            (k * ROUND * SECOND + micros(f"round {k}"), partial(self._act, k)) for k in range(first, first + ROUNDS)
        ]
        now = self._clock.moment().now
        late = [] if self._is_exact else [(now, action) for after, action in own if BEGIN + after < now]
        yield from late  # an operator finds the process again and does what was to be done meanwhile
        for after, action in sorted(own + rounds, key=lambda one: one[0]):
            if BEGIN + after >= now:
                yield BEGIN + after, action

    async def _act(self, k: int) -> None:
        """Do what somebody does in round *k*: one thing, for two could come to something in either order."""
        open_runs = sorted({run for run in await self._runs() if not (await self._rt.run(run).status()).is_closed})
        if not open_runs:
            return
        if k % 4 == 1:
            await self._rt.run(open_runs[k // 4 % len(open_runs)]).signal("go", f"s{k}", id=f"s{k}")
        elif k % 4 == 2:
            await self._rt.publish("news", {"by": -k}, id=f"e{k}")
        elif not await self._settle(open_runs, k):
            await self._answer(k)

    async def _runs(self) -> list[str]:
        rows = await self._rt.read(Query(types=("run-started",), limit=1_000_000))
        return [row.stream.removeprefix("run/") for row in rows]

    async def _settle(self, runs: list[str], k: int) -> bool:
        for run in runs:
            view = await self._rt.run(run).status()
            if self._is_exact and any("#undo" in step for step in set(view.in_flight) - set(view.in_doubt)):
                continue  # what is tried again meanwhile may come before the next compensation, or after it
            for step in sorted(view.in_doubt):
                await self._judge(self._rt.run(run), step, (micros(step) + k) % 3)
                return True
        return False

    async def _judge(self, run: RunHandle[Any], step: str, verdict: int) -> None:
        if verdict == 0:
            await run.settle_done(step, None if "undo" in step else 0)
        elif verdict == 1:
            await run.settle_not_done(step)
        else:
            await run.settle_failed(step, "it cannot be")

    async def _answer(self, k: int) -> None:
        for question in sorted(await self._rt.questions(), key=lambda one: (one.run, one.id)):
            run: RunHandle[Any] = self._rt.run(question.run)
            who = f"p{k}"
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
            outcomes[view.run] = _outcome(view)
    finally:
        await box.close()
    ends = Counter((str(row.stream), row.type, str(data(row).get("step")), row.at) for row in log if row.type in ENDING)
    return Ended(outcomes, world.effects, ends, log, kept, list(world.jobs.values()))


def _outcome(view: RunView) -> tuple[str, str, str, str]:
    """How a run ended; a child is cancelled by its parent at the very instant at which the deadline of both passes."""
    is_of_parent = view.parent is not None and "which awaits it, was cancelled" in view.error
    if is_of_parent or (view.parent is not None and view.error_type == "DeadlineExceededError"):
        return "stopped", "", "", ""
    return view.status, view.result, view.error_type, view.error


def borders(ended: Ended, after: int = 0) -> list[int]:
    """The places of a log at which the process may have died, those of the runs' work."""
    first = next(row.position for row in ended.log if row.type == "run-started")
    last = max(row.position for row in ended.log if row.type in CLOSING)
    return [p for p in sorted(ended.disk.borders) if max(first, after) <= p < last]


async def crashed(
    before: Ended,
    position: int,
    program: Program,
    script: Script,
    settings: Settings,
    chance: Random,
    *,
    down_for: int | None = None,
) -> Ended:
    """Live on after a crash that left what *before* has up to *position*; return how that ends.

    Of what was begun in the instant of the crash each may have reached the world, or not. The process is back before
    anything else happens, or after a number of seconds, in which case nobody knows what it comes to.
    """
    row, follows = before.log[position - 1], before.log[position]
    at = chance.choice([row.at, chance.randint(row.at, max(row.at, follows.at - 1))])
    if down_for is not None:
        at = row.at + down_for * SECOND
    jobs = [job for job in before.jobs if job.position <= position and (job.began < at or chance.random() < 0.5)]
    done = {
        f"{row.stream.removeprefix('run/')}:{data(row)['step']}"
        for row in before.log[:position]
        if row.type == "step-completed"
    }
    disk = MarkedDisk(disk_until(before.disk, position))
    ended = await live(program, script, settings, disk, at=at, jobs=jobs, is_exact=down_for is None)
    again = done.intersection(world.calls)
    assert not again, f"{again} again after a crash at {position}"
    return ended


def compare(whole: Ended, after: Ended, where: str) -> None:
    """Check that a life came to the same as one without a crash.

    After two crashes in a row without progress the suspects resume one at a time: then times are others.
    """
    if any(row.type == "run-resumed" and data(row)["is_alone"] for row in after.log):
        return
    assert after.outcomes == whole.outcomes, where
    assert after.effects == whole.effects, where
    assert sorted(after.ends.items()) == sorted(whole.ends.items()), where
