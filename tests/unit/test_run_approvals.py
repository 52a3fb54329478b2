"""Calls that people approve, and questions to several people: bound to what was shown, each person once."""

from typing import Any

import pytest

from perdure import (
    Context,
    ControlRefusedError,
    Query,
    QuestionNotOpenError,
    StepFailedError,
    UsageError,
    WrongAnswerError,
    tool,
    workflow,
)
from perdure.testing import MemoryDisk
from tests.properties.test_crash_points import crashes
from tests.support.runs import DAY, Box, box_with, data, events, play

calls: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@tool(effect="irreversible", failure_threshold=1000)
async def transfer(to: str, amount: int) -> str:
    calls.append((to, amount))
    return f"{amount} to {to}"


@workflow
async def payment(ctx: Context, several: int) -> Any:
    approval = await ctx.approval(to="finance", timeout=DAY, several=several).of(transfer, "ada", amount=100)
    if not approval.is_approved:
        return [approval.outcome, list(approval.by), approval.reason]
    return [await ctx.call_approved(approval), list(approval.by), approval.is_edited]


@workflow
async def poll(ctx: Context) -> Any:
    try:
        return await ctx.ask("which?", of=str, choices=["a", "b"], several=2, timeout=DAY)
    except StepFailedError as error:
        return error.error_type


QUESTION = "r:approve#1"


async def paid(rt: Any, several: int = 1) -> Any:
    run = await rt.with_options(id="r").start(payment, several)
    await rt.until_idle()
    return run


def test_a_call_is_made_once_it_is_approved_and_the_log_says_by_whom() -> None:
    async def scenario() -> tuple[Any, list[Any], Any]:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt)
            (asked,) = await rt.questions()
            assert (asked.tool, asked.arguments, asked.to) == ("transfer", {"to": "ada", "amount": 100}, ("finance",))
            assert calls == []
            await run.approve(asked.id, who="eve")
            result = await run.result()
            (approved,) = [e for e in await run.history() if e.type == "call-approved"]
            return result, await rt.questions(), (approved.principal, data(approved)["by"])

    assert play(scenario) == (["100 to ada", ["eve"], False], [], ("eve", "eve"))


def test_an_approver_may_change_the_arguments_and_the_call_uses_those() -> None:
    async def scenario() -> tuple[Any, Any]:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt)
            with pytest.raises(WrongAnswerError, match="amount is not of the type integer"):
                await run.approve(QUESTION, who="eve", arguments={"to": "ada", "amount": "much"})
            await run.approve(QUESTION, who="eve", arguments={"amount": 5, "to": "ada"})
            return await run.result(), await events(rt, "r", "call-approved")

    result, (approved,) = play(scenario)

    assert result == ["5 to ada", ["eve"], True]
    assert approved["arguments"] == {"to": "ada", "amount": 5}
    assert calls == [("ada", 5)]


def test_one_who_rejects_is_enough_and_nothing_is_called() -> None:
    async def scenario() -> Any:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt, several=2)
            await run.approve(QUESTION, who="ada")
            await run.reject(QUESTION, "too much", who="eve")
            with pytest.raises(QuestionNotOpenError):
                await run.approve(QUESTION, who="bob")
            return await run.result()

    assert play(scenario) == ["rejected", ["eve"], "too much"]
    assert calls == []


@pytest.mark.parametrize("spelling", ["Ada Byron", "ADA  byron ", "\uff21da Byron"])
def test_another_spelling_of_a_name_is_the_same_person(spelling: str) -> None:
    async def scenario() -> Any:
        async with box_with(payment, tools=[transfer]) as box:
            run = await paid(await box.open(), several=2)
            await run.approve(QUESTION, who="ada byron")
            rt = await box.crash_and_reopen()
            with pytest.raises(WrongAnswerError, match="has said so already"):
                await rt.run("r").approve(QUESTION, who=spelling)
            with pytest.raises(WrongAnswerError, match="has said so already"):
                await rt.run("r").approve(QUESTION, who="eve", on_behalf=spelling)
            await rt.run("r").approve(QUESTION, who="eve", on_behalf="bob")
            return await rt.run("r").result()

    assert play(scenario) == ["100 to ada", ["ada byron", "eve"], False]


