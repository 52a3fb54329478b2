"""A runtime that is reached over its socket: the same handles, the same errors, and what a lost connection means."""

import asyncio
import inspect
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import (
    CircuitOpenError,
    Connection,
    ConnectionLostError,
    Context,
    InvalidArgumentsError,
    NotInDoubtError,
    NotOwnedError,
    OwnerUnreachableError,
    PerdureError,
    PublicationConflictError,
    Query,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    RunHandle,
    Runtime,
    Settings,
    ToolFailedError,
    UnencodableError,
    UnknownRunError,
    UnknownToolError,
    UnknownWorkflowError,
    UsageError,
    WorkflowFailedError,
    WrongAnswerError,
    connect,
    tool,
    workflow,
)
from perdure.runtime.control import address, channel, server, session
from perdure.runtime.reach import Reach
from perdure.testing import MemoryDisk
from tests.support.runs import play


class Order(msgspec.Struct):
    quantity: int
    name: str


@tool
async def double(number: int) -> int:
    return 2 * number


@tool
async def broken(text: str) -> str:
    raise ConnectionError(text)


@tool
async def forever() -> None:
    await asyncio.Event().wait()


@workflow
async def add(ctx: Context, a: int, b: int = 1) -> int:
    return await ctx.call(double, a) + await ctx.call(double, b)


@workflow
async def deliver(ctx: Context, order: Order) -> str:
    return f"{order.quantity} {order.name}"


@workflow
async def fails(ctx: Context) -> None:
    await ctx.call(broken, "no route")


