"""The front for programs without an event loop."""

import asyncio
import gc
import inspect
import queue
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import pytest

from perdure import (
    Agent,
    AskTimeoutError,
    BlockingRuntime,
    Context,
    ConversationView,
    EntryPoint,
    ExecutionResult,
    Goal,
    GoalOutcome,
    LogEvent,
    PlainProcess,
    Query,
    RunFailedError,
    RunHandle,
    Schedule,
    ScheduleView,
    SlotTransitionError,
    StatePermissionError,
    StoreLockedError,
    UsageError,
    WaitingRun,
    WorkflowFailedError,
    tool,
    workflow,
)
from perdure.runtime.blocking_runs import BlockingRun
from perdure.testing import MemoryDisk


@tool
async def double(number: int) -> int:
    return 2 * number


@workflow
async def told(ctx: Context, event: dict[str, Any]) -> str:
    return str(event["due"])


@workflow
async def add(ctx: Context, a: int, b: int) -> int:
    return await ctx.call(double, a) + await ctx.call(double, b)


@workflow
async def forever(ctx: Context) -> None:
    await ctx.sleep(1_000_000)


@workflow
async def hears(ctx: Context) -> int:
    return (await ctx.event("paid")).data  # type: ignore[no-any-return]


@workflow
async def broken(ctx: Context) -> None:
    raise ValueError("on purpose")


def test_runs_and_calls_block_until_they_are_done(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "x.db", workflows=[add, broken, forever]) as rt:
        assert rt.start(add, 1, 2).result() == 6
        assert rt.start_as("r", add, 3, b=4).result() == 14
        assert rt.call(double, 21) == 42
        with pytest.raises(RunFailedError, match="on purpose"):
            rt.start(broken).result()
        run = rt.start(forever)
        with pytest.raises(AskTimeoutError):
            run.result(timeout=0)
        assert run.cancel("enough")
        assert rt.run("r").history()[0].type == "run-started"
        assert rt.statistics().tools["double"].calls == 5

    with BlockingRuntime(tmp_path / "x.db", workflows=[add, forever]) as rt:
        assert rt.run("r", add).result() == 14


def test_a_workflow_is_executed_and_an_event_published_without_a_loop(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "x.db", workflows=[add, broken, hears]) as rt:
        run = rt.start(hears)

        assert rt.publish("paid", 7, id="order-1", who="till 3")
        assert not rt.publish("paid", 7, id="order-1")
        assert run.result() == 7
        assert rt.execute("add", {"a": 1, "b": 2}, id="r")["result"] == 6
        with pytest.raises(WorkflowFailedError, match="on purpose"):
            rt.execute("broken")
        assert rt.get_stats()["failed_executions"] == 0  # those of definitions


def test_a_run_can_be_asked_without_a_loop_whatever_it_can_be_asked_with_one() -> None:
    def offered(handle: Any) -> dict[str, list[str]]:
        methods = {name: one for name, one in vars(handle).items() if name[0] != "_" and callable(one)}
        return {name: list(inspect.signature(one).parameters) for name, one in methods.items()}

    blocking, whole = offered(BlockingRun), offered(RunHandle)

    simpler = {"result", "fork"}  # a timeout, the options as they are
    assert blocking.keys() == whole.keys()
    assert [name for name in whole.keys() - simpler if blocking[name] != whole[name]] == []


def test_a_trajectory_blocks_until_its_calls_are_done(tmp_path: Path) -> None:
    slots = PlainProcess(tmp_path / "slots", allow_unsandboxed=True)
    with BlockingRuntime(tmp_path / "x.db", sandbox=slots) as rt:
        work = rt.trajectory("t")

        work.write_file("a/x", "hi")
        assert work.run("cat a/x", uniq_id="first").output == "hi"
        assert work.call("bash", {"command": "exit 3"}).metadata["exit_code"] == 3
        assert work.read_file("a/x", max_bytes=1) == b"h"
        assert [entry.path for entry in work.list_files(recursive=True)] == ["a", "a/x"]
        assert work.archive("a").startswith(b"\x1f\x8b")
        with pytest.raises(SlotTransitionError, match="not in doubt"):
            work.settle("first", success=True, because="it was seen")
        assert (work.id, work.view().slot) == ("t", "slot_0")
        work.release(reset_workspace=True)
        assert work.view().slot is None


