"""What every event log owes; run over the file and over the fake."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from perdure.store.batch import Bounds
from perdure.store.errors import (
    BacklogFullError,
    ConcurrencyError,
    LogClosedError,
    UnencodableError,
    UsageError,
)
from perdure.store.heads import HEADS
from perdure.store.matching import matches
from perdure.store.records import Append, Blob, Index, OpenStream, Query, Recorded, Snapshot, StreamId, Unit, stream_id
from tests.support.logs import (
    ADA,
    BOB,
    EVE,
    SCHEMA,
    AnyLog,
    MemoryStore,
    SqliteStore,
    Store,
    append,
    event,
    one,
    positions,
    run,
    unit,
)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return SqliteStore(tmp_path / "log.db") if request.param == "sqlite" else MemoryStore()


async def know(log: AnyLog, *streams: StreamId) -> None:
    await log.load([(stream, SCHEMA) for stream in streams])


async def fill(log: AnyLog, stream: StreamId, count: int, *, at: int = 1_000) -> None:
    await know(log, stream)
    for version in range(count):
        log.append(one(stream, version, at=at))
    await log.flush()


def test_the_first_event_has_version_and_position_1(store: Store) -> None:
    async def scenario() -> list[Recorded]:
        async with store.opened() as log:
            await know(log, ADA)
            await log.append(Unit((append(ADA, 0, event("born", b'{"a":1}')),), 7, "c", "run/x#3", "me"))
            return await log.read(Query())

    events = run(scenario)

    assert events == [Recorded(1, ADA, 1, "born", 1, 7, '{"a":1}', None, "c", "run/x#3", "me")]


def test_a_ticket_is_not_durable_before_its_commit_and_is_after(store: Store) -> None:
    async def scenario() -> tuple[bool, bool]:
        async with store.opened() as log:
            await know(log, ADA)
            ticket = log.append(one(ADA, 0))
            before = ticket.is_durable
            await ticket
            return before, ticket.is_durable

    assert run(scenario) == (False, True)


def test_what_is_appended_in_one_tick_shares_a_ticket(store: Store) -> None:
    async def scenario() -> tuple[bool, int]:
        async with store.opened() as log:
            await know(log, ADA, BOB)
            first, second = log.append(one(ADA, 0)), log.append(one(BOB, 0))
            await first
            return first is second, log.statistics().commits

    assert run(scenario) == (True, 1)


def test_the_position_is_that_of_the_newest_event_before_it_is_durable_and_after(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await know(log, ADA, BOB)
            seen = [log.position]
            log.append(Unit((append(ADA, 0, event(), event()), append(BOB, 0, event())), 1))
            seen.append(log.position)
            await log.append(one(BOB, 1))
            seen.append(log.position)
            with pytest.raises(ConcurrencyError):
                log.append(one(ADA, 7))
            seen.append(log.position)
        async with store.opened() as log:
            seen.append(len(await log.read(Query())) - log.position)  # closing it may have written a head
        return seen

    assert run(scenario) == [0, 3, 4, 4, 0]


def test_callbacks_of_a_ticket_are_called_once_in_order_and_late_ones_at_once(store: Store) -> None:
    async def scenario() -> list[str]:
        called: list[str] = []
        async with store.opened() as log:
            await know(log, ADA)
            ticket = log.append(one(ADA, 0))
            ticket.on_settled(lambda _: called.append("first"))
            ticket.on_settled(lambda _: called.append("second"))
            await ticket
            ticket.on_settled(lambda _: called.append("late"))
            return called

    assert run(scenario) == ["first", "second", "late"]


def test_cancelling_one_waiter_leaves_the_commit_and_the_others_alone(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await know(log, ADA)
            ticket = log.append(one(ADA, 0))
            waiter, other = asyncio.ensure_future(ticket), asyncio.ensure_future(ticket)
            await asyncio.sleep(0)
            waiter.cancel()
            await other
            assert waiter.cancelled()
            return positions(await log.read(Query()))

    assert run(scenario) == [1]


def test_a_unit_on_another_version_is_refused_and_nothing_of_it_is_written(store: Store) -> None:
    async def scenario() -> list[Recorded]:
        async with store.opened() as log:
            await fill(log, ADA, 2)
            await know(log, BOB)
            with pytest.raises(ConcurrencyError) as caught:
                log.append(unit(append(BOB, 0, event()), append(ADA, 1, event())))
            assert (caught.value.stream, caught.value.expected, caught.value.actual) == (ADA, 1, 2)
            await log.append(one(BOB, 0))
            return await log.read(Query())

    assert [(event.stream, event.version) for event in run(scenario)] == [(ADA, 1), (ADA, 2), (BOB, 1)]


@pytest.mark.parametrize(
    ("refused", "hint"),
    [
        (unit(), "at least one append"),
        (unit(append(EVE, 0, event())), "not loaded"),
        (unit(append(ADA, 0)), "no event"),
        (unit(append(ADA, 0, index=Index(is_open=False))), "no event"),
        (unit(append(ADA, 0, event()), append(ADA, 0, event())), "twice"),
        (unit(append(ADA, 0, event(), snapshot=Snapshot(2, SCHEMA, b"{}"))), "version 1 to 1, not 2"),
        (unit(append(ADA, 0, snapshot=Snapshot(0, SCHEMA, b"{}"))), "version 1 to 0"),
        (unit(append(HEADS, 0, event())), "belongs to the log"),
        (unit(append(ADA, 0, *[event()] * 11)), "over the bound"),
        (unit(append(ADA, 0, event(data=b"x" * 9_000))), "over the bound"),
    ],
)
def test_a_unit_that_makes_no_sense_is_a_usage_error(store: Store, refused: Unit, hint: str) -> None:
    async def scenario() -> int:
        async with store.opened(bounds=Bounds(batch_events=10, unit_bytes=9_000)) as log:
            await know(log, ADA)
            with pytest.raises(UsageError, match=hint):
                log.append(refused)
            return log.statistics().position

    assert run(scenario) == 0


@pytest.mark.parametrize("text", ["nul\0", "lone\udc80"])
def test_a_text_that_the_log_cannot_keep_is_refused_and_nothing_moves(store: Store, text: str) -> None:
    async def scenario() -> list[Recorded]:
        async with store.opened() as log:
            await know(log, ADA)
            with pytest.raises(UnencodableError):
                log.append(unit(append(ADA, 0, event()), correlation=text))
            await log.append(one(ADA, 0))
            return await log.read(Query())

    assert [(event.position, event.version) for event in run(scenario)] == [(1, 1)]


def test_a_unit_of_several_streams_has_consecutive_positions(store: Store) -> None:
    async def scenario() -> list[Recorded]:
        async with store.opened() as log:
            await know(log, ADA, BOB)
            await log.append(unit(append(ADA, 0, event("a"), event("b")), append(BOB, 0, event("c"))))
            return await log.read(Query())

    found = [(event.position, event.stream, event.version, event.type) for event in run(scenario)]

    assert found == [(1, ADA, 1, "a"), (2, ADA, 2, "b"), (3, BOB, 1, "c")]


@pytest.mark.parametrize(
    "data",
    ['{"t":"käse 🧀"}', r'{"t":"\u0000\ud83d\ude00\"\\"}', '{"n":1e400,"big":123456789012345678901234567890}', "{}"],
)
def test_a_payload_comes_back_byte_by_byte(store: Store, data: str) -> None:
    async def scenario() -> tuple[str | None, ...]:
        async with store.opened() as log:
            await know(log, ADA)
            await log.append(unit(append(ADA, 0, event(data=data.encode(), blobs='{"ü":"00"}'.encode()))))
            log.forget([ADA])
            [loaded] = await log.load([(ADA, SCHEMA)])
            return loaded.events[0].data, loaded.events[0].blobs

    assert run(scenario) == (data, '{"ü":"00"}')


def test_time_never_falls(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await know(log, ADA)
            log.append(one(ADA, 0, at=50))
            await log.append(one(ADA, 1, at=20))
        async with store.opened() as log:
            await know(log, ADA)
            await log.append(one(ADA, 2, at=10))
            await log.append(one(ADA, 3, at=60))
            return [event.at for event in await log.read(Query(stream=ADA))]

    assert run(scenario) == [50, 50, 50, 60]


def test_an_unknown_stream_loads_as_version_0(store: Store) -> None:
    async def scenario() -> tuple[object, ...]:
        async with store.opened() as log:
            [loaded] = await log.load([(ADA, SCHEMA)])
            return loaded.version, loaded.snapshot, loaded.events, loaded.index

    assert run(scenario) == (0, None, (), None)


def test_streams_are_loaded_in_the_order_asked_with_snapshot_and_tail(store: Store) -> None:
    async def scenario() -> list[tuple[StreamId, int, Snapshot | None, list[int]]]:
        async with store.opened() as log:
            await fill(log, ADA, 3)
            await fill(log, BOB, 1)
            await log.append(unit(append(ADA, 3, event(), snapshot=Snapshot(2, SCHEMA, b'{"n":2}'))))
            loaded = await log.load([(EVE, SCHEMA), (BOB, SCHEMA), (ADA, SCHEMA)])
            return [(x.stream, x.version, x.snapshot, [event.version for event in x.events]) for x in loaded]

    assert run(scenario) == [
        (EVE, 0, None, []),
        (BOB, 1, None, [1]),
        (ADA, 4, Snapshot(2, SCHEMA, b'{"n":2}'), [3, 4]),
    ]


def test_a_snapshot_of_another_schema_is_passed_over(store: Store) -> None:
    async def scenario() -> tuple[Snapshot | None, int]:
        async with store.opened() as log:
            await fill(log, ADA, 3)
            await log.append(unit(append(ADA, 3, snapshot=Snapshot(3, "old", b"{}"))))
            [loaded] = await log.load([(ADA, "new")])
            return loaded.snapshot, len(loaded.events)

    assert run(scenario) == (None, 3)


def test_a_snapshot_may_come_alone_and_replaces_the_one_before(store: Store) -> None:
    async def scenario() -> tuple[Snapshot | None, int, int]:
        async with store.opened() as log:
            await fill(log, ADA, 3)
            await log.append(unit(append(ADA, 3, snapshot=Snapshot(2, SCHEMA, b"{}"))))
            await log.append(unit(append(ADA, 3, snapshot=Snapshot(3, SCHEMA, b"{}"))))
            [loaded] = await log.load([(ADA, SCHEMA)])
            return loaded.snapshot, len(loaded.events), log.statistics().position

    assert run(scenario) == (Snapshot(3, SCHEMA, b"{}"), 0, 3)


def test_a_load_waits_for_what_was_appended_before_it(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await know(log, ADA)
            log.append(one(ADA, 0))
            [loaded] = await log.load([(ADA, SCHEMA)])
            return positions(list(loaded.events))

    assert run(scenario) == [1]


def test_a_stream_that_was_forgotten_while_it_waited_for_the_disk_loads_whole(store: Store) -> None:
    async def scenario() -> int:
        async with store.opened() as log:
            await know(log, ADA)
            log.append(one(ADA, 0))
            log.forget([ADA])
            [loaded] = await log.load([(ADA, SCHEMA)])
            await log.append(one(ADA, 1))
            return loaded.version

    assert run(scenario) == 1


def test_a_load_that_raced_appends_and_a_forget_never_brings_an_old_version_back(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await fill(log, ADA, 1)
            slow = asyncio.ensure_future(log.load([(ADA, SCHEMA)]))
            await asyncio.sleep(0)
            log.append(one(ADA, 1))
            log.forget([ADA])
            [[first], [second]] = await asyncio.gather(slow, log.load([(ADA, SCHEMA)]))
            await log.append(one(ADA, 2))
            return [first.version, second.version]

    assert run(scenario)[1] == 2


def test_a_forgotten_stream_must_be_loaded_before_it_is_appended_to(store: Store) -> None:
    async def scenario() -> None:
        async with store.opened() as log:
            await fill(log, ADA, 1)
            log.forget([ADA])
            with pytest.raises(UsageError, match="not loaded"):
                log.append(one(ADA, 1))

    run(scenario)


KINDS = [stream_id("run/ada"), stream_id("run/bob"), stream_id("tool/search"), stream_id("runner/x")]


async def write_history(log: AnyLog) -> None:
    await know(log, *KINDS)
    for number in range(40):
        stream = KINDS[number % 4]
        data = b'{"tool":"%s","n":%d}' % (b"search" if number % 3 else b"fetch", number)
        kind = "step-completed" if number % 2 else "step-started"
        log.append(unit(append(stream, number // 4, event(kind, data)), at=number * 10, correlation=f"c{number % 5}"))
    await log.flush()


QUERIES = [
    Query(),
    Query(after=17),
    Query(until=5),
    Query(after=3, until=9),
    Query(stream=KINDS[1]),
    Query(stream=KINDS[1], after=10, until=30),
    Query(stream=KINDS[1], types=("step-completed",), correlation="c3"),
    Query(stream=stream_id("no/such")),
    Query(stream_prefix="run/"),
    Query(stream_prefix="run"),
    Query(stream_prefix=""),
    Query(stream_prefix="tool/", stream=KINDS[0]),
    Query(types=("step-started",)),
    Query(types=("step-started", "step-completed")),
    Query(types=()),
    Query(correlation="c2"),
    Query(since_time=120),
    Query(since_time=121),
    Query(until_time=120),
    Query(until_time=119),
    Query(since_time=100, until_time=200),
    Query(since_time=10_000),
    Query(until_time=-1),
    Query(tool="fetch"),
    Query(tool="fetch", stream_prefix="run/", since_time=50, types=("step-started",)),
    Query(after=100),
]


@pytest.mark.parametrize("limit", [1, 3, 40, 1_000])
@pytest.mark.parametrize("newest_first", [False, True])
def test_reads_answer_what_the_query_means(store: Store, *, limit: int, newest_first: bool) -> None:
    async def scenario() -> None:
        async with store.opened() as log:
            await write_history(log)
            everything = await log.read(Query(limit=1_000))
            for query in QUERIES:
                asked = msgspec.structs.replace(query, limit=limit, newest_first=newest_first)
                ordered: Sequence[Recorded] = everything[::-1] if newest_first else everything
                expected = [event for event in ordered if matches(event, query)][:limit]
                assert await log.read(asked) == expected, query

    run(scenario)


def test_a_read_shows_only_what_is_durable(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await fill(log, ADA, 1)
            log.append(one(ADA, 1))
            return positions(await log.read(Query()))

    assert run(scenario) == [1]


def test_a_tail_yields_what_was_and_what_comes_and_ends_with_the_log(store: Store) -> None:
    async def scenario() -> list[int]:
        seen: list[int] = []
        changed = asyncio.Event()

        async def follow(log: AnyLog) -> None:
            async for recorded in log.tail(1, Query(stream=ADA)):
                seen.append(recorded.position)
                changed.set()

        async with store.opened() as log:
            await fill(log, ADA, 2)
            follower = asyncio.create_task(follow(log))
            await changed.wait()
            await fill(log, BOB, 1)
            log.append(one(ADA, 2))
            await log.append(one(ADA, 3))
            while len(seen) < 3:
                changed.clear()
                await changed.wait()
        await follower
        return seen

    assert run(scenario) == [2, 4, 5]


def test_a_tail_that_is_left_early_leaves_nothing_behind(store: Store) -> None:
    async def scenario() -> int:
        async with store.opened() as log:
            await fill(log, ADA, 1)
            follower = asyncio.ensure_future(anext(aiter(log.tail(1))))
            for _ in range(5):
                await asyncio.sleep(0)
            follower.cancel()
            await asyncio.wait([follower])
            await log.append(one(ADA, 1))
            return log.statistics().position

    assert run(scenario) == 2


def test_the_index_lists_open_streams_by_name(store: Store) -> None:
    async def scenario() -> list[list[OpenStream]]:
        async with store.opened() as log:
            await know(log, *KINDS)
            for number, stream in enumerate(KINDS):
                log.append(one(stream, 0, at=number))
            await log.append(one(KINDS[0], 1, at=9, index=Index(wake_at=500, waits_on="tool/search")))
            return [
                await log.open_streams(),
                await log.open_streams("run/"),
                await log.open_streams("run/", after="run/ada"),
                await log.open_streams(limit=1),
            ]

    everything, runs, later, first = run(scenario)

    ada, bob = OpenStream(KINDS[0], 2, 500, "tool/search", 9), OpenStream(KINDS[1], 1, None, None, 1)
    search, runner = OpenStream(KINDS[2], 1, None, None, 2), OpenStream(KINDS[3], 1, None, None, 3)
    assert everything == [ada, bob, runner, search]
    assert (runs, later, first) == ([ada, bob], [bob], [ada])


def test_the_index_lists_open_streams_that_wait_on_one_thing(store: Store) -> None:
    async def scenario() -> list[list[str]]:
        async with store.opened() as log:
            await know(log, *KINDS)
            for number, stream in enumerate(KINDS):
                index = Index(wake_at=100 * number, waits_on="resume" if number % 2 else "answer")
                await log.append(one(stream, 0, index=index))
            found = [
                await log.open_streams(waits_on="resume"),
                await log.open_streams("run/", waits_on="answer"),
                await log.open_streams(waits_on="resume", wake_before=100),
                await log.open_streams(waits_on="signal"),
            ]
            return [[str(row.stream) for row in rows] for rows in found]

    assert run(scenario) == [sorted([KINDS[1], KINDS[3]]), [KINDS[0]], [KINDS[1]], []]


def test_the_index_knows_who_is_due_and_when_the_next_one_is(store: Store) -> None:
    async def scenario() -> list[object]:
        async with store.opened() as log:
            nothing = await log.next_wake()
            await know(log, *KINDS)
            for stream, wake_at in zip(KINDS, (300, 100, 200, None), strict=True):
                log.append(one(stream, 0, index=Index(wake_at=wake_at)))
            await log.append(one(KINDS[1], 1, index=Index(is_open=False, wake_at=100)))
            due = await log.open_streams(wake_before=250)
            return [nothing, await log.next_wake(), [row.stream for row in due]]

    assert run(scenario) == [None, 200, [KINDS[2]]]


def test_an_append_without_an_index_leaves_the_index_as_it_was(store: Store) -> None:
    async def scenario() -> tuple[list[OpenStream], Index | None]:
        async with store.opened() as log:
            await know(log, ADA)
            await log.append(one(ADA, 0, index=Index(wake_at=5, waits_on="x")))
            log.forget([ADA])
            await know(log, ADA)
            await log.append(one(ADA, 1))
            [loaded] = await log.load([(ADA, SCHEMA)])
            return await log.open_streams(), loaded.index

    assert run(scenario) == ([OpenStream(ADA, 2, 5, "x", 1_000)], Index(wake_at=5, waits_on="x"))


def test_blobs_are_kept_once_and_found_by_hash(store: Store) -> None:
    async def scenario() -> dict[str, bytes]:
        blob, other = Blob("aa", b"\x00\xff\r\n"), Blob("bb", b"")
        async with store.opened() as log:
            await know(log, ADA)
            log.append(unit(append(ADA, 0, event()), blobs=(blob, other)))
            await log.flush()
            await log.append(unit(append(ADA, 1, event()), blobs=(blob,)))
            return dict(await log.blobs(["aa", "bb", "cc"]))

    assert run(scenario) == {"aa": b"\x00\xff\r\n", "bb": b""}


def test_a_full_backlog_refuses_and_forgets_it_when_the_disk_has_caught_up(store: Store) -> None:
    async def scenario() -> list[object]:
        async with store.opened(bounds=Bounds(backlog_events=4)) as log:
            await know(log, ADA)
            congested = [log.is_congested]
            for version in range(4):
                log.append(one(ADA, version))
                congested.append(log.is_congested)
            with pytest.raises(BacklogFullError) as caught:
                log.append(one(ADA, 4))
            assert (caught.value.waiting, caught.value.bound) == (4, 4)
            await log.flush()
            congested.append(log.is_congested)
            await log.append(one(ADA, 4))
            return [*congested, log.statistics().position]

    assert run(scenario) == [False, False, False, True, True, False, 5]


def test_a_large_backlog_is_split_into_batches_of_whole_units(store: Store) -> None:
    async def scenario() -> tuple[int, int, list[int]]:
        async with store.opened(bounds=Bounds(batch_events=5)) as log:
            await know(log, ADA)
            for number in range(4):
                log.append(unit(append(ADA, number * 2, event(), event())))
            await log.flush()
            figures = log.statistics()
            return figures.commits, figures.largest_batch, positions(await log.read(Query()))

    assert run(scenario) == (2, 4, list(range(1, 9)))


def test_there_is_a_barrier_only_while_something_waits(store: Store) -> None:
    async def scenario() -> list[bool]:
        async with store.opened() as log:
            await know(log, ADA)
            before = log.barrier() is None
            ticket = log.append(one(ADA, 0))
            during = log.barrier() is ticket
            await log.flush()
            return [before, during, log.barrier() is None]

    assert run(scenario) == [True, True, True]


def test_a_closed_log_refuses_everything_and_closes_again(store: Store) -> None:
    async def scenario() -> None:
        async with store.opened() as log:
            await fill(log, ADA, 1)
            await log.close()
            await log.close()
            with pytest.raises(LogClosedError):
                log.append(one(ADA, 1))
            for reading in (log.read(Query()), log.load([(ADA, SCHEMA)]), log.open_streams(), log.blobs([])):
                with pytest.raises(LogClosedError):
                    await reading
            assert [event async for event in log.tail(0)] == []

    run(scenario)


def test_closing_makes_what_waits_durable(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await know(log, ADA)
            log.append(one(ADA, 0))
        async with store.opened() as log:
            return positions(await log.read(Query(stream=ADA)))

    assert run(scenario) == [1]


def test_closing_records_a_head_unless_nothing_happened_since_the_last(store: Store) -> None:
    async def scenario() -> list[Recorded]:
        async with store.opened() as log:
            await fill(log, ADA, 3)
        for _ in range(2):
            async with store.opened():
                pass
        async with store.opened() as log:
            return await log.read(Query(after=3))

    [head] = run(scenario)

    assert (head.stream, head.position, head.type) == (HEADS, 4, "head-recorded")


def test_a_head_is_recorded_every_so_many_events_in_the_same_batch(store: Store) -> None:
    async def scenario() -> tuple[list[int], int, list[OpenStream]]:
        async with store.opened(bounds=Bounds(head_every=3)) as log:
            await know(log, ADA)
            await log.append(unit(append(ADA, 0, event(), event(), event(), event())))
            heads = await log.read(Query(stream=HEADS))
            return positions(heads), log.statistics().commits, await log.open_streams("log/")

    assert run(scenario) == ([5], 1, [])


def test_a_log_that_is_opened_again_is_the_same(store: Store) -> None:
    async def scenario() -> list[object]:
        found: list[object] = []
        for version in range(2):
            async with store.opened() as log:
                await know(log, ADA)
                await log.append(one(ADA, version))
                found.append(log.log_id)
        async with store.opened() as log:
            found.extend(event.version for event in await log.read(Query(stream=ADA)))
        return found

    first, second, *versions = run(scenario)

    assert first == second
    assert versions == [1, 2]


def test_an_abandoned_log_keeps_what_was_durable(store: Store) -> None:
    async def scenario() -> list[int]:
        async with store.opened() as log:
            await fill(log, ADA, 2)
            log.abandon()
        async with store.opened() as log:
            await know(log, ADA)
            await log.append(one(ADA, 2))
            return positions(await log.read(Query()))

    assert run(scenario) == [1, 2, 3]


def test_a_unit_can_be_large_in_streams(store: Store) -> None:
    async def scenario() -> int:
        names = [stream_id(f"run/{number:04d}") for number in range(1_500)]
        appends: tuple[Append, ...] = tuple(append(name, 0, event()) for name in names)
        async with store.opened() as log:
            await know(log, *names)
            await log.append(unit(*appends))
            log.forget(names)
            return sum(loaded.version for loaded in await log.load([(name, SCHEMA) for name in names]))

    assert run(scenario) == 1_500
