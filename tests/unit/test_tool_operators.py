"""What people do to tools: force a circuit, with a reason that is kept; settle a call that nobody knows the end of."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import BreakerPolicy, Context, Done, NotDone, NotInDoubtError, UsageError, workflow
from perdure.actors.tools.tool import ForceCircuit, Guard, ToolBehavior
from perdure.testing import given
from tests.support.cli import Ended, command
from tests.support.runs import events, play
from tests.support.tools import Double, begun, box_of, dispatch, fail, figures, history, kinds, state


def test_an_operator_opens_a_circuit_and_who_and_why_are_in_the_log() -> None:
    async def scenario() -> tuple[bool, dict[str, Any], str | None, Any, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            changed = await rt.force_circuit("alpha", "open", because="the vendor called", who="ada")
            await box.clock.advance(timedelta(days=1))
            told = await dispatch(rt, "alpha")
            [event] = await history(rt, "alpha", "circuit-forced")
            return changed, told, event.principal, event.data, (await figures(rt)).forced

    changed, told, who, facts, forced = play(scenario)

    assert changed
    assert "an operator opened it: the vendor called" in told["error"]
    assert who == "ada"
    assert '"to":"open","because":"the vendor called"' in facts
    assert forced == "open"


def test_a_disabled_circuit_lets_every_call_through() -> None:
    async def scenario() -> tuple[int, str, str]:
        alpha = Double()
        async with box_of(alpha) as box:
            rt = await box.open()
            await rt.force_circuit("alpha", "disabled", because="a test")
            await fail(rt, 10)
            after = await figures(rt)
            return len(alpha.calls), after.state, after.forced

    assert play(scenario) == (10, "closed", "disabled")


@pytest.mark.parametrize("word", ["open", "disabled"])
def test_a_circuit_given_back_goes_by_its_policy_from_the_start(word: Any) -> None:
    async def scenario() -> list[str]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt, 2)
            await rt.force_circuit("alpha", word, because="a test")
            await rt.force_circuit("alpha", "auto", because="done")
            seen = [await state(rt)]
            for _ in range(3):
                await fail(rt, 1)
                seen.append(await state(rt))
            return seen

    assert play(scenario) == ["closed", "closed", "closed", "open"]


def test_closing_a_circuit_leaves_it_to_its_policy_at_once() -> None:
    async def scenario() -> list[str]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await fail(rt)
            seen = [await state(rt)]
            await rt.force_circuit("alpha", "closed", because="it is up")
            seen.append(await state(rt))
            await fail(rt)
            return [*seen, await state(rt), (await figures(rt)).forced]

    assert play(scenario) == ["open", "closed", "open", ""]


@pytest.mark.parametrize("words", [["auto"], ["open", "open"], ["disabled", "disabled"]])
def test_saying_what_is_so_already_changes_nothing_and_writes_nothing(words: list[Any]) -> None:
    async def scenario() -> tuple[list[bool], int]:
        async with box_of(Double()) as box:
            rt = await box.open()
            changed = [await rt.force_circuit("alpha", word, because="twice") for word in words]
            return changed, len(await kinds(rt))

    changed, written = play(scenario)

    assert changed[-1] is False
    assert written == len(words) - 1


def test_a_word_that_is_none_is_refused_and_writes_nothing() -> None:
    actor = given(ToolBehavior({"test": Guard(BreakerPolicy())}))

    refusal = actor.when(ForceCircuit("shut", "a slip")).then_refused(UsageError)  # type: ignore[arg-type]

    assert "open, closed, disabled, auto" in str(refusal)


def test_the_word_of_an_operator_survives_a_restart() -> None:
    async def scenario() -> tuple[str, str, bool]:
        async with box_of(Double()) as box:
            rt = await box.open()
            await rt.force_circuit("alpha", "open", because="a test")
            rt = await box.crash_and_reopen()
            after = await figures(rt)
            return after.state, after.forced, "circuit_breaker" in await dispatch(rt, "alpha")

    assert play(scenario) == ("open", "open", True)


def test_calls_in_flight_when_an_operator_speaks_do_not_move_the_circuit() -> None:
    async def scenario() -> str:
        alpha = Double(failure_threshold=1)
        async with box_of(alpha) as box:
            rt = await box.open()
            (call,) = await begun(box, dispatch(rt, "alpha", "hold"))
            await rt.force_circuit("alpha", "closed", because="a test")
            alpha.release("fail")
            await call
            return await state(rt)

    assert play(scenario) == "closed"


def test_the_circuit_of_one_conversation_can_be_forced() -> None:
    async def scenario() -> list[bool]:
        async with box_of(Double(scope="conversation")) as box:
            rt = await box.open()
            await rt.force_circuit("alpha", "open", because="a test", conversation="ada")
            calls = [rt.with_options(conversation=who).dispatch("alpha", {}) for who in ("ada", "bob")]
            return ["circuit_breaker" in await call for call in calls]

    assert play(scenario) == [True, False]


# Doubt


def paying(answer: Any = None) -> tuple[Double, Any]:
    async def reconcile(key: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    pay = Double("pay", effect="irreversible", reconcile=reconcile if answer is not None else None)

    @workflow
    async def buy(ctx: Context) -> str:
        return str(await ctx.call(pay.tool, "hold"))

    return pay, buy


async def interrupted(box: Any, buy: Any) -> Any:
    """Crash during the call; return the runtime that opens the log again."""
    await (await box.open()).with_options(id="r1").start(buy)
    await box.clock.settle()
    rt = await box.crash_and_reopen()
    await box.clock.settle()
    return rt


def test_an_interrupted_irreversible_call_is_listed_and_settled_by_a_person() -> None:
    pay, buy = paying()

    async def scenario() -> tuple[tuple[str, ...], str, list[str], tuple[str, ...]]:
        async with box_of(pay, workflows=[buy]) as box:
            rt = await interrupted(box, buy)
            listed = (await rt.run("r1").status()).in_doubt
            await rt.run("r1").settle_done("pay#1", "receipt 7")
            await box.clock.settle()
            return listed, await rt.run("r1", buy).result(), pay.calls, (await rt.run("r1").status()).in_doubt

    assert play(scenario) == (("pay#1",), "receipt 7", ["hold"], ())


def test_a_call_that_a_person_says_was_not_made_is_made_again() -> None:
    pay, buy = paying()

    async def scenario() -> tuple[str, int]:
        async with box_of(pay, workflows=[buy]) as box:
            rt = await interrupted(box, buy)
            await rt.run("r1").settle_not_done("pay#1")
            await box.clock.settle()
            pay.release(last=True)
            return await rt.run("r1", buy).result(), len(pay.calls)

    assert play(scenario) == ('{"did": "ok"}', 2)


@pytest.mark.parametrize(
    ("answer", "calls", "doubts"), [(Done("receipt 7"), 1, 0), (NotDone(), 2, 0), (OSError("x"), 1, 1)]
)
def test_a_tool_that_can_find_out_is_asked_before_a_person(answer: Any, calls: int, doubts: int) -> None:
    pay, buy = paying(answer)

    async def scenario() -> tuple[int, int]:
        async with box_of(pay, workflows=[buy]) as box:
            rt = await interrupted(box, buy)
            return len(pay.calls), len((await rt.run("r1").status()).in_doubt)

    assert play(scenario) == (calls, doubts)


def test_what_is_not_in_doubt_cannot_be_settled() -> None:
    pay, buy = paying()

    async def scenario() -> None:
        async with box_of(pay, workflows=[buy]) as box:
            rt = await box.open()
            await rt.with_options(id="r1").start(buy)
            await box.clock.settle()
            with pytest.raises(NotInDoubtError):
                await rt.run("r1").settle_done("pay#1", "x")

    play(scenario)


def test_a_call_in_doubt_is_listed_by_the_command_line(tmp_path: Any) -> None:
    pay, buy = paying()

    async def scenario() -> list[dict[str, Any]]:
        async with box_of(pay, workflows=[buy], on=tmp_path / "log.db") as box:
            rt = await interrupted(box, buy)
            return await events(rt, "r1", "step-in-doubt")

    doubts = play(scenario)
    listed: Ended = command(tmp_path, "ps", "--db", tmp_path / "log.db", "--attention")

    assert [one["step"] for one in doubts] == ["pay#1"]
    assert "r1" in listed.out
    assert "pay#1" in listed.out
