"""Both logs against a naive model, a list of events and three dicts, through any order of calls and crashes."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perdure.store.audit import verify
from perdure.store.batch import Bounds
from perdure.store.errors import ConcurrencyError
from perdure.store.heads import HEADS
from perdure.store.memory import MemoryEventLog, MemoryStorage
from perdure.store.records import Append, Index, Query, Snapshot, StreamId, Unit, stream_id
from perdure.store.sqlite import SqliteEventLog
from tests.support.logs import AnyLog, event

STREAMS = [stream_id(name) for name in ("run/a", "run/b", "tool/a", "x")]
BOUNDS = Bounds(head_every=7, batch_events=6)
KINDS = ("started", "completed", "failed")

streams = st.sampled_from(STREAMS)
indexes = st.none() | st.builds(
    Index, is_open=st.booleans(), wake_at=st.none() | st.integers(0, 9), waits_on=st.sampled_from([None, "run/a"])
)
changes = st.tuples(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), indexes, st.booleans())


class LogMachine(RuleBasedStateMachine):
    """What every log must answer after any history."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.log: AnyLog
        self.events: list[tuple[int, StreamId, int, str, int]] = []
        self.index: dict[StreamId, Index] = {}
        self.snapshots: dict[StreamId, int] = {}
        self.known: set[StreamId] = set()
        self.headed = 0
        self.at = 0

    async def open_log(self) -> AnyLog:
        raise NotImplementedError

    def version(self, stream: StreamId) -> int:
        return sum(1 for recorded in self.events if recorded[1] == stream)

    def record(self, stream: StreamId, kind: str, at: int) -> None:
        self.at = max(self.at, at)
        self.events.append((len(self.events) + 1, stream, self.version(stream) + 1, kind, self.at))

    def record_head(self) -> None:
        self.record(HEADS, "head-recorded", 0)
        self.headed = len(self.events)

    @initialize()
    def open(self) -> None:
        self.log = self.runner.run(self.open_log())

    @rule(wanted=st.lists(streams, max_size=4), schema=st.sampled_from(["v1", "v2"]))
    def load(self, wanted: list[StreamId], schema: str) -> None:
        loaded = self.runner.run(self.log.load([(stream, schema) for stream in wanted]))
        self.known.update(wanted)
        for stream, found in zip(wanted, loaded, strict=True):
            version = self.version(stream)
            snapshot = self.snapshots.get(stream) if schema == "v1" else None
            assert (found.stream, found.version, found.index) == (stream, version, self.index.get(stream))
            assert (found.snapshot and found.snapshot.version) == snapshot
            assert [event.version for event in found.events] == list(range((snapshot or 0) + 1, version + 1))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), at=st.integers(0, 50))
    def append(self, data: st.DataObject, at: int) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.known)), min_size=1, max_size=3, unique=True))
        appends: list[Append] = []
        recorded: list[tuple[StreamId, str]] = []
        for stream in chosen:
            kinds, index, with_snapshot = data.draw(changes)
            if len(recorded) + len(kinds) > BOUNDS.batch_events:
                continue
            expected = self.version(stream)
            last = expected + len(kinds)
            snapshot = Snapshot(last, "v1", b"{}") if with_snapshot else None
            appends.append(Append(stream, expected, tuple(event(kind) for kind in kinds), index, snapshot))
            recorded.extend((stream, kind) for kind in kinds)
            self.index[stream] = index or self.index.get(stream, Index())
            if with_snapshot:
                self.snapshots[stream] = last
        self.log.append(Unit(tuple(appends), at))
        for stream, kind in recorded:
            self.record(stream, kind, at)
        if len(self.events) - self.headed >= BOUNDS.head_every:
            self.record_head()

    @precondition(lambda self: self.known)
    @rule(data=st.data(), wrong=st.integers(-2, 2).filter(bool))
    def append_on_another_version(self, data: st.DataObject, wrong: int) -> None:
        stream = data.draw(st.sampled_from(sorted(self.known)))
        with pytest.raises(ConcurrencyError):
            self.log.append(Unit((Append(stream, self.version(stream) + wrong, (event(),)),), 1))

    @rule(wanted=st.lists(streams, max_size=2))
    def forget(self, wanted: list[StreamId]) -> None:
        self.log.forget(wanted)
        self.known.difference_update(wanted)

    @rule()
    def let_the_loop_turn(self) -> None:
        self.runner.run(asyncio.sleep(0))

    @rule()
    def close_and_open(self) -> None:
        self.runner.run(self.log.close())
        if len(self.events) > self.headed:
            self.record_head()
        self.known.clear()
        self.log = self.runner.run(self.open_log())

    @rule()
    def crash_and_open(self) -> None:
        self.runner.run(self.log.flush())
        self.runner.run(self.abandon())
        self.known.clear()
        self.log = self.runner.run(self.open_log())

    async def abandon(self) -> None:
        self.log.abandon()

    @rule(
        stream=st.none() | streams,
        prefix=st.sampled_from([None, "run/", "t"]),
        types=st.none() | st.lists(st.sampled_from(KINDS), max_size=2).map(tuple),
        span=st.tuples(st.integers(0, 20), st.none() | st.integers(0, 20)),
        times=st.tuples(st.none() | st.integers(0, 50), st.none() | st.integers(0, 50)),
        limit=st.integers(1, 8),
        newest_first=st.booleans(),
    )
    def read(
        self,
        *,
        stream: StreamId | None,
        prefix: str | None,
        types: tuple[str, ...] | None,
        span: tuple[int, int | None],
        times: tuple[int | None, int | None],
        limit: int,
        newest_first: bool,
    ) -> None:
        self.runner.run(self.log.flush())
        query = Query(
            after=span[0], until=span[1], stream=stream, stream_prefix=prefix, types=types, since_time=times[0],
            until_time=times[1], limit=limit, newest_first=newest_first,
        )  # fmt: skip
        found = self.runner.run(self.log.read(query))
        expected = [
            (position, name, version, kind, at)
            for position, name, version, kind, at in self.events[:: -1 if newest_first else 1]
            if span[0] < position <= (10**9 if span[1] is None else span[1])
            and stream in {None, name}
            and name.startswith(prefix or "")
            and (types is None or kind in types)
            and (0 if times[0] is None else times[0]) <= at <= (10**9 if times[1] is None else times[1])
        ]
        assert [(e.position, e.stream, e.version, e.type, e.at) for e in found] == expected[:limit]

    @rule(prefix=st.sampled_from(["", "run/", "x"]), after=st.sampled_from(["", "run/a", "y"]), limit=st.integers(1, 3))
    def list_open_streams(self, prefix: str, after: str, limit: int) -> None:
        self.runner.run(self.log.flush())
        found = self.runner.run(self.log.open_streams(prefix, after=after, limit=limit))
        names = sorted(name for name, index in self.index.items() if index.is_open)
        expected = [name for name in names if name.startswith(prefix) and name > after][:limit]
        assert [row.stream for row in found] == expected
        assert [(row.wake_at, row.waits_on, row.version) for row in found] == [
            (self.index[name].wake_at, self.index[name].waits_on, self.version(name)) for name in expected
        ]

    @rule(until=st.integers(0, 9))
    def look_for_due_streams(self, until: int) -> None:
        self.runner.run(self.log.flush())
        found = self.runner.run(self.log.open_streams(wake_before=until))
        times = {name: index.wake_at for name, index in self.index.items() if index.is_open}
        assert [row.stream for row in found] == sorted(n for n, at in times.items() if at is not None and at <= until)
        earliest = min((at for at in times.values() if at), default=None)  # later than 0, where the look begins
        assert self.runner.run(self.log.next_wake()) == earliest

    @invariant()
    def positions_agree(self) -> None:
        if hasattr(self, "log"):
            assert self.log.statistics().position == len(self.events)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.runner.run(self.log.close())
        self.runner.close()


class MemoryMachine(LogMachine):
    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()

    async def open_log(self) -> MemoryEventLog:
        return MemoryEventLog(self.storage, bounds=BOUNDS)


class SqliteMachine(LogMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "log.db"

    async def open_log(self) -> SqliteEventLog:
        return await SqliteEventLog.open(self.path, bounds=BOUNDS)

    def teardown(self) -> None:
        super().teardown()
        assert verify(self.path).findings == ()
        self.folder.cleanup()


def test_the_fake_is_what_the_model_says() -> None:
    _check(MemoryMachine, examples=60)


def test_the_file_is_what_the_model_says() -> None:
    _check(SqliteMachine, examples=40)


def _check(machine: type[LogMachine], *, examples: int) -> None:
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    machine.TestCase().runTest()
