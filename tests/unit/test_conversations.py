"""Conversations: runs that belong together, what they share and keep, how it stands, and who goes on after a crash."""

from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    Conversation,
    ConversationFullError,
    EntryPoint,
    Query,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    RunHandle,
    Runtime,
    Settings,
    StepFailedError,
    UnencodableError,
    UsageError,
    tool,
    workflow,
)
from perdure.actors.state import conversation as rules
from perdure.testing import MemoryDisk
from tests.support.lives import MarkedDisk
from tests.support.runs import DAY, HOUR, box_with, data, disk_until, facts, on_both_logs, play, storage

calls: list[Any] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    calls.clear()
    broken.clear()


@tool(failure_threshold=1000)
async def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise ValueError(f"{name} is broken")
    return f"{name} done"


async def odd() -> Any:
    return object()


@workflow
async def path(ctx: Context) -> list[str]:
    return [await ctx.call(work, name) for name in ("a", "b", "c")]


@workflow
async def waits(ctx: Context, name: str) -> str:
    before = await ctx.call(work, name)
    return before + await ctx.signal("go", of=str)


# Runs


@on_both_logs
def test_a_run_is_in_the_history_of_its_conversation_in_one_unit_with_its_start(kind: str, tmp_path: Any) -> None:
    async def scenario() -> None:
        async with box_with(path, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            conversation = rt.conversation("c")
            run = await conversation.start(path)
            assert await run.result() == ["a done", "b done", "c done"]

            log = await rt.read(Query(limit=1000))
            begun = next(n for n, event in enumerate(log) if event.type == "run-started")
            assert [event.type for event in log[begun : begun + 2]] == ["run-started", "conversation-run-started"]
            assert log[begun].at == log[begun + 1].at
            rt = await box.crash_and_reopen()
            assert [(one.run, one.status) for one in await rt.conversation("c").history()] == [(run.id, "completed")]

    play(scenario)


def test_starting_the_same_run_again_is_the_same_run_and_in_the_history_once() -> None:
    async def scenario() -> None:
        async with box_with(path, waits) as box:
            conversation = (await box.open()).conversation("c")
            await conversation.with_options(id="r").start(path)
            await conversation.with_options(id="r").start(path)
            with pytest.raises(RunConflictError):
                await conversation.with_options(id="r").start(waits, "x")

            assert [one.run for one in await conversation.history()] == ["r"]

    play(scenario)


def test_a_crash_between_the_units_of_a_start_leaves_both_or_neither() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with box_with(path, on=disk) as box:
            conversation = (await box.open()).conversation("c")
            await (await conversation.with_options(id="r").start(path)).result()
        for border in sorted(disk.borders):
            async with box_with(path, on=disk_until(disk, border)) as box:
                rt = await box.open()
                is_there = bool(await rt.run("r").history())
                assert [one.run for one in await rt.conversation("c").history()] == ["r"] * is_there
                await box.clock.settle()

    play(scenario)


def test_a_run_that_an_entry_point_starts_in_a_conversation_is_in_its_history() -> None:
    async def scenario() -> None:
        async with box_with(path, entry_points=[EntryPoint("api", path, "api")]) as box:
            rt = await box.open()
            run = await rt.conversation("c").trigger("api", {})
            await rt.run(run).result()

            assert [(one.run, one.workflow) for one in await rt.conversation("c").history()] == [(run, "path")]

    play(scenario)


def test_an_id_that_cannot_be_one_is_refused() -> None:
    async def scenario() -> None:
        async with box_with(path) as box:
            rt = await box.open()
            wrong: Any
            for wrong in ("", "a b", "x" * 61, "é", 7):
                with pytest.raises(UsageError):
                    rt.conversation(wrong)

    play(scenario)


def test_conversations_in_which_something_happened_are_listed() -> None:
    async def scenario() -> list[str]:
        async with box_with(path) as box:
            rt = await box.open()
            rt.conversation("nothing")
            await rt.conversation("b").start(path)
            await rt.conversation("a").keep("x", 1)
            return await rt.conversations.list()

    assert play(scenario) == ["b", "a"]


# How it stands


@pytest.mark.row("A3-77", "A3-78")
def test_after_a_crash_in_the_third_step_only_that_is_made_and_the_conversation_is_completed() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with box_with(path, on=disk) as box:
            rt = await box.open()
            run = await rt.conversation("c").with_options(id="r").start(path)
            await run.result()
            history = await run.history()
        in_c = next(e.position for e in history if e.type == "step-started" and data(e)["step"] == "work#3")
        border = min(b for b in disk.borders if b >= in_c)
        calls.clear()
        async with box_with(path, on=disk_until(disk, border)) as box:
            rt = await box.open()

            assert await rt.run("r", path).result() == ["a done", "b done", "c done"]

            assert calls == ["c"]
            completed = [data(e) for e in await rt.run("r").history() if e.type == "step-completed"]
            assert [(one["step"], one["result"]) for one in completed] == [
                ("work#1", "a done"), ("work#2", "b done"), ("work#3", "c done"),
            ]  # fmt: skip
            view = await rt.conversation("c").status()
            assert (view.status, view.is_resumable) == ("completed", False)

    play(scenario)


@pytest.mark.row("A3-77")
def test_a_crash_after_any_event_makes_each_step_again_that_had_not_ended_and_no_other() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with box_with(path, on=disk) as box:
            rt = await box.open()
            run = await rt.conversation("c").with_options(id="r").start(path)
            await run.result()
            history = await run.history()
        borders = [b for b in sorted(disk.borders) if history[0].position <= b < history[-1].position]
        for border in borders:
            ended = sum(e.type == "step-completed" and e.position <= border for e in history)
            calls.clear()
            async with box_with(path, on=disk_until(disk, border)) as box:
                rt = await box.open()
                assert await rt.run("r", path).result() == ["a done", "b done", "c done"]
                assert calls == ["a", "b", "c"][ended:]
                assert (await rt.conversation("c").status()).status == "completed"

    play(scenario)


@pytest.mark.row("A3-78")
def test_a_failed_run_that_is_resumed_leaves_a_completed_conversation() -> None:
    async def scenario() -> None:
        broken.add("c")
        async with box_with(path) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.start(path)
            await box.clock.advance(100)
            with pytest.raises(RunFailedError):
                await run.result()
            view = await conversation.status()
            assert (view.status, view.is_resumable) == ("failed", True)
            broken.clear()
            calls.clear()

            again = await conversation.resume(who="ada")

            assert again.id == run.id
            assert await again.result() == ["a done", "b done", "c done"]
            assert calls == ["c"]
            view = await conversation.status()
            assert (view.status, view.newest and view.newest.status, view.is_resumable) == (
                "completed", "completed", False,
            )  # fmt: skip
            with pytest.raises(ControlRefusedError, match="is completed"):
                await conversation.resume()

    play(scenario)


@pytest.mark.row("A3-79")
def test_a_run_that_a_crash_interrupted_is_marked_and_goes_on_by_itself() -> None:
    async def scenario() -> None:
        async with box_with(waits) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.conversation("c").with_options(id="r").start(waits, "a")
            await box.crash()
            rt = await box.open()
            await box.clock.settle()

            [resumed] = [data(e) for e in await rt.run(run.id).history() if e.type == "run-resumed"]
            assert resumed["interrupted"] is True
            await rt.run("r").signal("go", "!")
            assert await rt.run("r").result() == "a done!"
            assert (await rt.conversation("c").status()).status == "completed"

    play(scenario)


def test_a_run_that_was_stopped_in_good_order_was_not_interrupted() -> None:
    async def scenario() -> list[Any]:
        @workflow
        async def naps(ctx: Context) -> None:
            await ctx.sleep(30)

        async with box_with(naps, settings=Settings(interrupted="report")) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(naps)
            await box.clock.settle()
            rt = await box.close_and_reopen()
            await box.clock.settle()
            return [data(e)["interrupted"] for e in await rt.run("r").history() if e.type == "run-resumed"]

    assert play(scenario) == [False]


@pytest.mark.row("A3-79")
def test_one_that_is_to_be_reported_is_held_until_somebody_has_it_go_on() -> None:
    async def scenario() -> None:
        async with box_with(path, waits, settings=Settings(interrupted="report")) as box:
            rt = await box.open()
            conversation = rt.conversation("c")
            await conversation.with_options(id="r").start(path)  # its code has not run when the process dies
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            conversation = rt.conversation("c")

            view = await rt.run("r").status()
            assert (view.status, view.is_interrupted, view.paused) == ("paused", True, "the process ended while it ran")
            assert [(one.id, one.waits_on) for one in await rt.waiting()] == [("r", "resume")]
            assert (await conversation.status()).status == "interrupted"
            rt = await box.crash_and_reopen()  # it is said once, however often that happens
            await box.clock.settle()
            assert (await facts(rt, "r")).count("run-interrupted") == 1

            run = await rt.conversation("c").resume(who="ada")
            assert await run.result() == ["a done", "b done", "c done"]
            assert (await rt.conversation("c").status()).status == "completed"

    play(scenario)


@pytest.mark.row("A3-79")
def test_after_a_crash_at_any_event_it_is_held_and_ends_as_it_would_have_once_it_goes_on() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with box_with(path, on=disk) as box:
            run = await (await box.open()).with_options(id="r").start(path)
            expected = await run.result()
            history = await run.history()
        for border in [b for b in sorted(disk.borders) if history[0].position <= b < history[-1].position]:
            calls.clear()
            settings = Settings(interrupted="report")
            async with box_with(path, on=disk_until(disk, border), settings=settings) as box:
                rt = await box.open()
                await box.clock.settle()
                assert (await rt.run("r").status()).is_interrupted
                assert calls == []
                assert await rt.run("r").resume() is True
                assert await rt.run("r", path).result() == expected
                ended = sum(e.type == "step-completed" and e.position <= border for e in history)
                assert calls == ["a", "b", "c"][ended:]

    play(scenario)


def test_one_that_is_held_may_be_cancelled_and_its_deadline_counts() -> None:
    async def scenario() -> None:
        async with box_with(path, settings=Settings(interrupted="report")) as box:
            rt = await box.open()
            await rt.with_options(id="cancelled").start(path)
            await rt.with_options(id="late", deadline=HOUR).start(path)
            rt = await box.crash_and_reopen()
            await box.clock.settle()
            await rt.run("cancelled").cancel("no")
            await box.clock.advance(2 * HOUR)

            with pytest.raises(RunCancelledError):
                await rt.run("cancelled").result()
            assert (await rt.run("late").status()).error_type == "DeadlineExceededError"

    play(scenario)


def test_with_nobody_to_resume_it_the_conversation_is_interrupted() -> None:
    async def scenario() -> None:
        async with box_with(waits, path) as box:
            rt = await box.open()
            await rt.conversation("c").with_options(id="r").start(path)
            rt = await box.crash_and_reopen(resume=False)

            assert (await rt.conversation("c").status()).status == "interrupted"
            run = await rt.conversation("c").resume()
            assert await run.result() == ["a done", "b done", "c done"]

    play(scenario)


@pytest.mark.row("A3-14")
def test_a_cancelled_run_is_taken_up_by_a_new_one_at_its_last_checkpoint() -> None:
    async def scenario() -> None:
        async with box_with(waits) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.with_options(id="r").start(waits, "a")
            await box.clock.settle()
            await run.cancel("enough")
            with pytest.raises(RunCancelledError):
                await run.result()
            assert (await conversation.status()).status == "cancelled"
            calls.clear()

            again = await conversation.resume()

            assert again.id != "r"
            await again.signal("go", "!")
            assert await again.result() == "a done!"
            assert calls == []
            assert [(one.status, one.takes_up) for one in await conversation.history()] == [
                ("cancelled", None), ("completed", "r"),
            ]  # fmt: skip
            assert (await conversation.status()).status == "completed"

    play(scenario)


def test_a_run_that_was_cancelled_before_it_did_anything_is_taken_up_from_its_start() -> None:
    @workflow
    async def later(ctx: Context) -> str:
        await ctx.signal("go", of=str)
        return await ctx.call(work, "a")

    async def scenario() -> Any:
        async with box_with(later) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.start(later)
            await box.clock.settle()
            await run.cancel()
            with pytest.raises(RunCancelledError):
                await run.result()
            again = await conversation.resume()
            await again.signal("go", "!")
            return await again.result()

    assert play(scenario) == "a done"


def test_a_run_that_was_cancelled_while_it_was_paused_is_taken_up_where_it_paused() -> None:
    @workflow
    async def reviewed(ctx: Context) -> list[Any]:
        return [await ctx.call(work, "a"), await ctx.pause("review")]

    async def scenario() -> Any:
        async with box_with(reviewed) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.start(reviewed)
            await box.clock.settle()
            await run.cancel()
            await box.clock.settle()
            again = await conversation.resume()
            await box.clock.settle()
            assert (await again.status()).paused_at == "review"
            await conversation.resume("yes")
            return await again.result()

    assert play(scenario) == ["a done", "yes"]
    assert calls == ["a"]


def test_a_paused_run_is_resumed_with_an_answer_and_one_that_goes_on_takes_none() -> None:
    @workflow
    async def reviewed(ctx: Context) -> Any:
        answer = await ctx.pause("review")
        return [answer, await ctx.signal("go", of=str)]

    async def scenario() -> None:
        async with box_with(reviewed) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.start(reviewed)
            await box.clock.settle()
            assert (await conversation.status()).status == "paused"
            await conversation.resume("fine")
            await box.clock.settle()
            assert (await conversation.status()).status == "active"
            with pytest.raises(ControlRefusedError, match="it is waiting"):
                await conversation.resume("once more")
            assert (await conversation.resume()).id == run.id
            await run.signal("go", "!")
            assert await run.result() == ["fine", "!"]

    play(scenario)


def test_a_run_that_stands_still_is_resumed_although_newer_ones_have_ended() -> None:
    @workflow
    async def reviewed(ctx: Context) -> Any:
        return await ctx.pause("review")

    async def scenario() -> None:
        async with box_with(reviewed, path, waits) as box:
            conversation = (await box.open()).conversation("c")
            held = await conversation.start(reviewed)
            await box.clock.settle()
            await (await conversation.start(path)).result()
            going_on = await conversation.start(waits, "x")
            view = await conversation.status()
            assert (view.status, view.is_resumable) == ("active", True)
            await going_on.signal("go", "!")
            await going_on.result()
            view = await conversation.status()
            assert (view.status, view.is_resumable) == ("paused", True)

            run = await conversation.resume("fine")

            assert (run.id, await run.result()) == (held.id, "fine")
            view = await conversation.status()
            assert (view.status, view.is_resumable) == ("completed", False)
            with pytest.raises(ControlRefusedError, match="is completed"):
                await conversation.resume()

    play(scenario)


def test_nothing_to_resume_is_refused() -> None:
    async def scenario() -> None:
        async with box_with(path) as box:
            conversation = (await box.open()).conversation("c")
            assert (await conversation.status()).status == "active"
            with pytest.raises(ControlRefusedError, match="of conversation c cannot be resumed: there was none"):
                await conversation.resume()

    play(scenario)


def test_figures_and_times_follow_from_the_runs() -> None:
    async def scenario() -> None:
        async with box_with(path, waits) as box:
            rt = await box.open()
            conversation = rt.conversation("c")
            await (await conversation.start(path)).result()
            await box.clock.advance(60)
            open_run = await conversation.start(waits, "x")
            await box.clock.settle()

            figures = await conversation.metrics()
            assert (figures.runs, figures.completed, figures.active, figures.steps) == (2, 1, 1, 4)
            assert figures.duration.total_seconds() == 60
            view = await conversation.status()
            assert view.started_at is not None
            assert view.started_at.utcoffset() == view.started_at - view.started_at
            latest = await conversation.latest_checkpoint()
            assert latest is not None
            assert (latest.run, latest.step) == (open_run.id, "work#1")

    play(scenario)


# Several at once


@pytest.mark.row("A3-85")
def test_two_runs_of_one_conversation_have_ids_waiters_and_results_of_their_own_and_share_its_state() -> None:
    @workflow
    async def counts(ctx: Context, name: str) -> list[Any]:
        await ctx.state.update("count", lambda n: n + 1, default=0, scope="conversation")
        await ctx.state.write(f"said by {name}", name, scope="conversation")
        await ctx.state.write("mine", name)
        said = await ctx.signal("go", of=str)
        return [name, said, await ctx.state.read("mine"), await ctx.state.read("count")]

    async def scenario() -> None:
        async with box_with(counts) as box:
            rt = await box.open()
            conversation = rt.conversation("c")
            one = await conversation.with_options(id="one").start(counts, "one")
            two = await conversation.with_options(id="two").start(counts, "two")
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            one, two, conversation = rt.run("one", counts), rt.run("two", counts), rt.conversation("c")
            await box.clock.settle()

            await two.signal("go", "2")
            assert await two.result() == ["two", "2", "two", 2]
            assert (await one.status()).status == "waiting"
            assert (await conversation.status()).status == "active"
            await one.signal("go", "1")
            assert await one.result() == ["one", "1", "one", 2]

            assert await conversation.state.read("count") == 2
            assert await conversation.state.read("said by one") == "one"
            assert await rt.conversation("other").state.read("count") is None
            assert [(run.run, run.status) for run in await conversation.history()] == [
                ("one", "completed"), ("two", "completed"),
            ]  # fmt: skip

    play(scenario)


@pytest.mark.row("A3-85")
def test_one_that_fails_or_is_cancelled_takes_nothing_of_the_other_with_it() -> None:
    async def scenario() -> None:
        broken.add("bad")
        async with box_with(waits) as box:
            conversation = (await box.open()).conversation("c")
            bad = await conversation.start(waits, "bad")
            gone = await conversation.start(waits, "gone")
            good = await conversation.start(waits, "good")
            await box.clock.advance(100)
            await gone.cancel()
            with pytest.raises(RunFailedError):
                await bad.result()
            with pytest.raises(RunCancelledError):
                await gone.result()
            await good.signal("go", "!")

            assert await good.result() == "good done!"

    play(scenario)


# Artifacts


@on_both_logs
def test_values_are_kept_by_name_and_hash_and_survive_a_crash(kind: str, tmp_path: Any) -> None:
    large = {"text": "x" * 200_000}

    async def scenario() -> None:
        async with box_with(path, on=storage(kind, tmp_path)) as box:
            conversation = (await box.open()).conversation("c")
            first = await conversation.keep("report", {"n": 1}, who="ada")
            await conversation.keep("report", large, media_type="application/x-report", run="r")
            picture = await conversation.keep("picture", b"\x00\xff")
            await conversation.keep("text", "hello")
            rt = await box.crash_and_reopen()
            conversation = rt.conversation("c")

            assert await conversation.artifact("report") == large
            assert await conversation.artifact("report", sha256=first.sha256) == {"n": 1}
            assert await conversation.artifact("picture") == b"\x00\xff"
            assert await conversation.artifact("text") == "hello"
            found = {one.name: one for one in await conversation.artifacts()}
            assert (found["report"].run, found["report"].media_type) == ("r", "application/x-report")
            assert (picture.size, found["picture"]) == (2, picture)
            assert (await conversation.status()).artifacts == tuple(found.values())

    play(scenario)


def test_the_same_value_again_changes_nothing_and_a_name_can_be_taken_away() -> None:
    async def scenario() -> None:
        async with box_with(path) as box:
            rt = await box.open()
            conversation = rt.conversation("c")
            kept = await conversation.keep("x", [1, 2])
            await conversation.keep("x", [1, 2])
            assert [await conversation.drop("x"), await conversation.drop("x")] == [True, False]
            assert await conversation.artifacts() == ()
            with pytest.raises(KeyError):
                await conversation.artifact("x")
            assert await conversation.artifact("x", sha256=kept.sha256) == [1, 2]
            log = await rt.read(Query(stream_prefix="conversation/"))
            assert [event.type for event in log] == ["artifact-kept", "artifact-dropped"]

    play(scenario)


def test_what_cannot_be_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_ARTIFACTS", 1)

    async def scenario() -> None:
        async with box_with(path) as box:
            conversation = (await box.open()).conversation("c")
            await conversation.keep("x", 1)
            for value in (object(), float("nan")):
                with pytest.raises(UnencodableError):
                    await conversation.keep("x", value)
            for name in ("", "x" * 201, "a\nb"):
                with pytest.raises(UsageError):
                    await conversation.keep(name, 1)
            with pytest.raises(ConversationFullError, match="keeps 1"):
                await conversation.keep("y", 1)
            assert await conversation.artifact("x") == 1

    play(scenario)


# What cannot be recorded


@pytest.mark.row("A3-84")
def test_a_step_whose_result_cannot_be_recorded_fails_with_a_clear_error_and_the_log_is_whole() -> None:
    @workflow
    async def careful(ctx: Context) -> list[str]:
        before = await ctx.call(work, "a")
        try:
            await ctx.step(odd)
        except StepFailedError as error:
            return [before, error.error_type, error.error, await ctx.call(work, "b")]
        return []

    async def scenario() -> tuple[Any, Any]:
        async with box_with(careful) as box:
            conversation = (await box.open()).conversation("c")
            run = await conversation.with_options(id="r").start(careful)
            live = await run.result()
            rt: Runtime = await box.crash_and_reopen()
            assert (await rt.conversation("c").status()).status == "completed"
            steps = [data(e)["step"] for e in await rt.run("r").history() if e.type == "step-failed"]
            assert steps == ["odd#1"]
            return live, await rt.run("r", careful).result()

    live, read = play(scenario)

    assert live == read
    assert live[0] == "a done"
    assert live[3] == "b done"
    assert "object" in live[2]


@pytest.mark.row("A3-84")
def test_a_run_whose_own_result_cannot_be_recorded_failed_and_does_not_stay_active() -> None:
    @workflow
    async def unreadable(ctx: Context) -> Any:
        await ctx.call(work, "a")
        return {"when": object()}

    async def scenario() -> str:
        disk = MemoryDisk()
        async with box_with(unreadable, on=disk) as box:
            conversation: Conversation = (await box.open()).conversation("c")
            run = await conversation.start(unreadable)
            with pytest.raises(RunFailedError, match="UnencodableError"):
                await run.result()
            rt = await box.crash_and_reopen()
            await box.clock.advance(DAY)
            return (await rt.conversation("c").status()).status

    assert play(scenario) == "failed"
