"""What runs share, and the parts of a runtime, asked for over its socket: names, types and errors as inside."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import encode

from perdure import (
    MISSING,
    Agent,
    ArtifactError,
    Connection,
    ConnectionLostError,
    Context,
    ControlRefusedError,
    Criterion,
    EntryPoint,
    Goal,
    InvalidDefinitionError,
    LogEvent,
    NotOwnedError,
    PlainProcess,
    Query,
    Retry,
    Runtime,
    SagaClosedError,
    Schedule,
    SlotTransitionError,
    StateConflictError,
    StatePermissionError,
    Step,
    UnencodableError,
    UnknownAgentError,
    UnknownCriterionError,
    UnknownDeadLetterError,
    UnknownGoalError,
    UnknownRunError,
    UsageError,
    connect,
    tool,
    workflow,
)
from tests.support.runs import play

HOURLY = Schedule(every=timedelta(hours=1))
SENT = Goal(id="sent", criteria=(Criterion(id="c", target=1),))


@tool(capabilities=("arithmetic",))
async def double(number: int) -> int:
    return 2 * number


@workflow
async def note(ctx: Context, text: str) -> int:
    await ctx.state.write("own", text)
    turns: int = await ctx.state.update("turns", lambda count: count + 1, default=0, scope="conversation")
    return turns


@workflow
async def fails_first(ctx: Context) -> int:
    return await ctx.call(flaky)


@workflow
async def waits(ctx: Context) -> str:
    await ctx.state.write("own", 1)
    return await ctx.signal("go", of=str)


@tool
async def flaky() -> int:
    raise ConnectionError("not yet")


@workflow
async def ticks(ctx: Context, event: dict[str, Any]) -> str:
    return str(event["due"])


greeter = Agent("greeter", lambda message: {"hello": message.data["name"]}, capabilities=("greeting",))


def runtime(folder: Path, **options: Any) -> Runtime:
    return Runtime(
        folder / "a.db", tools=[double, flaky], workflows=[note, fails_first, waits], agents=[greeter], goals=[SENT],
        entry_points=[EntryPoint("notes", note), EntryPoint("often", ticks, HOURLY)], **options,
    )  # fmt: skip


@asynccontextmanager
async def both(folder: Path, **options: Any) -> AsyncGenerator[tuple[Runtime, Connection]]:
    async with runtime(folder, **options) as inside, connect(folder / "a.db") as outside:
        yield inside, outside


# Shared state


def test_state_is_read_and_written_from_outside_as_from_inside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            await outside.state.write_batch({"a": 1, "b": [2], "none": None})

            assert await inside.state.read_all() == {"a": 1, "b": [2], "none": None}
            assert await outside.state.read_all() == {"a": 1, "b": [2], "none": None}
            assert (await outside.state.read("a"), await outside.state.read("x", 7)) == (1, 7)
            assert (await outside.state.has("none"), await outside.state.has("x")) == (True, False)
            assert await outside.state.update("a", lambda n: n + 1) == 2
            assert await outside.state.update("new", lambda n: n + 1, default=9) == 10
            assert await outside.state.compare_and_set("a", 2, MISSING)
            assert not await outside.state.compare_and_set("a", 2, 3)
            assert await outside.state.compare_and_set("a", MISSING, 3)
            assert await outside.state.delete("b")
            assert not await outside.state.delete("b")
            assert await inside.state.read_all() == {"a": 3, "none": None, "new": 10}
            assert await outside.state.statistics() == await inside.state.statistics()
            assert await outside.state.changes(2) == await inside.state.changes(2)
            newest = (await outside.state.recent_changes(1))[0]
            assert (newest.key, newest.old, newest.new) == ("b", [2], MISSING)

    play(scenario)


def test_no_update_from_any_side_is_lost(tmp_path: Path) -> None:
    async def scenario() -> Any:
        async with both(tmp_path) as (inside, first), connect(tmp_path / "a.db") as second:
            views = [one.state for one in (inside, first, second)]
            await asyncio.gather(*(view.update("n", lambda n: n + 1, default=0) for view in views * 10))
            return await first.state.read("n")

    assert play(scenario) == 30


def test_a_view_from_outside_sees_what_a_run_sees_and_writes_in_somebodys_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            run = await outside.with_options(id="w", conversation="c").start("waits")
            await inside.until_idle()
            view = outside.state.view(run="w", who="ada")

            await view.write("here", 1)
            await view.write("far", 2, "conversation")
            assert await view.read_all() == {"own": 1, "here": 1, "far": 2}
            assert await outside.state.view(conversation="c").read_all() == {"far": 2}
            change = (await view.changes(1))[0]
            assert (change.key, change.place, change.who) == ("far", "conversation/c", "ada")
            assert await outside.state.drop(conversation="c", who="ada") == 1
            await run.cancel()

    play(scenario)


def test_a_synchronized_view_from_outside_refuses_what_somebody_else_has_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            await inside.state.write_batch({"k": 1, "other": 1})
            view = outside.state.view(isolation="synchronized")
            assert await view.read_all() == {"k": 1, "other": 1}

            await view.write("k", 2)
            await view.write("k", 3)
            await inside.state.write("other", 2)
            await inside.state.write("new", 2)
            for key in ("other", "new"):
                with pytest.raises(StateConflictError, match=key):
                    await view.write(key, 9)
            await view.read("other")
            await view.write("other", 9)
            assert await inside.state.read_all() == {"k": 3, "other": 9, "new": 2}

    play(scenario)


def test_what_state_refuses_inside_it_refuses_from_outside_with_the_same_words(tmp_path: Path) -> None:
    async def raised(call: Any) -> tuple[type, str]:
        with pytest.raises((UsageError, StatePermissionError, UnencodableError, UnknownRunError, TypeError)) as error:
            await call()
        return error.type, str(error.value).partition("State.")[2] or str(error.value)

    async def scenario() -> None:
        async with both(tmp_path) as doors:
            calls = [
                lambda state: state.write("", 1),
                lambda state: state.write("k", float("nan")),
                lambda state: state.write("k", 1, "nowhere"),
                lambda state: state.write("k", 1, "conversation"),
                lambda state: state.changes(0),
                lambda state: state.recent_changes(1001),
                lambda state: state.drop(),
                lambda state: state.drop(stream="s", who=""),
                lambda state: state.view(run="none").read("k"),
                lambda state: state.with_permissions(read=["k"]).read("other"),
                lambda state: state.with_permissions(write=[]).update("k", str),
                lambda state: state.update("k", lambda _: object()),
                lambda state: state.update("k", asyncio.sleep),
            ]
            for call in calls:
                inside, outside = [await raised(lambda door=door, call=call: call(door.state)) for door in doors]
                assert inside == outside
            for door in doors:
                with pytest.raises(UsageError, match="isolation is one of"):
                    door.state.view(isolation="none")  # type: ignore[arg-type]

    play(scenario)


def test_permissions_hold_at_the_owner_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            await inside.state.write_batch({"open": 1, "closed": 2})

            narrow = outside.state.with_permissions(read=["open"])

            assert await narrow.read_all() == {"open": 1}
            assert [one.key for one in await narrow.changes()] == ["open"]
            assert not {"view", "drop", "recent_changes", "statistics"} & set(dir(narrow))

    play(scenario)


def test_secrets_do_not_reach_the_state_from_outside(tmp_path: Path) -> None:
    async def scenario() -> Any:
        async with both(tmp_path) as (inside, outside):
            await outside.state.write_batch({"token": "hunter2", "deep": {"password": "hunter2"}})
            assert await outside.state.compare_and_set("token", "anything", "hunter3")
            await outside.state.update("token", lambda held: held + "!")
            return [await inside.state.read_all(), [str(one.data) for one in await inside.read(Query())]]

    values, events = play(scenario)

    assert values == {"token": "[redacted]", "deep": {"password": "[redacted]"}}
    assert not [one for one in events if "hunter" in one]


# Conversations


def test_a_conversation_is_led_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            chat = outside.conversation("chat-1")
            assert await (await chat.start("note", "hello")).result() == 1
            assert await (await chat.with_options(id="two").start(note, "again")).result() == 2
            await outside.entry_points.wait("notes", await chat.trigger("notes", {"text": "third"}))

            assert await outside.conversations.list() == ["chat-1"]
            assert [one.status for one in await chat.history()] == ["completed"] * 3
            assert await chat.status() == await inside.conversation("chat-1").status()
            assert await chat.metrics() == await inside.conversation("chat-1").metrics()
            assert await chat.latest_checkpoint() == await inside.conversation("chat-1").latest_checkpoint()
            assert await chat.state.read("turns") == 3
            kept = await chat.keep("report", {"lines": 2}, who="ada")
            large = await chat.keep("large", b"\x00" * 100_000)
            assert await chat.artifact("report") == {"lines": 2}
            assert await chat.artifact("large", sha256=large.sha256) == b"\x00" * 100_000
            assert set(await inside.conversation("chat-1").artifacts()) == {kept, large}
            assert (await chat.drop("large"), await chat.drop("large")) == (True, False)

    play(scenario)


def test_a_conversation_that_failed_is_resumed_from_outside_and_one_that_did_not_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (_, outside):
            chat = outside.conversation("c")
            with pytest.raises(ControlRefusedError, match="there was none yet"):
                await chat.resume()
            run = await chat.start("fails_first")
            await outside.until_idle()
            assert (await chat.status()).status == "failed"
            assert (await chat.resume(who="ada")).id == run.id
            with pytest.raises(UsageError, match="a conversation's id is"):
                outside.conversation("a b")
            with pytest.raises(UsageError, match="an artifact's name is"):
                await chat.keep("", 1)
            with pytest.raises(KeyError):
                await chat.artifact("nothing")

    play(scenario)


# Goals


def test_a_goal_is_pursued_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            made = await outside.goals.record_decision("sent", "send it", criteria=("c",), chosen={"way": 1}, who="ada")
            outcome = await outside.goals.record_outcome(made, True, result=[1], summary="done")

            assert outcome.is_new
            assert not (await outside.goals.record_outcome(made.id, False)).is_new
            assert encode(await outside.goals.list()) == encode(await inside.goals.list())
            assert await outside.goals.statistics() == await inside.goals.statistics()
            assert await outside.get_goal_progress() == await inside.get_goal_progress()
            with pytest.raises(UnknownGoalError):
                await outside.goals.record_decision("none", "send it")
            with pytest.raises(UnknownCriterionError):
                await outside.goals.record_decision("sent", "send it", criteria=["x"])
            with pytest.raises(UsageError, match="list"):
                await outside.goals.record_decision("sent", "send it", criteria="c")
            with pytest.raises(UsageError, match="is no decision"):
                await outside.goals.record_outcome("x", True)
            with pytest.raises(UsageError):
                await outside.goals.record_violation("sent", "x")
            with pytest.raises(UsageError, match="a principal is"):
                await outside.goals.set_status("sent", "suspended", who="")
            with pytest.raises(UnencodableError, match="nan"):
                await outside.goals.record_decision("sent", "send it", chosen=float("nan"))

    play(scenario)


# Events


def test_events_are_waited_for_and_looked_back_at_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            waiting = asyncio.create_task(outside.events.wait_for("paid", where={"if": "amount", "gt": 5}))
            assert await outside.events.wait_for("paid", timeout=0) is None
            await outside.publish("paid", {"amount": 1})
            await outside.publish("paid", {"amount": 7}, source="till")
            found = await waiting
            assert found is not None
            assert (found.data, found.source) == ({"amount": 7}, "till")
            assert await outside.events.wait_for({"paid"}, after="start", timeout=0) == (
                await inside.events.wait_for({"paid"}, after="start", timeout=0)
            )
            assert await outside.events.history("paid") == list(await inside.events.history("paid"))
            assert await outside.events.statistics() == inside.events.statistics()
            with pytest.raises(UsageError):
                await outside.events.wait_for("paid", after="soon")  # type: ignore[arg-type]

    play(scenario)


def test_dead_letters_are_listed_and_driven_again_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        is_away, handled = True, asyncio.Event()

        async def handle(event: LogEvent) -> None:
            if is_away:
                raise ConnectionError("away")
            handled.set()

        async with both(tmp_path) as (inside, outside):
            await inside.subscribe(handle, "paid", name="books", retry=Retry()).opened()
            with pytest.raises(UnknownDeadLetterError):
                await outside.events.redrive("books", 1)
            await outside.publish("paid", 1)
            await anext(outside.tail(query=Query(types=("event-dead-lettered",))))
            (letter,) = (await outside.events.dead_letters())["books"]
            assert (letter.event, letter.error) == ("paid", "away")
            is_away = False
            assert await outside.events.redrive("books", letter.position, who="ada")
            await handled.wait()
            assert await outside.events.forget("books")
            assert not await outside.events.forget("books")

    play(scenario)


# Agents, tools, workflows, entry points


def test_agents_tools_and_workflows_are_found_from_outside_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            chosen = await inside.select(["arithmetic"])
            assert chosen is not None
            name = await outside.select(["arithmetic"])
            assert name == chosen.name
            assert await outside.dispatch(name, {"number": 4}) == "8"
            assert await outside.select({"flying"}) is None
            assert await outside.tools.definitions([name]) == inside.tools.definitions([name])
            assert await outside.tools.mcp_definitions() == inside.tools.mcp_definitions()
            assert await outside.workflows.list() == inside.workflows.list()
            assert await outside.agents.select_best(["greeting"]) == "greeter"
            assert await outside.agents.find("greeting") == inside.agents.find("greeting")
            assert await outside.agents.discover() == inside.agents.discover()
            assert await outside.agents.stats() == inside.agents.stats()
            with pytest.raises(UnknownAgentError):
                await outside.agents.load("nobody")
            with pytest.raises(UsageError, match="a list"):
                await outside.agents.select_best("greeting")

    play(scenario)


def test_entry_points_are_listed_from_outside_with_the_names_of_their_workflows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            listed = await outside.entry_points.list()
            assert [(one.id, one.workflow) for one in listed] == [("notes", "note"), ("often", "ticks")]
            assert [one.wired for one in listed] == [one.wired for one in inside.entry_points.list()]
            assert await outside.entry_points.get("none") is None
            assert await outside.webhooks.statistics() == inside.webhooks.statistics()

    play(scenario)


# Sagas


def test_a_saga_is_driven_from_outside_and_the_owner_checks_its_steps(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (inside, outside):
            saga = await outside.sagas.start("greet", 1, {"name": "ada"}, id="s")
            with pytest.raises(InvalidDefinitionError, match="nobody") as faulty:
                await outside.sagas.execute("s", {"agent": "nobody", "service": "process"})
            with pytest.raises(InvalidDefinitionError) as here:
                await inside.sagas.execute("s", {"agent": "nobody", "service": "process"})
            assert (str(faulty.value), faulty.value.faults) == (str(here.value), here.value.faults)
            done = await outside.sagas.execute(saga.saga_id, Step(id="hello", agent="greeter"))
            assert (done.completed, done.current_step) == (True, 1)
            assert await outside.sagas.state("s") == await inside.sagas.state("s")
            with pytest.raises(SagaClosedError):
                await outside.sagas.execute("s", {"agent": "greeter"})

    play(scenario)


# Trajectories


def test_a_trajectory_is_worked_on_from_outside(tmp_path: Path) -> None:
    async def scenario() -> None:
        slots = PlainProcess(tmp_path / "slots", allow_unsandboxed=True)
        async with both(tmp_path, sandbox=slots) as (inside, outside):
            work = outside.trajectory("t")
            await work.write_file("a/x", "hi")
            assert (await work.run("cat a/x", uniq_id="first")).output == "hi"
            again = await inside.trajectory("t").run("cat a/x", uniq_id="first")
            assert (await work.run("cat a/x", uniq_id="first")) == again
            assert await work.read_file("a/x", max_bytes=1) == b"h"
            assert [one.path for one in await work.list_files(recursive=True)] == ["a", "a/x"]
            assert (await work.archive("a")).startswith(b"\x1f\x8b")
            assert await work.view() == await inside.trajectory("t").view()
            found = await outside.executor.find("first")
            assert found is not None
            assert found.output == "hi"
            with pytest.raises(ArtifactError):
                await work.read_file("nothing")
            with pytest.raises(SlotTransitionError, match="not in doubt"):
                await work.settle("first", success=True, because="seen")
            await work.release(reset_workspace=True)
            assert (await work.view()).slot is None

    play(scenario)


def test_without_slots_a_trajectory_from_outside_says_what_to_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (_, outside):
            with pytest.raises(UsageError, match="this runtime has no slots"):
                await outside.trajectory("t").run("true")

    play(scenario)


# The owner goes


def test_every_facet_is_told_when_the_owner_goes_and_finds_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        calls: list[Callable[[Connection], Awaitable[object]]] = [
            lambda rt: rt.state.read("k"),
            lambda rt: rt.conversation("c").status(),
            lambda rt: rt.conversations.list(),
            lambda rt: rt.goals.list(),
            lambda rt: rt.events.history(),
            lambda rt: rt.agents.stats(),
            lambda rt: rt.select(["x"]),
            lambda rt: rt.sagas.start("s", 1),
            lambda rt: rt.entry_points.list(),
        ]
        inside = runtime(tmp_path)
        await inside.__aenter__()
        outside = connect(tmp_path / "a.db")
        await outside.__aenter__()
        waiting = asyncio.create_task(outside.events.wait_for("never"))
        await outside.questions()  # the wait has arrived
        await inside.abandon()
        with pytest.raises(ConnectionLostError):
            await waiting
        for call in calls:
            with pytest.raises(NotOwnedError):
                await call(outside)
        async with runtime(tmp_path):
            for call in calls:
                await call(outside)
        await outside.close()

    play(scenario)