def test_every_facet_is_had_by_waiting_with_the_types_of_the_awaited_one(tmp_path: Path) -> None:
    with BlockingRuntime(
        tmp_path / "x.db", tools=[double], workflows=[add, hears], goals=[Goal(id="g")],
        agents=[Agent("greeter", lambda message: message.data["name"], capabilities=("greeting",))],
        entry_points=[EntryPoint("sums", add), EntryPoint("hourly", told, Schedule(every=timedelta(hours=1)))],
    ) as rt:  # fmt: skip
        rt.state.write("k", 1)
        assert assert_type(rt.state.update("k", lambda n: n + 1), Any) == 2
        with pytest.raises(StatePermissionError):
            rt.state.view(conversation="c").with_permissions(read=[]).read("k")
        assert not {"view", "drop", "recent_changes"} & set(dir(rt.state.with_permissions(read=[])))
        chat = rt.conversation("c")
        assert assert_type(chat.start(add, 1, 2), BlockingRun[int]).result() == 6
        assert chat.with_options(id="r", deadline=timedelta(hours=1)).start(add, 1, b=2).id == "r"
        rt.until_idle()
        assert assert_type(chat.status(), ConversationView).count == 2
        assert assert_type(rt.conversations.list(), list[str]) == ["c"]
        made = rt.goals.record_decision("g", "try", who="ada")
        assert assert_type(rt.goals.record_outcome(made, True), GoalOutcome).is_new
        assert [one.id for one in assert_type(rt.goals.list(), list[Goal])] == ["g"]
        assert rt.events.wait_for("never", timeout=0) is None
        assert assert_type(rt.entry_points.trigger_and_wait("sums", {"a": 1, "b": 1}), ExecutionResult | None)
        assert [one.entry for one in assert_type(rt.schedules.list(), list[ScheduleView])] == ["hourly"]
        assert rt.schedules.pause("hourly", who="ada")
        assert [one.name for one in rt.agents.find("greeting")] == ["greeter"]
        assert rt.sagas.start("s", 1, {"name": "ada"}, id="s").total_steps == 1
        assert rt.sagas.execute("s", {"agent": "greeter"}).completed
        assert assert_type(rt.waiting(), list[WaitingRun]) == []
        assert rt.select(["nothing"]) is None
        assert rt.dispatch("double", {"number": 2}) == "4"
        assert rt.read(Query(types=("run-started",), limit=1))[0].type == "run-started"
        assert rt.blob("0" * 64) is None
        with pytest.raises(UsageError, match="a conversation's id"):
            rt.conversation("a b")


def test_a_subscriber_and_a_reader_of_the_log_need_no_loop_of_their_own(tmp_path: Path) -> None:
    found: queue.SimpleQueue[LogEvent] = queue.SimpleQueue()
    rt = BlockingRuntime(tmp_path / "x.db")
    early = rt.subscribe(found.put, "early")
    assert rt.open().open() is rt
    try:
        late = rt.events.subscribe(found.put, "late", name="late").opened()
        rt.publish("early", 1)
        assert found.get().data == 1
        rt.publish("late", 2)
        assert found.get().data == 2
        assert [one.id for one in rt.events.list()] == [early.id, "late"]
        assert (late.unsubscribe(), rt.events.unsubscribe(late), rt.events.unsubscribe(early.id)) == (True, False, True)
        assert not early.is_active
        tail = rt.tail(query=Query(types=("event-published",)))
        assert [next(tail).stream, next(tail).stream] == ["topic/early", "topic/late"]
        tail.close()
    finally:
        rt.close()
        rt.close()
    assert not rt.is_running


def test_the_code_is_checked_before_it_is_opened(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "x.db", workflows=[forever]) as rt:
        rt.start_as("r", forever)

    assert [one.run for one in BlockingRuntime(tmp_path / "x.db", workflows=[forever]).check()] == ["r"]


def test_it_is_refused_where_an_event_loop_runs_and_outside_of_its_block() -> None:
    front = BlockingRuntime("memory", log=MemoryDisk().open, workflows=[add])

    async def on_a_loop() -> None:
        with pytest.raises(UsageError, match="async with Runtime"):
            front.__enter__()

    asyncio.run(on_a_loop())
    with pytest.raises(UsageError, match="with BlockingRuntime"):
        front.start(add, 1, 2)
    with front as rt:
        assert rt.start(add, 1, 2).result() == 6


def test_a_front_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "x.db"), pytest.raises(StoreLockedError), BlockingRuntime(tmp_path / "x.db"):
        pytest.fail("two owners")


def test_a_front_that_is_never_opened_leaves_nothing_behind() -> None:
    def make() -> None:
        BlockingRuntime("memory", log=MemoryDisk().open)

    make()

    gc.collect()  # an event loop that nobody closed would complain here


def test_an_error_in_the_block_closes_the_log(tmp_path: Path) -> None:
    def fail() -> None:
        with BlockingRuntime(tmp_path / "x.db") as rt:
            rt.call(double, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with BlockingRuntime(tmp_path / "x.db") as rt:
        found: Any = rt.call(double, 2)
    assert found == 4