def test_who_passes_on_what_another_said_has_had_their_word_by_that() -> None:
    async def scenario() -> Any:
        async with box_with(poll) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(poll)
            await rt.until_idle()
            await run.answer("r:ask#1", "a", who="eve", on_behalf="ada")
            rt = await box.crash_and_reopen()
            for who in ("ada", "eve"):
                with pytest.raises(WrongAnswerError, match=f"{who} has said so already"):
                    await rt.run("r").answer("r:ask#1", "b", who=who)
            with pytest.raises(UsageError, match="who passes it on"):
                await rt.run("r").answer("r:ask#1", "b", on_behalf="bob")
            await rt.run("r").answer("r:ask#1", "b", who="bob")
            return await rt.run("r").result(), await events(rt, "r", "question-answered")

    result, answered = play(scenario)

    assert result == ["a", "b"]
    assert [(one["by"], one["on_behalf"]) for one in answered] == [("eve", "ada"), ("bob", "")]


def test_who_changed_the_arguments_may_approve_them_under_another_spelling() -> None:
    async def scenario() -> Any:
        async with box_with(payment, tools=[transfer]) as box:
            run = await paid(await box.open(), several=2)
            await run.approve(QUESTION, who="Eve", arguments={"to": "ada", "amount": 7})
            with pytest.raises(WrongAnswerError, match="eve has said so already"):
                await run.approve(QUESTION, who="eve")

    play(scenario)


def test_several_approvals_are_of_different_people_and_of_the_same_arguments() -> None:
    async def scenario() -> Any:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt, several=2)
            await run.approve(QUESTION, who="ada")
            with pytest.raises(WrongAnswerError, match="ada has said so already"):
                await run.approve(QUESTION, who="ada")
            await run.approve(QUESTION, who="eve", arguments={"to": "ada", "amount": 7})
            rt = await box.crash_and_reopen()
            (asked,) = await rt.questions()
            assert (asked.by, asked.arguments, asked.is_edited) == (("eve",), {"to": "ada", "amount": 7}, True)
            run = rt.run("r")
            with pytest.raises(WrongAnswerError, match="eve changed the arguments"):
                await run.approve(QUESTION, who="bob")
            with pytest.raises(WrongAnswerError, match="others than those looked at"):
                await run.approve(QUESTION, who="bob", digest="0" * 32)
            assert (await rt.statistics()).runs_in_memory == 0
            await run.approve(QUESTION, who="bob", digest=asked.digest)
            return await run.result()

    assert play(scenario) == ["7 to ada", ["eve", "bob"], True]
    assert calls == [("ada", 7)]


def test_expired_is_not_rejected_and_withdrawn_is_neither() -> None:
    async def scenario() -> tuple[Any, list[str], list[str]]:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt)
            other = await rt.with_options(id="s").start(payment, 1)
            await rt.until_idle()
            await other.cancel("enough")
            await box.clock.advance(DAY)
            types = [[e.type for e in await rt.run(id).history()] for id in ("r", "s")]
            return await run.result(), types[0], types[1]

    result, expired, withdrawn = play(scenario)

    assert result == ["expired", [], ""]
    assert {"question-expired", "question-withdrawn", "call-rejected"} & set(expired) == {"question-expired"}
    assert {"question-expired", "question-withdrawn", "call-rejected"} & set(withdrawn) == {"question-withdrawn"}


def test_a_question_takes_no_approval_and_an_approval_no_answer() -> None:
    async def scenario() -> None:
        async with box_with(payment, poll, tools=[transfer]) as box:
            rt = await box.open()
            run = await paid(rt)
            with pytest.raises(WrongAnswerError, match="approve it or reject it"):
                await run.answer(QUESTION, True)
            asks = await rt.with_options(id="p").start(poll)
            await rt.until_idle()
            with pytest.raises(WrongAnswerError, match="not for an approval"):
                await asks.approve("p:ask#1", who="ada")
            with pytest.raises(WrongAnswerError, match="who says so"):
                await asks.answer("p:ask#1", "a")

    play(scenario)