@workflow
async def waits(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


@workflow
async def asks(ctx: Context) -> bool:
    return await ctx.ask("publish?", of=bool)


@workflow
async def hears(ctx: Context) -> Any:
    return (await ctx.event("paid")).data


WORKFLOWS = (add, deliver, fails, waits, asks, hears)


@asynccontextmanager
async def owner(folder: Path, **options: Any) -> AsyncGenerator[Runtime]:
    async with Runtime(folder / "a.db", tools=[double, broken, forever], workflows=WORKFLOWS, **options) as rt:
        yield rt


@asynccontextmanager
async def connected(folder: Path, **options: Any) -> AsyncGenerator[Connection]:
    async with owner(folder, **options), connect(folder / "a.db") as rt:
        yield rt


def test_a_run_is_started_followed_and_read_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            run = await rt.start(add, 20, b=1)
            result = await run.result()
            view = await run.status()
            history = await run.history()
        assert (result, view.status, view.steps_done) == (42, "completed", 2)
        assert isinstance(run, RunHandle)
        assert history[0].type == "run-started"

    play(scenario)


def test_a_workflow_is_executed_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            found = await rt.with_options(id="e").execute("add", {"a": 1})
            assert (found["workflow_id"], found["status"], found["result"]) == ("add", "completed", 4)
            assert await rt.run("e").result() == 4
            with pytest.raises(WorkflowFailedError, match="no route") as failed:
                await rt.execute("fails")
            assert (failed.value.workflow_id, failed.value.error_type) == ("fails", "StepFailedError")
            with pytest.raises(UnknownWorkflowError, match="'nope' not found"):
                await rt.execute("nope")
            assert (await rt.get_stats())["failed_executions"] == 0  # those of definitions

    play(scenario)


def test_an_event_is_published_once_from_outside_and_wakes_a_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            run = await rt.start(hears)

            assert await rt.publish("paid", {"amount": 7}, id="order-1", who="till 3")
            assert not await rt.publish("paid", {"amount": 7}, id="order-1")
            assert await run.result() == {"amount": 7}
            with pytest.raises(PublicationConflictError, match="order-1"):
                await rt.publish("paid", {"amount": 8}, id="order-1")
            with pytest.raises(UsageError, match="the type of an event"):
                await rt.publish("paid!", 1)
            event = (await rt.read(Query(types=("event-published",))))[0]
            assert (event.stream, event.principal) == ("topic/paid", "till 3")

    play(scenario)


def test_the_same_id_is_the_same_run_from_inside_from_outside_and_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        order = Order(3, "bolts")
        async with owner(tmp_path) as inside, connect(tmp_path / "a.db") as outside:
            first = await inside.with_options(id="o").start(deliver, order)
            second = await outside.with_options(id="o").start(deliver, order)
            third = await outside.with_options(id="o").start("deliver", order={"name": "bolts", "quantity": 3})
            results = [await run.result() for run in (first, second, third)]
            started = await inside.read(Query(types=("run-started",)))
            with pytest.raises(RunConflictError, match="other input"):
                await outside.with_options(id="o").start(deliver, Order(4, "bolts"))
        assert results == ["3 bolts"] * 3
        assert len(started) == 1

    play(scenario)


def test_signals_answers_and_cancels_arrive(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            waiting = await rt.with_options(id="w").start(waits)
            news = [await waiting.signal("go", "now", id="s") for _ in range(2)]
            asking = await rt.start(asks)
            await until(rt, "question-asked", 1)
            questions = await rt.questions()
            with pytest.raises(WrongAnswerError):
                await asking.answer(questions[0].id, "perhaps")
            await asking.answer(questions[0].id, value=True, who="ada")
            stopped = await rt.start(waits)
            was_open = await stopped.cancel("not needed")
            with pytest.raises(RunCancelledError, match="not needed"):
                await stopped.result()
            results = (await waiting.result(), await asking.result())
        assert news == [True, False]
        assert was_open
        assert results == ("now", True)

    play(scenario)


def test_errors_are_the_same_as_inside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            with pytest.raises(UnknownWorkflowError, match="not found; registered are add, asks"):
                await rt.start("nothing")
            with pytest.raises(InvalidArgumentsError, match="Expected `int`"):
                await rt.start("add", "x")
            with pytest.raises(UnknownRunError, match="there is no run 'r'"):
                await rt.run("r").status()
            with pytest.raises(UnencodableError, match="nan"):
                await rt.run("r").signal("go", float("nan"))
            with pytest.raises(RunFailedError, match="ConnectionError: no route"):
                await (await rt.start(fails)).result()
            run = await rt.start(add, 1)
            await run.result()
            with pytest.raises(NotInDoubtError):
                await run.settle_done("double#1", 2)
            with pytest.raises(ToolFailedError) as failed:
                await rt.call(broken, "gone")
            await rt.force_circuit("double", "open", because="a test", who="ada")
            with pytest.raises(CircuitOpenError) as refused:
                await rt.call(double, 1)
        assert (failed.value.error_type, failed.value.reason) == ("ConnectionError", "gone")
        assert refused.value.tool == "double"
        assert isinstance(refused.value.position, int)

    play(scenario)


def test_tools_are_called_and_dispatched(tmp_path: Path) -> None:
    @tool(name="missing")
    async def missing() -> None: ...

    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            called = await rt.call(double, 21)
            told = await rt.dispatch("double", {"number": 4})
            figures = await rt.statistics()
            stats = await rt.get_stats()
            with pytest.raises(UnknownToolError):
                await rt.call(missing)
        assert (called, told) == (42, "8")
        assert figures.tools["double"].calls == 2
        assert (figures.running, figures.entry_points, figures.state_manager["version"]) == (True, 0, 0)
        assert stats["total_executions"] == 0

    play(scenario)


def test_a_model_that_gives_no_arguments_is_told_what_is_missing_at_every_door(tmp_path: Path) -> None:
    async def scenario() -> set[str]:
        async with owner(tmp_path) as rt, connect(tmp_path / "a.db") as outside:
            return {await rt.dispatch("double", None), await outside.dispatch("double", None)}

    [told] = play(scenario)

    assert "missing required field `number`" in told


def test_a_call_that_is_no_longer_waited_for_is_cancelled_and_one_of_a_lost_connection_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with owner(tmp_path, settings=Settings(drain=timedelta(0))) as rt:
            async with connect(tmp_path / "a.db") as outside:
                call = asyncio.create_task(outside.call(forever))
                await until(rt, "call-started", 1)
                call.cancel()
                await until(rt, "call-cancelled", 1)
                lost = asyncio.create_task(outside.call(forever))
                await until(rt, "call-started", 2)
            with pytest.raises(ConnectionLostError):
                await lost
            await rt.call(double, 1)
            cancelled = await rt.read(Query(types=("call-cancelled",)))
        assert len(cancelled) == 1

    play(scenario)


async def until(rt: Runtime | Connection, kind: str, count: int) -> None:
    """Return when the log has so many events of a type."""
    async for _ in rt.tail(query=Query(types=(kind,))):
        count -= 1
        if not count:
            return


def test_the_log_is_followed_without_gaps(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        found: list[int] = []
        async with connected(tmp_path) as rt:
            runs = [await rt.start(add, n) for n in range(50)]
            await asyncio.gather(*(run.result() for run in runs))
            last = (await rt.read(Query(limit=1, newest_first=True)))[0].position
            async for event in rt.tail():
                found.append(event.position)
                if event.position >= last:
                    break
        return found

    found = play(scenario)

    assert found == list(range(1, len(found) + 1))


def test_closing_the_owner_tells_every_waiting_program_and_the_next_request_finds_the_next_owner(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with owner(tmp_path):
            outside = connect(tmp_path / "a.db")
            await outside.__aenter__()
            run = await outside.with_options(id="w").start(waits)
            waiting = asyncio.create_task(run.result())
            await run.status()
        with pytest.raises(ConnectionLostError, match="the owner has closed the log"):
            await waiting
        with pytest.raises(NotOwnedError, match="no runtime has"):
            await run.status()
        async with owner(tmp_path):
            await run.signal("go", "again")
            result = await run.result()
        await outside.close()
        assert result == "again"

    play(scenario)


def test_what_is_asked_while_the_owner_closes_is_answered_or_a_lost_connection(tmp_path: Path) -> None:
    async def life(turns: int) -> set[type]:
        async with owner(tmp_path):
            outside = connect(tmp_path / "a.db")
            await outside.__aenter__()
            asked = [asyncio.create_task(outside.questions()) for _ in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
        found = await asyncio.gather(*asked, return_exceptions=True)
        await outside.close()
        return {type(one) for one in found}

    async def scenario() -> set[type]:
        return set[type]().union(*[await life(turns) for turns in range(1, 10)])

    found = play(scenario)

    assert ConnectionLostError in found
    assert found <= {ConnectionLostError, list}


def test_an_abandoned_owner_is_a_lost_connection_and_its_stale_socket_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        rt = Runtime(tmp_path / "a.db", workflows=WORKFLOWS)
        await rt.__aenter__()
        async with connect(tmp_path / "a.db") as outside:
            run = await outside.with_options(id="w").start(waits)
            waiting = asyncio.create_task(run.result())
            await run.status()
            await rt.abandon()
            with pytest.raises(ConnectionLostError, match="went away"):
                await waiting
            assert (tmp_path / "a.db.sock").exists()
            async with owner(tmp_path):
                assert (await run.status()).status in ("running", "waiting")

    play(scenario)


def test_the_socket_is_the_owners_alone_and_gone_when_it_closes(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, bool]:
        async with owner(tmp_path):
            mode = (tmp_path / "a.db.sock").stat().st_mode
        return mode, (tmp_path / "a.db.sock").exists()

    mode, is_left = play(scenario)

    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode), is_left) == (True, 0o600, False)


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_path_may_be_longer_than_a_sockets_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_proc: bool
) -> None:
    folder = tmp_path / ("f" * 100) / ("g" * 100)
    folder.mkdir(parents=True)
    if not has_proc:
        monkeypatch.setattr(address, "_PROC", tmp_path / "nothing")

    async def scenario() -> int:
        async with connected(folder) as rt:
            return await (await rt.start(add, 1, 2)).result()

    assert play(scenario) == 6
    assert [path.name for path in folder.iterdir() if path.suffix == ".sock"] == []


def test_a_long_name_has_a_short_socket_that_both_sides_find() -> None:
    path = address.socket_path(Path("/data") / ("n" * 200))

    assert path == address.socket_path(Path("/data") / ("n" * 200))
    assert path != address.socket_path(Path("/data") / ("n" * 201))
    assert path.parent == Path("/data")
    assert len(path.name) < 70


def test_without_a_socket_the_owner_says_that_it_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with owner(tmp_path, settings=Settings(socket=False)):
            with pytest.raises(OwnerUnreachableError, match=f"process {os.getpid()} .* it has no socket"):
                await connect(tmp_path / "a.db").__aenter__()

    play(scenario)


def test_a_log_in_memory_has_no_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Runtime(tmp_path / "a.db", log=MemoryDisk().open):
            assert os.listdir(tmp_path) == []  # noqa: PTH208 - a synchronous look is meant

    play(scenario)


def test_something_else_at_the_sockets_place_is_left_alone_and_the_runtime_opens(tmp_path: Path) -> None:
    (tmp_path / "a.db.sock").write_text("mine", encoding="utf-8")

    async def scenario() -> int:
        async with owner(tmp_path) as rt:
            return await (await rt.start(add, 1, 2)).result()

    assert play(scenario) == 6
    assert (tmp_path / "a.db.sock").read_text(encoding="utf-8") == "mine"


def test_a_socket_that_cannot_be_made_is_one_line_and_the_runtime_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(address, "bind", refuse)

    async def scenario() -> int:
        async with owner(tmp_path) as rt:
            return await (await rt.start(add, 1, 2)).result()

    assert play(scenario) == 6
    told = [line for line in capsys.readouterr().out.splitlines() if "other processes cannot reach" in line]
    assert len(told) == 1


@pytest.mark.parametrize(("user", "is_let_in"), [(0, True), (os.geteuid(), True), (12345, False), (None, False)])
def test_only_the_same_user_and_root_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int | None, *, is_let_in: bool
) -> None:
    async def scenario() -> bool:
        async with owner(tmp_path):
            monkeypatch.setattr(address, "peer_user", lambda _: user)
            try:
                async with connect(tmp_path / "a.db") as rt:
                    await rt.questions()
            except OwnerUnreachableError:
                return False
            return True

    assert play(scenario) is is_let_in


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()

    with ours, theirs:
        assert address.peer_user(ours) == os.geteuid()


def test_a_connection_too_many_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)

    async def scenario() -> None:
        async with connected(tmp_path) as first:
            with pytest.raises(OwnerUnreachableError, match="1 connections already"):
                await connect(tmp_path / "a.db").__aenter__()
            await first.questions()

    play(scenario)


