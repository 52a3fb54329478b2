"""A run that asks people: bound to its question, checked where it is given, answered once."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from structlog.testing import capture_logs

from perdure import (
    BlockingRuntime,
    Context,
    LogReader,
    QuestionNotOpenError,
    RunBlockedError,
    RunClosedError,
    RunFailedError,
    Settings,
    StepFailedError,
    UsageError,
    Workflow,
    WrongAnswerError,
    workflow,
)
from tests.support.runs import DAY, HOUR, Box, box_with, events, facts, on_both_logs, play, storage

calls: list[str] = []


class Change(msgspec.Struct, frozen=True):
    amount: int
    reason: Literal["lost", "late"]


async def publish(what: str) -> str:
    calls.append(what)
    return what


@workflow
async def release(ctx: Context, what: str) -> str:
    await ctx.step(publish, f"draft of {what}")
    if not await ctx.ask(f"publish {what}?", of=bool, to="ada"):
        return "kept back"
    return await ctx.step(publish, what)


@workflow
async def urgent(ctx: Context) -> str:
    try:
        return await ctx.ask("which?", of=str, choices=["a", "b"], timeout=DAY)
    except StepFailedError as error:
        return f"{error.error_type}: {error.error}"


@on_both_logs
def test_an_answer_moves_the_run_that_asked_and_nothing_before_it_runs_again(kind: str, tmp_path: Path) -> None:
    async def scenario() -> str:
        calls.clear()
        async with box_with(release, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            for name in ("one", "two"):
                await rt.with_options(id=name).start(release, name)
            await rt.until_idle()
            first, second = await rt.questions()
            assert (first.id, first.run, first.text, first.to) == ("one:ask#1", "one", "publish one?", ("ada",))
            assert (first.schema, first.choices, first.until) == ({"type": "boolean"}, None, None)
            assert [(one.wake_at, one.waits_on) for one in await rt.waiting()] == [(None, "answer")] * 2

            rt = await box.crash_and_reopen()
            await rt.run("two").answer(second.id, True, who="eve")
            result = await rt.run("two", release).result()

            assert [question.id for question in await rt.questions()] == [first.id]
            assert "run-resumed" not in await facts(rt, "one")
            (answered,) = [e for e in await rt.run("two").history() if e.type == "question-answered"]
            assert answered.principal == "eve"
            assert calls == ["draft of one", "draft of two", "two"]
            return result

    assert play(scenario) == "two"


def test_thirty_days_of_waiting_hold_no_memory() -> None:
    async def scenario() -> None:
        # Nobody looks for idle actors: that would be most of what happens in 30 days.
        async with box_with(release, settings=Settings(idle_after=60 * DAY)) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(release, "x")
            await box.clock.advance(30 * DAY)
            figures = await rt.statistics()
            assert (figures.runs_in_memory, figures.actors_in_memory) == (0, 1)  # the runtime's own actor
            assert (await run.status()).questions == ("r:ask#1",)
            await run.answer("r:ask#1", value=False)
            assert await run.result() == "kept back"

    play(scenario)


def test_a_wrong_answer_is_refused_and_writes_nothing() -> None:
    @workflow
    async def wf(ctx: Context) -> Any:
        return await ctx.ask("what?", of=Change)

    wrong = [None, 5, {}, {"amount": "5", "reason": "lost"}, {"amount": 5, "reason": "stolen"}, {"amount": True}]

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            await rt.until_idle()
            before = await facts(rt, "r")
            for value in wrong:
                with pytest.raises(WrongAnswerError, match="that does not answer 'r:ask#1': "):
                    await run.answer("r:ask#1", value)
            assert await facts(rt, "r") == before
            await run.answer("r:ask#1", {"amount": 5, "reason": "lost"})
            return await run.result()

    assert play(scenario) == {"amount": 5, "reason": "lost"}


def test_a_choice_is_one_of_those_given_and_true_is_not_one() -> None:
    @workflow
    async def wf(ctx: Context) -> int:
        return await ctx.ask("how many?", of=int, choices=[1, 2])

    async def scenario() -> int:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.start(wf)
            await rt.until_idle()
            (question,) = await rt.questions()
            assert question.choices == [1, 2]
            for value in (3, True, "1"):
                with pytest.raises(WrongAnswerError, match=r"none of \[1,2\]"):
                    await run.answer(question.id, value)
            await run.answer(question.id, 2)
            return await run.result()

    assert play(scenario) == 2


def test_a_question_is_answered_once_and_only_by_its_id() -> None:
    async def scenario() -> None:
        async with box_with(release) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(release, "x")
            await box.clock.settle()
            with pytest.raises(QuestionNotOpenError):
                await run.answer("r:ask#2", value=True)
            first = rt.run("r").answer("r:ask#1", value=True)
            second = rt.run("r").answer("r:ask#1", value=False)
            await first
            with pytest.raises((QuestionNotOpenError, RunClosedError)):
                await second
            assert await run.result() == "x"
            assert len(await events(rt, "r", "question-answered")) == 1

    play(scenario)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_question_expires_as_a_fact_of_its_own_and_takes_no_answer_then(crashes: bool) -> None:
    async def scenario() -> str:
        async with box_with(urgent) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(urgent)
            await box.clock.advance(HOUR)
            if crashes:
                rt = await box.crash_and_reopen()
            (question,) = await rt.questions()
            assert question.until == question.asked_at + DAY // timedelta(microseconds=1)
            await box.clock.advance(DAY)
            assert await rt.questions() == []
            with pytest.raises(RunClosedError):
                await rt.run("r").answer(question.id, "a")
            assert len(await events(rt, "r", "question-expired")) == 1
            return await rt.run("r", urgent).result()

    assert play(scenario) == "TimeoutError: nobody answered in time: which?"


def test_an_answer_after_the_time_is_refused_even_before_the_run_takes_notice() -> None:
    async def scenario() -> None:
        async with box_with(urgent) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(urgent)
            await box.clock.settle()
            await box.crash()
            await box.clock.advance(2 * DAY)
            rt = await box.open(resume=False)
            assert await rt.questions() == []
            with pytest.raises(QuestionNotOpenError):
                await rt.run("r").answer("r:ask#1", "a")

    play(scenario)


@pytest.mark.parametrize("asleep", [False, True])
def test_a_cancel_withdraws_the_question(asleep: bool) -> None:
    async def scenario() -> None:
        async with box_with(urgent) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(urgent)
            if asleep:
                await rt.until_idle()
            await run.cancel("enough")
            await box.clock.settle()
            assert (await run.status()).status == "cancelled"
            assert await rt.questions() == []
            assert (await facts(rt, "r"))[-2:] == ["question-withdrawn", "run-cancelled"]

    play(scenario)


def test_branches_ask_at_the_same_time_and_are_answered_in_any_order_over_restarts() -> None:
    @workflow
    async def wf(ctx: Context) -> list[str]:
        return await ctx.map(lambda who: ctx.ask(f"{who}?", of=str, to=[who, "boss"]), ["ada", "eve", "bob"])

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            questions = await rt.questions()
            assert [q.to for q in questions] == [("ada", "boss"), ("eve", "boss"), ("bob", "boss")]
            for question in reversed(questions):
                await rt.run("r").answer(question.id, f"yes, {question.text}")
                rt = await box.crash_and_reopen()
                await box.clock.settle()
            return await rt.run("r").result()

    assert play(scenario) == ["yes, ada?", "yes, eve?", "yes, bob?"]


def test_a_question_that_reads_otherwise_does_not_fit_the_recording_and_is_withdrawn_with_the_run() -> None:
    async def before(ctx: Context) -> None:
        await ctx.ask("publish?", of=bool)

    async def after(ctx: Context) -> None:
        await ctx.ask("delete?", of=bool)

    async def scenario() -> None:
        first = Workflow(before, "wf")
        async with box_with(first) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(first)
            await rt.until_idle()
            disk = box.storage
            await box.close()
        async with Box(disk, box.clock, workflows=[Workflow(after, "wf")]) as again:
            rt = await again.open()
            await rt.run("r").answer("r:ask#1", value=True)
            with pytest.raises(RunBlockedError, match="with other arguments"):
                await rt.run("r").result()

    play(scenario)


def test_a_run_that_is_blocked_and_cancelled_asks_nobody_any_more() -> None:
    async def before(ctx: Context) -> None:
        await ctx.ask("publish?", of=bool)

    async def after(ctx: Context) -> None:
        await ctx.sleep(5)

    async def scenario() -> None:
        first = Workflow(before, "wf")
        async with box_with(first) as box:
            rt = await box.open()
            await rt.with_options(id="r", deadline=HOUR).start(first)
            await rt.until_idle()
            await box.close()
        async with Box(box.storage, box.clock, workflows=[Workflow(after, "wf")]) as again:
            rt = await again.open()
            await again.clock.advance(HOUR)
            assert (await rt.run("r").status()).status == "blocked"
            assert len(await rt.questions()) == 1
            await rt.run("r").cancel()
            assert await rt.questions() == []

    play(scenario)


def test_what_cannot_be_asked_fails_the_run_with_the_reason() -> None:
    @workflow
    async def wf(ctx: Context, kind: str) -> None:
        match kind:
            case "choices":
                await ctx.ask("?", of=int, choices=[])
            case "long":
                await ctx.ask("?" * 40_000, of=int)
            case "type":
                await ctx.ask("?", of=Context)
            case _:
                await ctx.ask("?", of=int, timeout=timedelta(seconds=-1))

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            for kind in ("choices", "long", "type", "timeout"):
                with pytest.raises(RunFailedError, match="UsageError"):
                    await (await rt.start(wf, kind)).result()
            with pytest.raises(UsageError, match="principal"):
                await rt.run("r").answer("r:ask#1", 1, who="")

    play(scenario)


def test_a_program_without_a_loop_answers_too(tmp_path: Path) -> None:
    with BlockingRuntime(tmp_path / "a.db", workflows=[release]) as rt:
        run = rt.start_as("r", release, "x")
        while not rt.questions():
            pass
        run.answer(rt.questions()[0].id, value=True, who="ada")

        assert run.result(30) == "x"

    with LogReader.open(tmp_path / "a.db") as reader:
        (row,) = list(reader.sql("SELECT status FROM runs").rows)
    assert row == ("completed",)


def test_an_answer_to_a_run_whose_code_is_not_here_is_kept_and_told_in_one_line() -> None:
    @workflow
    async def asking(ctx: Context) -> str:
        return await ctx.ask("which?", of=str)

    @workflow
    async def other(ctx: Context) -> None: ...

    async def scenario() -> tuple[list[set[str]], Any]:
        async with box_with(asking) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(asking)
            await rt.until_idle()
            await box.close_and_reopen(workflows=[other])
            with capture_logs() as logged:
                await box.runtime.run("r").answer("r:ask#1", "this")
                await box.runtime.until_idle()
            await box.close_and_reopen(workflows=[asking])
            told = [set(line) for line in logged if line["log_level"] in {"warning", "error"}]
            return told, await box.runtime.run("r").result()

    assert play(scenario) == ([{"event", "error", "log_level"}], "this")