def test_several_people_give_a_list_of_answers_the_same_after_a_crash_at_any_event() -> None:
    async def attend(box: Box) -> Any:
        rt = await box.open()
        run = await rt.with_options(id="r").start(poll)
        await rt.until_idle()
        for who, what in (("ada", "a"), ("eve", "b")):
            for question in await rt.questions():
                if who not in question.by:
                    await run.answer(question.id, what, who=who)
        result = await run.result()
        history = await run.history()
        await box.close()
        return result, history

    async def scenario() -> None:
        whole = box_with(poll)
        result, history = await attend(whole)
        assert result == ["a", "b"]
        assert isinstance(whole.storage, MemoryDisk)
        for _, disk, clock in crashes(whole.storage, history):
            again, _ = await attend(Box(disk, clock, workflows=[poll]))
            assert again == result

    play(scenario)


def test_an_approval_comes_to_the_same_after_a_crash_at_any_event() -> None:
    async def attend(box: Box) -> Any:
        rt = await box.open()
        run = await rt.with_options(id="r").start(payment, 2)
        await rt.until_idle()
        edit = {"to": "ada", "amount": 3}
        for who, arguments in (("ada", None), ("eve", edit), ("bob", None)):
            for question in await rt.questions():
                if who not in question.by and not (who == "ada" and question.is_edited):
                    seen = "" if arguments else question.digest
                    await run.approve(question.id, who=who, arguments=arguments, digest=seen)
        await rt.until_idle()
        if (await run.status()).in_doubt:
            await run.settle_not_done("transfer#1", because="it is a test")
        result = await run.result()
        history = await run.history()
        await box.close()
        return result, history

    async def scenario() -> None:
        whole = box_with(payment, tools=[transfer])
        result, history = await attend(whole)
        assert result == ["3 to ada", ["eve", "bob"], True]
        assert isinstance(whole.storage, MemoryDisk)
        for _, disk, clock in crashes(whole.storage, history):
            again, _ = await attend(Box(disk, clock, workflows=[payment], tools=[transfer]))
            assert again == result

    play(scenario)


@pytest.mark.parametrize("several", [0, 51])
def test_a_number_of_people_out_of_range_is_refused(several: int) -> None:
    async def scenario() -> None:
        async with box_with(payment, tools=[transfer]) as box:
            rt = await box.open()
            run = await rt.start(payment, several)
            await rt.until_idle()
            assert "several is from 1 to 50" in (await run.status()).error

    play(scenario)


@workflow
async def publication(ctx: Context, number: int) -> str:
    return await ctx.ask(f"publish {number}?", of=str, timeout=30 * DAY)


def test_of_a_thousand_runs_that_wait_for_a_person_none_is_in_memory_and_an_answer_wakes_one() -> None:
    async def scenario() -> tuple[int, int, str, int]:
        async with box_with(publication) as box:
            rt = await box.open()
            for number in range(1000):
                await rt.with_options(id=f"r{number:03}").start(publication, number)
            await rt.until_idle()
            rt = await box.crash_and_reopen()
            in_memory = (await rt.statistics()).runs_in_memory
            actors = (await rt.statistics()).actors_in_memory
            await rt.run("r500").answer("r500:ask#1", "yes")
            result = await rt.run("r500", publication).result()
            resumed = await rt.read(Query(types=("run-resumed",)))
            return in_memory, actors, result, len(resumed)

    in_memory, actors, result, resumed = play(scenario)

    assert (in_memory, result, resumed) == (0, "yes", 1)
    assert actors < 10


@workflow
async def paid_and_told(ctx: Context) -> str:
    approval = await ctx.approval(to="finance").of(transfer, "ada", amount=100)
    ctx.now()
    paid = await ctx.call_approved(approval)
    await ctx.sleep(DAY)
    return paid


def test_an_approval_is_for_one_call_of_one_run_also_where_that_is_forked() -> None:
    async def scenario() -> tuple[Any, ...]:
        async with box_with(paid_and_told, tools=[transfer]) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(paid_and_told)
            await rt.until_idle()
            await run.approve(QUESTION, who="eve", arguments={"to": "ada", "amount": 90})
            await rt.until_idle()
            with pytest.raises(ControlRefusedError, match="approve#1 was approved for one call, and"):
                await run.fork("transfer#1")
            later = await run.fork("sleep#1")  # the call is taken over, and not made again
            anew = await run.fork("approve#1", id="anew")
            await rt.until_idle()
            with pytest.raises(ControlRefusedError, match="fork at approve#1, to ask anew"):
                await later.fork("transfer#1")
            return list(calls), [one.run for one in await rt.questions()], (await anew.status()).status

    assert play(scenario) == ([("ada", 90)], ["anew"], "waiting")