def test_requests_over_the_bound_wait_and_all_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IN_FLIGHT", 2)

    async def scenario() -> list[int]:
        async with connected(tmp_path) as rt:
            runs = await asyncio.gather(*(rt.start(add, n) for n in range(200)))
            return await asyncio.gather(*(run.result() for run in runs))

    assert play(scenario) == [2 * n + 2 for n in range(200)]


def test_waits_over_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WAITS", 1)

    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            run = await rt.start(waits)
            first = asyncio.create_task(run.result())
            with pytest.raises(UsageError, match="1 waits are open"):
                await asyncio.gather(run.result(), run.result())
            await run.signal("go", "on")
            assert await first == "on"

    play(scenario)


def test_a_slow_reader_holds_a_bounded_part_of_the_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with owner(tmp_path) as rt:
            await rt.call(double, 1)
            slow = await raw(tmp_path)
            frames = b"".join(request(n, b'{"verb":"read","query":{}}') for n in range(1, 5_001))
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(slow, frames))
            async with connect(tmp_path / "a.db") as quick:
                for _ in range(20):
                    await quick.questions()
            (one,) = [each for each in rt._machinery._control._sessions if len(each._tasks) > 1]  # type: ignore[union-attr]
            assert len(one._tasks) <= session.IN_FLIGHT
            sending.cancel()
            await asyncio.wait([sending])
            slow.close()

    play(scenario)


