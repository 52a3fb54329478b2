"""Questions between actors, one after the other, against pykka's actor on threads."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pykka

from benchmarks.rows import Row, Size, Target, against, spread
from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.runtime.clock import SystemClock
from perdure.store.codec import Codec
from perdure.store.records import StreamId
from perdure.store.sqlite import SqliteEventLog

AT_ONCE = 100


class Question(Command, frozen=True):
    """What is asked; the answer is the number."""

    number: int


class AskAll(Command, frozen=True):
    """Tell an actor to ask another one *count* questions, *at_once* of them in flight."""

    count: int
    at_once: int


class Asking(Effect, frozen=True):
    """Ask them."""

    count: int
    at_once: int


class Peer:
    """The rules of an actor that answers questions, and can be told to ask them."""

    kind = "peer"
    state_type = type(None)
    state_version = 1
    events = ()

    def initial(self, stream: StreamId) -> None:
        del stream

    def decide(self, state: None, command: Command, moment: Moment) -> Decision[Any]:
        del state, moment
        match command:
            case Question(number=number):
                return Decision((), number)
            case AskAll(count=count, at_once=at_once):
                return Decision((), None, (Asking(count, at_once),))
            case _:
                raise TypeError(command)

    def evolve(self, state: None, event: Event) -> None:
        del state, event

    def index(self, state: None) -> Index:
        del state
        return Index(is_open=False)


class ThreadPeer(pykka.ThreadingActor):
    """The same in pykka: an actor that answers, or asks another one."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Question):
            return message.number
        other, count, at_once = message
        started = time.perf_counter()
        for start in range(0, count, at_once):
            futures = [other.ask(Question(number), block=False) for number in range(start, start + at_once)]
            assert pykka.get_all(futures) == list(range(start, start + at_once))
        return count / (time.perf_counter() - started)


def measure(size: Size) -> dict[str, Row]:
    count, repetitions = size.pick(20_000, 4_000), size.pick(9, 3)
    one_by_one, in_flight = asyncio.run(_in_turns(count, repetitions))
    burst = spread([figure / baseline for figure, baseline in in_flight])
    row = against(
        "`ask` between two actors, one after the other",
        "asks/s",
        one_by_one,
        baseline_is="the same between two of pykka's ThreadingActor",
        target=Target("at least", 5.0),
        extra={
            f"asks/s with {AT_ONCE} in flight": spread([figure for figure, _ in in_flight]).median,
            f"ratio with {AT_ONCE} in flight": burst.median,
        },
    )
    return {"ask": row}


async def _in_turns(count: int, repetitions: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    one_by_one: list[tuple[float, float]] = []
    in_flight: list[tuple[float, float]] = []
    with TemporaryDirectory() as folder:
        log = await SqliteEventLog.open(Path(folder, "log.db"))
        try:
            asker = _Asker(log)
            await asker.rate(count, 1)
            for _ in range(repetitions):
                one_by_one.append((await asker.rate(count, 1), _pykka_rate(count, 1)))
                in_flight.append((await asker.rate(count, AT_ONCE), _pykka_rate(count, AT_ONCE)))
            await asker.stop()
        finally:
            await log.close()
    return one_by_one, in_flight


class _Asker:
    """Two actors in one system; the asking is an effect of the first, as all that an actor does is."""

    def __init__(self, log: SqliteEventLog) -> None:
        clock = SystemClock()
        clock.start(asyncio.get_running_loop(), 0)
        self._system = ActorSystem(log, Codec(()), clock, (Peer(),), {Asking: self._ask})
        self._done: asyncio.Future[float]
        self._task: asyncio.Task[None]

    async def rate(self, count: int, at_once: int) -> float:
        self._done = asyncio.get_running_loop().create_future()
        await self._system.ref(StreamId("peer/asker")).ask(AskAll(count, at_once))
        return await self._done

    def _ask(self, shell: Shell, effect: Asking) -> None:
        del shell
        self._task = asyncio.get_running_loop().create_task(self._ask_all(effect.count, effect.at_once))

    async def _ask_all(self, count: int, at_once: int) -> None:
        other = self._system.ref(StreamId("peer/answerer"))
        await other.ask(Question(0))
        started = time.perf_counter()
        for start in range(0, count, at_once):
            answers: list[Answer[int]] = [other.ask(Question(number)) for number in range(start, start + at_once)]
            assert [await answer for answer in answers] == list(range(start, start + at_once))
        self._done.set_result(count / (time.perf_counter() - started))

    async def stop(self) -> None:
        await self._system.stop()


def _pykka_rate(count: int, at_once: int) -> float:
    asker, answerer = ThreadPeer.start(), ThreadPeer.start()
    try:
        answerer.ask(Question(0))
        return cast("float", asker.ask((answerer, count, at_once)))
    finally:
        asker.stop()
        answerer.stop()
