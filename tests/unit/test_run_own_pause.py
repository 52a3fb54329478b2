"""A workflow that pauses itself: its run is paused, not over, and goes on with the answer that it is resumed with."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Choice,
    Context,
    ControlRefusedError,
    Form,
    FormField,
    QuestionNotOpenError,
    RunClosedError,
    RunHandle,
    StepFailedError,
    UnencodableError,
    UsageError,
    Workflow,
    WrongAnswerError,
    tool,
    workflow,
)
from tests.support.lives import MarkedDisk
from tests.support.runs import DAY, HOUR, Box, box_with, disk_until, events, facts, on_both_logs, play, storage

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool
async def work(name: str) -> str:
    calls.append(name)
    return name


@workflow
async def reviewed(ctx: Context) -> list[Any]:
    draft = await ctx.call(work, "draft")
    answer = await ctx.pause("review", result={"draft": draft}, text="is it good?", to="ada")
    return [draft, answer, await ctx.call(work, "publish")]


async def paused(box: Box, wf: Workflow[..., Any]) -> RunHandle[Any]:
    rt = await box.open()
    run: RunHandle[Any] = await rt.with_options(id="r").start(wf)
    await box.clock.settle()
    return run


@on_both_logs
def test_a_pause_is_no_end_and_the_answer_is_what_the_code_gets(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(reviewed, on=storage(kind, tmp_path)) as box:
            run = await paused(box, reviewed)

            view = await run.status()
            assert (view.status, view.paused_at, view.result) == ("paused", "review", '{"draft":"draft"}')
            assert not view.is_closed
            assert await facts(box.runtime, "r") == [
                "run-started", "step-started", "step-completed", "pause-reached", "run-parked",
            ]  # fmt: skip

            assert await run.resume({"ok": True}, who="ada") is True
            assert await run.result() == ["draft", {"ok": True}, "publish"]
            resumed = [e for e in await run.history() if e.type == "pause-resumed"]
            assert [(e.principal, (await events(box.runtime, "r", "pause-resumed"))[0]["by"]) for e in resumed] == [
                ("ada", "ada")
            ]

    play(scenario)

    assert calls == ["draft", "publish"]


def test_a_pause_survives_a_restart_after_every_event_and_nothing_is_made_again() -> None:
    async def scenario() -> list[list[str]]:
        disk = MarkedDisk()
        async with box_with(reviewed, on=disk) as box:
            run = await paused(box, reviewed)
            await run.resume("yes")
            expected = await run.result()
            history = await run.history()
        made: list[list[str]] = []
        for border in [each for each in sorted(disk.borders) if history[0].position <= each < history[-1].position]:
            event = [each for each in history if each.position <= border][-1]
            calls.clear()
            async with box_with(reviewed, on=disk_until(disk, border)) as again:
                rt = await again.open()
                await again.clock.settle()
                run = rt.run("r", reviewed)
                if (await run.status()).status == "paused":
                    await run.resume("yes")
                assert await run.result() == expected, event.type
            made.append([event.type, *calls])
        return made

    made = play(scenario)

    assert [one[0] for one in made] == [
        "run-started", "step-started", "step-completed", "pause-reached", "run-parked", "pause-resumed", "run-resumed",
        "step-started", "step-completed",
    ]  # fmt: skip
    assert [one[1:] for one in made] == [
        *[["draft", "publish"]] * 2,
        *[["publish"]] * 6,
        [],
    ]


def test_a_second_resume_changes_nothing_and_a_second_answer_is_refused() -> None:
    async def scenario() -> None:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            await run.pause("an operator holds it")
            await run.resume("first")
            with pytest.raises((ControlRefusedError, RunClosedError)):
                await run.resume("second")
            assert (await run.result())[1] == "first"
            with pytest.raises(RunClosedError):
                await run.resume("third")

    play(scenario)


def test_an_answer_for_a_run_that_has_not_paused_itself_is_refused_and_not_lost_in_silence() -> None:
    @workflow
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(HOUR)

    async def scenario() -> None:
        async with box_with(sleeps) as box:
            run = await paused(box, sleeps)

            with pytest.raises(ControlRefusedError, match="it is not paused"):
                await run.resume("an answer")
            assert await run.resume() is False

    play(scenario)


def test_one_that_an_operator_holds_as_well_is_let_go_first() -> None:
    async def scenario() -> None:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            await run.pause("wait for the lawyers")
            assert await run.resume() is True
            await box.clock.settle()
            assert (await run.status()).paused_at == "review"

            await run.pause("once more")
            assert await run.resume("go") is True
            assert (await run.result())[1] == "go"

    play(scenario)


def test_without_an_answer_it_goes_on_with_nothing() -> None:
    async def scenario() -> Any:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            await run.resume()
            return await run.result()

    assert play(scenario) == ["draft", None, "publish"]


def test_what_does_not_fit_the_declared_answer_is_refused_and_the_run_stays_paused() -> None:
    @workflow
    async def picky(ctx: Context) -> list[Any]:
        one: int = await ctx.pause("number", of=int)
        two: str = await ctx.pause("colour", of=Choice("red", "green"))
        three = await ctx.pause("form", of=Form(FormField("street"), FormField("floor", int, is_required=False)))
        return [one, two, three]

    async def scenario() -> Any:
        async with box_with(picky) as box:
            run = await paused(box, picky)
            answers: list[tuple[list[Any], Any]] = [
                (["one", None, 1.5], 1),
                (["blue", 1], "green"),
                ([{}, {"street": "a", "flor": 1}, {"street": "a", "floor": "b"}], {"street": "a"}),
            ]
            for wrong, right in answers:
                for each in wrong:
                    with pytest.raises(WrongAnswerError):
                        await run.resume(each)
                await run.resume(right)
                await box.clock.settle()
            return await run.result()

    assert play(scenario) == [1, "green", {"street": "a"}]


def test_several_places_are_resumed_by_their_names() -> None:
    @workflow
    async def both(ctx: Context) -> list[Any]:
        return list(await ctx.gather(ctx.pause("left"), ctx.pause("right")))

    async def scenario() -> Any:
        async with box_with(both) as box:
            run = await paused(box, both)
            with pytest.raises(ControlRefusedError, match="paused at left, right"):
                await run.resume("which?")
            await run.resume("R", at="right")
            await run.resume("L", at="left")
            return await run.result()

    assert play(scenario) == ["L", "R"]


def test_a_pause_that_nobody_ends_in_time_fails_and_is_not_resumed_later() -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        try:
            await ctx.pause("review", timeout=HOUR)
        except StepFailedError as error:
            return error.error_type
        return "resumed"

    async def scenario() -> str:
        async with box_with(patient) as box:
            run = await paused(box, patient)
            await box.clock.advance(HOUR - timedelta(seconds=1))
            assert (await run.status()).status == "paused"
            await box.clock.advance(2)
            with pytest.raises((RunClosedError, QuestionNotOpenError)):
                await run.resume("too late")
            return str(await run.result())

    assert play(scenario) == "TimeoutError"


def test_a_cancel_ends_a_pause() -> None:
    async def scenario() -> list[str]:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            await run.cancel("not wanted")
            await box.clock.settle()
            assert (await run.status()).status == "cancelled"
            return await facts(box.runtime, "r")

    assert play(scenario)[-2:] == ["question-withdrawn", "run-cancelled"]


def test_the_deadline_of_the_run_passes_while_it_is_paused() -> None:
    async def scenario() -> str:
        async with box_with(reviewed) as box:
            rt = await box.open()
            run = await rt.with_options(id="r", deadline=HOUR).start(reviewed)
            await box.clock.advance(2 * HOUR)
            return (await run.status()).error_type

    assert play(scenario) == "DeadlineExceededError"


def test_a_pause_is_an_open_question_that_can_be_answered_by_its_id() -> None:
    async def scenario() -> Any:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            [question] = await box.runtime.questions()
            assert (question.type, question.paused_at, question.text, question.to) == (
                "pause", "review", "is it good?", ("ada",),
            )  # fmt: skip
            await run.answer(question.id, "good", who="ada")
            return await run.result()

    assert play(scenario) == ["draft", "good", "publish"]


def test_while_another_branch_works_the_run_goes_on_and_is_paused_once_nothing_else_does() -> None:
    @workflow
    async def beside(ctx: Context) -> list[Any]:
        async def rest() -> str:
            await ctx.sleep(DAY)
            return await ctx.call(work, "rest")

        return list(await ctx.gather(ctx.pause("review"), rest()))

    async def scenario() -> None:
        async with box_with(beside) as box:
            run = await paused(box, beside)
            await box.clock.advance(DAY)
            assert (await run.status()).paused_at == "review"
            await run.resume(1)
            assert await run.result() == [1, "rest"]

    play(scenario)


def test_what_cannot_be_recorded_or_called_that_does_not_pause() -> None:
    @workflow
    async def odd(ctx: Context) -> list[str]:
        told: list[str] = []
        for name, result in (("", None), ("x" * 200, None), ("ok", float("nan"))):
            try:
                await ctx.pause(name, result=result)
            except (UsageError, UnencodableError) as error:
                told.append(type(error).__name__)
        return told

    async def scenario() -> Any:
        async with box_with(odd) as box:
            run = await paused(box, odd)
            return await run.result()

    assert play(scenario) == ["UsageError", "UsageError", "UnencodableError"]


def test_other_code_at_the_place_of_a_pause_is_a_mismatch() -> None:
    @workflow(name="reviewed")
    async def other(ctx: Context) -> str:
        await ctx.call(work, "draft")
        return str(await ctx.ask("is it good?", of=str))

    async def scenario() -> str:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            await box.crash()
            rt = await box.open(workflows=[other])
            await rt.run("r").resume("yes")
            await box.clock.settle()
            return (await rt.run(run.id).status()).status

    assert play(scenario) == "blocked"


def test_a_fork_takes_an_answered_pause_over_and_pauses_anew_where_it_was_open() -> None:
    async def scenario() -> None:
        async with box_with(reviewed) as box:
            run = await paused(box, reviewed)
            before = await run.fork("pause#1", id="before")
            await run.resume("first")
            await run.result()
            after = await run.fork("work#2", id="after")

            assert (await after.result())[1] == "first"
            await box.clock.settle()
            assert (await before.status()).paused_at == "review"
            await before.resume("other")
            assert (await before.result())[1] == "other"

    play(scenario)