async def raw(folder: Path) -> socket.socket:
    """Return a connected socket whose greeting was read."""
    connected = address.connect(folder / "a.db")
    loop = asyncio.get_running_loop()
    (length,) = struct.unpack(">I", await loop.sock_recv(connected, 4))
    await loop.sock_recv(connected, length)
    return connected


def request(number: int, body: bytes) -> bytes:
    frame = b"[%d,%s]" % (number, body)
    return struct.pack(">I", len(frame)) + frame


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"verb":"eval","code":"1"}', "does not understand"),
        (b'{"verb":"ask","stream":"run/r","command":{"type":"note"}}', "does not understand"),
        (b'{"verb":"ask","stream":"tool/r","command":{"type":"get-run"}}', "is not asked that"),
        (b'{"verb":"ask","stream":"run/r","command":{"type":"get-run"},"principal":""}', "a principal is"),
        (b'{"verb":"start","workflow":"add","input":{"a":"x"},"options":{}}', "Expected `int`"),
        (b'{"verb":"start-named","workflow":"os.system","args":[],"kwargs":{},"options":{}}', "not found"),
        (b'{"verb":"ended","run":"a b"}', "a run's id is"),
        (
            b'{"verb":"ask","stream":"run/r","command":{"type":"send-signal","name":"","value":1}}',
            "a signal's name is 1 to",
        ),
    ],
)
def test_what_is_not_on_the_list_is_refused_and_the_connection_goes_on(tmp_path: Path, body: bytes, told: str) -> None:
    async def scenario() -> None:
        async with owner(tmp_path):
            sent = await raw(tmp_path)
            replies = [await exchange(sent, request(1, body)), await exchange(sent, request(2, b'{"verb":"waiting"}'))]
            sent.close()
        assert told in replies[0]["fault"]
        assert replies[1] == {"result": [], "fault": ""}

    play(scenario)


async def exchange(sent: socket.socket, frame: bytes) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sent, frame)
    (length,) = struct.unpack(">I", await loop.sock_recv(sent, 4))
    reply = msgspec.json.decode(await loop.sock_recv(sent, length))
    fault = reply[2]
    return {"result": reply[1], "fault": "" if fault is None else fault["text"] or str(fault["data"])}


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", channel.MAX_FRAME_BYTES + 1),
        struct.pack(">I", 3) + b"abc",
        request(1, b'{"verb":"ended","run":"w"}') * 2,
        request(-1, b'{"verb":"waiting"}'),
        request(1, b"[" * 10_000 + b"]" * 10_000),
    ],
)
def test_what_is_no_frame_ends_that_connection_alone(tmp_path: Path, sent: bytes) -> None:
    async def scenario() -> bytes:
        async with connected(tmp_path) as rt:
            await rt.with_options(id="w").start(waits)
            broken_one = await raw(tmp_path)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(broken_one, sent)
            try:
                end = await loop.sock_recv(broken_one, 100)
            except ConnectionResetError:
                end = b""
            broken_one.close()
            assert (await rt.run("w").status()).status in ("running", "waiting")
        return end

    assert play(scenario) == b""


def test_an_unexpected_error_is_told_by_its_type_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Runtime) -> None:
        raise ValueError("hunter2")

    monkeypatch.setattr(Runtime, "waiting", fail)

    async def scenario() -> str:
        async with connected(tmp_path) as rt:
            with pytest.raises(PerdureError) as failed:
                await rt.waiting()
        return str(failed.value)

    told = play(scenario)

    assert "ValueError" in told
    assert "hunter2" not in told


def test_secrets_are_cut_out_before_they_are_sent_and_again_by_the_owner(tmp_path: Path) -> None:
    async def scenario() -> str:
        settings = Settings(redacted_keys=frozenset({"pin"}))
        async with owner(tmp_path, settings=settings) as rt, connect(tmp_path / "a.db") as outside:
            run = await outside.with_options(id="w").start(waits)
            assert outside.encode({"pin": 1234}, "x") == b'{"pin":"[redacted]"}'
            sent = await raw(tmp_path)
            body = b'{"type":"send-signal","name":"other","value":{"pin":1234}}'
            await exchange(sent, request(1, b'{"verb":"ask","stream":"run/w","command":%s}' % body))
            sent.close()
            await run.cancel()
            return "".join(str(event.data) for event in await rt.run("w").history())

    recorded = play(scenario)

    assert "other" in recorded
    assert "1234" not in recorded


def test_a_forked_child_holds_no_connection_and_cannot_use_one(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with owner(tmp_path) as rt, connect(tmp_path / "a.db") as outside:
            await outside.questions()
            listener = rt._machinery._control._bound.socket  # type: ignore[union-attr]
            (accepted,) = rt._machinery._control._sessions.values()  # type: ignore[union-attr]
            line = outside._line
            assert line is not None
            pid = os.fork()
            if pid == 0:
                os._exit(0 if {listener.fileno(), accepted.fileno(), line._socket.fileno()} == {-1} else 1)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            await outside.questions()
        return status

    assert play(scenario) == 0


def test_two_programs_of_one_connection_object_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as rt:
            own = os.getpid()
            monkeypatch.setattr(os, "getpid", lambda: own + 1)
            with pytest.raises(UsageError, match="a forked child has to connect itself"):
                await rt.questions()
            monkeypatch.undo()

    play(scenario)


def test_a_connection_that_is_not_open_says_what_to_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(UsageError, match="async with connect"):
            await connect(tmp_path / "a.db").questions()
        with pytest.raises(NotOwnedError):
            await connect(tmp_path / "a.db").__aenter__()

    play(scenario)


def test_a_connection_offers_what_handles_and_options_need() -> None:
    needed = {name for name in vars(Reach) if not name.startswith("_")}
    options = [inspect.signature(kind.with_options).parameters.keys() for kind in (Runtime, Connection)]

    assert {name for name in needed if not hasattr(Connection, name)} == set()
    assert {name for name in needed - {"redaction"} if not hasattr(Runtime, name)} == set()
    assert options[0] == options[1]
