"""Goals as runs pursue them: recorded steps, in one unit with what the goal has of them, whatever happens."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Constraint,
    Context,
    Criterion,
    EntryPoint,
    Goal,
    GoalConflictError,
    GoalOutcome,
    LogEvent,
    PayloadTooLargeError,
    Query,
    RunHandle,
    Runtime,
    Settings,
    StepFailedError,
    UnknownCriterionError,
    UnknownGoalError,
    UsageError,
    tool,
    workflow,
)
from perdure.actors.state.goals import goal_stream
from perdure.store.errors import UnknownTagError
from perdure.store.memory import MemoryEventLog
from perdure.store.records import Append, NewEvent, Unit
from perdure.testing import MemoryDisk, TestClock
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, box_with, data, disk_until, events, facts, on_both_logs, play, storage

MAIL = Goal(
    id="mail",
    criteria=[Criterion(id="sent", target="100%"), Criterion(id="cheap", weight=0.5)],
    constraints=[
        Constraint(id="budget", description="a mail costs at most 100", check={"if": "result.cost", "le": 100}),
        Constraint(id="polite", type="soft", check="is_polite"),
    ],
)


def is_polite(outcome: dict[str, Any]) -> bool:
    return "!" not in outcome["summary"]


@tool
async def send(to: str) -> dict[str, int]:
    if to == "nobody":
        raise OSError("no such person")
    return {"cost": len(to)}


@workflow
async def mails(ctx: Context, to: str) -> dict[str, Any]:
    goal = ctx.goal("mail")
    decision = await goal.decide("send it", criteria=["sent", "cheap"], options=["mail", "call"], chosen="mail")
    try:
        sent = await ctx.call(send, to)
    except StepFailedError as error:
        outcome = await goal.outcome(decision, False, error=error.error)
    else:
        outcome = await goal.outcome(decision, True, result=sent)
    return {"decision": decision.id, "progress": outcome.progress, "is_achieved": outcome.is_achieved}


def mail_box(on: Any = None, **options: Any) -> Box:
    options = {"workflows": [mails], "goals": [MAIL], "predicates": {"is_polite": is_polite}, **options}
    return Box(on, TestClock(), **options)


async def goal_events(rt: Runtime, goal: str = "mail") -> list[str]:
    return [row.type for row in await rt.read(Query(stream=goal_stream(goal), limit=1000))]


@on_both_logs
def test_a_run_decides_and_tells_what_came_of_it(kind: str, tmp_path: Any) -> None:
    async def scenario() -> None:
        async with mail_box(storage(kind, tmp_path)) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(mails, "ada")

            result = await run.result()

            assert result == {"decision": "mail#1", "progress": 1.0, "is_achieved": True}
            assert (await rt.goals.get("mail")).status == "completed"
            assert await goal_events(rt) == [
                "goal-defined", "decision-made", "outcome-recorded", "goal-progressed", "goal-achieved",
            ]  # fmt: skip
            assert [one["what"] for one in await events(rt, "r", "goal-told")] == ["decision", "outcome"]

    play(scenario)


@pytest.mark.row("A3-49")
def test_those_who_subscribe_are_told_once_that_a_goal_is_achieved() -> None:
    told: list[tuple[str, Any, Any]] = []

    async def keep(event: LogEvent) -> None:
        one = event.to_dict()
        told.append((one["type"], one["execution_id"], one["data"]["progress"]))

    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            rt.subscribe(keep, "goal_achieved", name="goals")
            before = (await rt.goals.get("mail")).status
            await (await rt.with_options(id="first").start(mails, "ada")).result()
            after = (await rt.goals.get("mail")).status
            rt = await box.crash_and_reopen()
            rt.subscribe(keep, "goal_achieved", name="goals")
            for number, to in enumerate(("nobody", "ada", "ada")):
                await (await rt.with_options(id=f"r{number}").start(mails, to)).result()
            await box.clock.settle()

            assert (before, after, (await rt.goals.get("mail")).status) == ("draft", "completed", "completed")
            assert await goal_events(rt) == [
                "goal-defined", "decision-made", "outcome-recorded", "goal-progressed", "goal-achieved",
                *["decision-made", "outcome-recorded", "goal-progressed"] * 3,
            ]  # fmt: skip

    play(scenario)

    assert set(told) == {("goal_achieved", "first", 1.0)}


@pytest.mark.row("A3-43")
def test_progress_is_given_with_the_keys_and_the_figures_of_document_003() -> None:
    goal = Goal(id="mail", criteria=[Criterion(id="c1", target="100%"), Criterion(id="c2", weight=0.5)])

    async def scenario() -> dict[str, Any]:
        async with mail_box(goals=[goal]) as box:
            rt = await box.open()
            for number in range(10):
                decision = await rt.goals.record_decision("mail", "send it", criteria=["c1"])
                await rt.goals.record_outcome(decision, number > 0)
            assert (await rt.get_goal_progress()) == (await rt.get_goal_progress("mail"))
            return await rt.get_goal_progress()

    found = play(scenario)

    assert (found["overall_progress"], found["recommendation"]) == (0.6, "continue")
    assert (found["criteria_status"]["c1"]["met"], found["criteria_status"]["c1"]["progress"]) == (False, 0.9)
    assert (found["criteria_status"]["c2"]["met"], found["criteria_status"]["c2"]["progress"]) == (False, 0.0)
    assert found["constraint_violations"] == []
    assert found["metrics"]["total_decisions"] == 10


def test_what_a_run_tells_and_what_the_goal_has_of_it_are_one_unit() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(mails, "ada")).result()

            rows = await rt.read(Query(limit=1000))

        told = [number for number, row in enumerate(rows) if row.type == "goal-told"]
        assert [rows[number + 1].type for number in told] == ["decision-made", "outcome-recorded"]
        for number in told:
            run, goal = rows[number], rows[number + 1]
            assert (run.at, run.correlation) == (goal.at, "r") == (goal.at, goal.correlation)
            assert data(goal)["step"] == data(run)["step"]
            assert data(goal)["run"] == "r"

    play(scenario)


def test_the_log_has_all_that_was_said_of_a_decision() -> None:
    @workflow
    async def says(ctx: Context) -> None:
        decision = await ctx.goal("mail").decide(
            "send it",
            criteria=["sent"],
            options=[{"id": "a"}, {"id": "b"}],
            chosen={"id": "a"},
            reasoning="it is cheap",
            constraints=["budget"],
            kind="tool_selection",
            context={"to": "ada", "token": "12345"},
        )
        await ctx.goal("mail").outcome(decision, True, result={"password": "12345"}, summary="went well")

    async def scenario() -> None:
        async with mail_box(workflows=[says]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(says)).result()

            rows = await rt.read(Query(types=("decision-made", "outcome-recorded")))

        assert data(rows[0]) == {
            "decision": 1, "intent": "send it", "criteria": ["sent"],
            "kind": "tool_selection", "options": [{"id": "a"}, {"id": "b"}], "chosen": {"id": "a"},
            "reasoning": "it is cheap", "constraints": ["budget"],
            "context": {"to": "ada", "token": "[redacted]"}, "run": "r", "step": "decide#1", "is_first": True,
        }  # fmt: skip
        assert data(rows[1])["result"] == {"password": "[redacted]"}
        assert data(rows[1])["summary"] == "went well"

    play(scenario)


def test_checks_of_constraints_run_with_each_outcome() -> None:
    @workflow
    async def costs(ctx: Context) -> list[GoalOutcome]:
        goal = ctx.goal("mail")
        found: list[GoalOutcome] = []
        for cost, summary in ((50, "fine"), (120, "fine"), (50, "hurry!"), (None, "what was it?")):
            decision = await goal.decide("send it", criteria=["sent"])
            found.append(await goal.outcome(decision, True, result={"cost": cost}, summary=summary))
        return found

    async def scenario() -> None:
        async with mail_box(workflows=[costs]) as box:
            rt = await box.open()

            found = await (await rt.with_options(id="r").start(costs)).result()
            progress = await rt.goals.progress("mail")

        assert [one.violated for one in found] == [(), ("budget",), ("polite",), ()]
        assert [one.recommendation for one in found] == ["continue", "adjust", "adjust", "adjust"]
        assert progress.violations == {"budget": 1, "polite": 1}
        assert progress.unjudged == {"budget": 1}
        budget, polite = progress.newest_violations
        assert (budget.severity, budget.details, budget.run) == ("hard", "result.cost is 120, not le 100", "r")
        assert (polite.severity, polite.decision) == ("soft", 3)

    play(scenario)


def test_a_check_may_be_a_function_and_what_it_raises_is_no_violation() -> None:
    def check(outcome: dict[str, Any]) -> bool:
        return bool(outcome["result"]["cost"] < 100)

    own = Goal(id="mail", criteria=[Criterion(id="sent")], constraints=[Constraint(id="k", check=check)])

    @workflow
    async def costs(ctx: Context) -> list[Any]:
        goal = ctx.goal("mail")
        first = await goal.outcome(await goal.decide("send it"), True, result={"cost": 100})
        second = await goal.outcome(await goal.decide("send it"), True, result=None)
        return [first.violated, second.violated]

    async def scenario() -> None:
        async with Box(None, TestClock(), workflows=[costs], goals=[own]) as box:
            rt = await box.open()
            found = await (await rt.with_options(id="r").start(costs)).result()
            unjudged = [data(row).get("unjudged", {}) for row in await rt.read(Query(types=("outcome-recorded",)))]

        assert found == [["k"], []]
        assert unjudged[0] == {}
        assert "raised TypeError" in unjudged[1]["k"]

    play(scenario)


def test_runs_pursue_one_goal_together() -> None:
    @workflow
    async def one(ctx: Context, number: int) -> str:
        decision = await ctx.goal("mail").decide(f"mail {number}", criteria=["sent"])
        await ctx.sleep(number % 3)
        await ctx.goal("mail").outcome(decision, number != 7)
        return decision.id

    async def scenario() -> None:
        async with mail_box(workflows=[one]) as box:
            rt = await box.open()
            runs = [await rt.with_options(id=f"r{n}").start(one, n) for n in range(10)]
            await box.clock.advance(10)

            ids = {await run.result() for run in runs}
            progress = await rt.goals.progress("mail")

        assert ids == {f"mail#{n}" for n in range(1, 11)}
        assert (progress.decisions, progress.successes, progress.failures, progress.runs) == (10, 9, 1, 10)
        assert progress.criteria[0].progress == 0.9

    play(scenario)


def test_the_evidence_of_progress_has_its_places_in_the_log() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            for number in range(7):
                to = "nobody" if number == 3 else "ada"
                await (await rt.with_options(id=f"r{number}").start(mails, to)).result()

            progress = await rt.goals.progress("mail")
            rows = {row.position: data(row) for row in await rt.read(Query(types=("outcome-recorded",)))}

        for criterion in progress.criteria:
            assert [each.run for each in criterion.evidence] == ["r2", "r3", "r4", "r5", "r6"]
            assert [str(each) for each in criterion.evidence].count("send it: failed") == 1
            for each in criterion.evidence:
                assert each.position is not None
                assert rows[each.position]["decision"] == each.decision
                assert rows[each.position]["run"] == each.run

    play(scenario)


def test_a_run_that_is_resumed_tells_nothing_twice() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        whole = mail_box(disk)
        rt = await whole.open()
        await (await rt.with_options(id="r").start(mails, "nobody")).result()
        expected, told = without_places((await rt.goals.progress("mail")).to_dict()), await goal_events(rt)
        await whole.close()
        for position in crashes_of(disk):
            async with mail_box(disk_until(disk, position)) as box:
                rt = await box.open()
                await rt.run("r").result()
                again = await rt.goals.progress("mail")

                assert await goal_events(rt) == told, position
                assert without_places(again.to_dict()) == expected, position

    def without_places(progress: dict[str, Any]) -> str:
        for one in progress["criteria_status"].values():
            one.pop("positions")
        return json.dumps(progress)

    play(scenario)


def crashes_of(disk: MarkedDisk) -> list[int]:
    """Return where the process may have died since the run was started."""
    born = next(row.position for row in disk._storage.events if row.type == "run-started")
    return sorted(position for position in disk.borders if position >= born)


def test_a_decision_waits_for_its_outcome_while_its_run_sleeps() -> None:
    @workflow
    async def waits(ctx: Context) -> bool:
        decision = await ctx.goal("mail").decide("ask for it", criteria=["sent"])
        answer = await ctx.signal("answer", of=bool)
        return (await ctx.goal("mail").outcome(decision.id, answer)).is_new

    async def scenario() -> None:
        box = mail_box(workflows=[waits], settings=Settings(idle_after=timedelta(seconds=1)))
        rt = await box.open()
        await rt.with_options(id="r").start(waits)
        await box.clock.advance(100)
        rt = await box.crash_and_reopen()
        await rt.run("r").signal("answer", True)

        assert await rt.run("r").result() is True
        assert (await rt.goals.progress("mail")).successes == 1
        await box.close()

    play(scenario)


def test_a_run_that_is_cancelled_tells_its_goal_when_it_cleans_up() -> None:
    @workflow
    async def careful(ctx: Context) -> None:
        decision = await ctx.goal("mail").decide("take long", criteria=["sent"])
        try:
            await ctx.sleep(1000)
        finally:
            await ctx.goal("mail").outcome(decision, False, error="cancelled")

    async def scenario() -> None:
        disk = MarkedDisk()
        whole = mail_box(disk, workflows=[careful])
        rt = await whole.open()
        await rt.with_options(id="r").start(careful)
        await whole.clock.settle()
        await rt.run("r").cancel("enough")
        await whole.clock.settle()
        await whole.close()
        for position in crashes_of(disk):
            async with mail_box(disk_until(disk, position), workflows=[careful]) as box:
                rt = await box.open()
                await rt.run("r").cancel("enough")
                await box.clock.advance(2000)
                view, progress = await rt.run("r").status(), await rt.goals.progress("mail")

                assert view.status == "cancelled", position
                assert progress.decisions == progress.failures <= 1, position

    play(scenario)


def test_a_run_whose_deadline_passes_tells_its_goal_when_it_cleans_up() -> None:
    @workflow
    async def late(ctx: Context) -> None:
        decision = await ctx.goal("mail").decide("take long", criteria=["sent"])
        try:
            await ctx.sleep(1000)
        finally:
            await ctx.goal("mail").outcome(decision, False)

    async def scenario() -> None:
        async with mail_box(workflows=[late]) as box:
            rt = await box.open()
            await rt.with_options(id="r", deadline=timedelta(seconds=5)).start(late)
            await box.clock.advance(10)

            assert (await rt.run("r").status()).error_type == "DeadlineExceededError"
            assert (await rt.goals.progress("mail")).failures == 1

    play(scenario)


def test_branches_decide_beside_one_another() -> None:
    @workflow
    async def fans(ctx: Context) -> list[int]:
        async def one(number: int) -> int:
            decision = await ctx.goal("mail").decide(f"mail {number}", criteria=["sent"])
            await ctx.goal("mail").outcome(decision, True)
            return decision.number

        return await ctx.map(one, range(5))

    async def scenario() -> None:
        async with mail_box(workflows=[fans]) as box:
            rt = await box.open()
            found = await (await rt.with_options(id="r").start(fans)).result()
            progress = await rt.goals.progress("mail")

        assert sorted(found) == [1, 2, 3, 4, 5]
        assert (progress.decisions, progress.runs) == (5, 1)

    play(scenario)


def test_a_fork_has_the_decisions_that_it_takes_over_and_makes_its_own_from_there() -> None:
    @workflow
    async def tries(ctx: Context, luck: bool) -> list[Any]:
        goal = ctx.goal("mail")
        first = await goal.decide("try", criteria=["sent"])
        await ctx.call(send, "ada")
        outcome = await goal.outcome(first, True)
        return [first.number, outcome.is_new]

    async def scenario() -> None:
        async with mail_box(workflows=[tries]) as box:
            rt = await box.open()
            run: RunHandle[Any] = await rt.with_options(id="r").start(tries, True)
            before = await run.result()
            fork = await run.fork("send#1", id="f")

            after = await fork.result()
            progress = await rt.goals.progress("mail")

        assert (before, after) == ([1, True], [1, False])
        assert (progress.decisions, progress.successes) == (1, 1)

    play(scenario)


def test_progress_that_a_run_asked_for_is_the_same_when_it_is_replayed() -> None:
    @workflow
    async def asks(ctx: Context) -> list[float]:
        before = await ctx.goal("mail").progress()
        await ctx.signal("go", of=str)
        return [before.overall, (await ctx.goal("mail").progress()).overall]

    async def scenario() -> None:
        async with mail_box(workflows=[asks, mails]) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(asks)
            await box.clock.settle()
            await (await rt.with_options(id="other").start(mails, "ada")).result()
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("go", "now")

            assert await rt.run("r").result() == [0.0, 1.0]

    play(scenario)


def test_code_that_decides_something_else_is_parked_as_a_mismatch() -> None:
    def code(intent: str) -> Any:
        @workflow(name="decides")
        async def decides(ctx: Context) -> None:
            await ctx.goal("mail").decide(intent)
            await ctx.signal("go", of=str)

        return decides

    async def scenario() -> None:
        async with mail_box(workflows=[code("send it")]) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(rt.workflows["decides"])
            await box.clock.settle()
            rt = await box.crash_and_reopen(workflows=[code("keep it")])
            await rt.run("r").signal("go", "now")
            await box.clock.settle()

            view = await rt.run("r").status()
            assert view.status == "blocked"
            assert "the code asks for decision mail with other arguments" in view.error

    play(scenario)


def test_a_refusal_that_the_code_catches_leaves_no_trace() -> None:
    @workflow
    async def clumsy(ctx: Context) -> list[str]:
        found = []
        for wrong in (
            lambda: ctx.goal("mail").decide("go", criteria=["never"]),
            lambda: ctx.goal("mail").outcome("mail#99", True),
            lambda: ctx.goal("mail").outcome("other#1", True),
            lambda: ctx.goal("mail").violation("mercy"),
            lambda: ctx.goal("nowhere").decide("go"),
            lambda: ctx.goal("mail").decide(" "),
        ):
            try:
                await wrong()
            except UsageError as error:
                found.append(type(error).__name__)
        await ctx.signal("go", of=str)
        await ctx.goal("mail").decide("go")
        return found

    async def scenario() -> None:
        async with mail_box(workflows=[clumsy]) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(clumsy)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await rt.run("r").signal("go", "now")

            assert await rt.run("r").result() == [
                "UnknownCriterionError", "UnknownDecisionError", "UsageError", "UsageError", "UnknownGoalError",
                "UsageError",
            ]  # fmt: skip
            assert (await facts(rt, "r")).count("goal-told") == 1

    play(scenario)


def test_a_goal_that_the_application_no_longer_brings_along_goes_on_as_the_log_has_it() -> None:
    @workflow
    async def goes_on(ctx: Context) -> float:
        decision = await ctx.goal("mail").decide("send it", criteria=["sent"])
        await ctx.signal("go", of=str)
        return (await ctx.goal("mail").outcome(decision, True, result={"cost": 200})).progress

    async def scenario() -> None:
        async with mail_box(workflows=[goes_on]) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(goes_on)
            await box.clock.settle()
            rt = await box.crash_and_reopen(goals=[], predicates={})
            await rt.run("r").signal("go", "now")

            assert await rt.run("r").result() == 2 / 3
            progress = await rt.goals.progress("mail")
            assert progress.violations == {"budget": 1}
            assert progress.unjudged == {"polite": 1}
            assert list(rt.goals) == []

    play(scenario)


def test_a_goal_that_changed_is_defined_anew_when_the_runtime_opens() -> None:
    changed = Goal(id="mail", criteria=[Criterion(id="sent", target="50%")], version="2")

    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await (await rt.start(mails, "nobody")).result()
            rt = await box.close_and_reopen()
            rt = await box.close_and_reopen(goals=[changed], predicates={})
            await rt.goals.record_outcome(await rt.goals.record_decision("mail", "again", criteria=["sent"]), True)

            assert (await goal_events(rt)).count("goal-defined") == 2
            assert (await rt.goals.get("mail")).version == "2"
            assert (await rt.goals.progress("mail")).criteria[0].met is True

    play(scenario)


def test_the_application_decides_too_and_its_outcomes_are_checked() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            decision = await rt.goals.record_decision("mail", "send it", criteria=["sent"], who="ada")

            outcome = await rt.goals.record_outcome(decision.id, True, result={"cost": 500}, who="ben")
            again = await rt.goals.record_outcome(decision, False)
            await rt.goals.record_violation("mail", "polite", "they said so", who="cleo")
            rows = await rt.read(Query(types=("decision-made", "outcome-recorded", "constraint-violated")))
            statistics = await rt.goals.statistics()

        assert (outcome.is_new, outcome.violated, again.is_new) == (True, ("budget",), False)
        assert [row.principal for row in rows] == ["ada", "ben", "ben", "cleo"]
        assert statistics == {
            "total_decisions": 1,
            "successful_outcomes": 1,
            "failed_outcomes": 0,
            "constraint_violations": 2,
            "criteria_tracked": 2,
            "streams_seen": 0,
        }

    play(scenario)


def test_a_decision_and_a_violation_that_are_told_again_under_their_ids_are_recorded_once() -> None:
    said: dict[str, Any] = {"criteria": ["sent"], "options": ["mail", 7], "chosen": {"by": "mail"}, "id": "ticket-17"}

    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            first = await rt.goals.record_decision("mail", "send it", **said)
            await rt.goals.record_violation("mail", "polite", "they said so", id="letter-3")
            await rt.goals.record_outcome(first, True)
            rt = await box.crash_and_reopen()
            before = await goal_events(rt)

            again = await rt.goals.record_decision("mail", "send it", **said)
            await rt.goals.record_violation("mail", "polite", "they said so", id="letter-3")

            assert again == first
            assert await goal_events(rt) == before
            assert (await rt.goals.statistics())["total_decisions"] == 1

    play(scenario)


@pytest.mark.parametrize(
    "otherwise",
    [
        lambda goals: goals.record_decision("mail", "send two", id="one"),
        lambda goals: goals.record_decision("mail", "send it", chosen="mail", id="one"),
        lambda goals: goals.record_decision("mail", "send it", criteria=["cheap"], id="one"),
        lambda goals: goals.record_violation("mail", "polite", id="one"),
        lambda goals: goals.record_violation("mail", "budget", "too much", id="two"),
        lambda goals: goals.record_decision("mail", "too much", id="two"),
    ],
)
def test_an_id_that_is_told_something_else_under_is_refused_and_nothing_is_recorded(otherwise: Any) -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await rt.goals.record_decision("mail", "send it", id="one")
            await rt.goals.record_violation("mail", "polite", "too much", id="two")
            before = await goal_events(rt)

            with pytest.raises(GoalConflictError, match="something else"):
                await otherwise(rt.goals)

            assert await goal_events(rt) == before

    play(scenario)


@pytest.mark.parametrize("id", ["", "x" * 129, "a\nb", 7])
def test_what_cannot_be_an_id_is_refused_and_nothing_is_recorded(id: Any) -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            with pytest.raises(UsageError):
                await rt.goals.record_decision("mail", "send it", id=id)
            with pytest.raises(UsageError):
                await rt.goals.record_violation("mail", "polite", id=id)

            assert "decision-made" not in await goal_events(rt)

    play(scenario)


def test_a_caller_that_asks_again_before_it_has_an_answer_decides_once() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()

            made = await asyncio.gather(*(rt.goals.record_decision("mail", "send it", id="one") for _ in range(9)))

            assert {one.number for one in made} == {1}

    play(scenario)


def test_two_that_tell_one_outcome_at_the_same_time_count_once() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            decision = await rt.goals.record_decision("mail", "send it", criteria=["sent"])

            told = await asyncio.gather(*(rt.goals.record_outcome(decision, True) for _ in range(20)))

            assert sum(one.is_new for one in told) == 1
            assert (await rt.goals.progress("mail")).successes == 1

    play(scenario)


def test_how_far_a_goal_is_can_be_asked_in_the_shape_of_founding_document_003() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await (await rt.start(mails, "ada")).result()

            found = await rt.get_goal_progress()

            assert found["overall_progress"] == 1.0
            assert found["recommendation"] == "complete"
            assert found["criteria_status"]["sent"]["evidence"] == ["send it: success"]

    play(scenario)


def test_what_happens_to_a_goal_is_an_event_with_the_run_that_brought_it_about() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(mails, "ada")).result()
            await rt.goals.record_violation("mail", "polite", "they said so")

            achieved = (await rt.events.history("goal_achieved"))[0].to_dict()
            progressed = (await rt.events.history("goal_progress"))[0].to_dict()
            violated = (await rt.events.history("constraint_violation"))[0].to_dict()

            assert (achieved["type"], achieved["execution_id"]) == ("goal_achieved", "r")
            assert (progressed["execution_id"], progressed["data"]["progress"]) == ("r", 1.0)
            assert progressed["data"]["criteria_status"]["sent"] == {"met": True, "progress": 1.0}
            assert violated["execution_id"] is None
            assert violated["data"] == {"constraint_id": "polite", "description": "", "details": "they said so"}

    play(scenario)


def test_a_goal_knows_by_which_entry_point_its_runs_came_in() -> None:
    async def scenario() -> None:
        async with mail_box(entry_points=[EntryPoint(id="letters", workflow=mails)]) as box:
            rt = await box.open()
            for _ in range(2):
                await rt.trigger_and_wait("letters", {"to": "nobody"})
            await (await rt.start(mails, "nobody")).result()

            progress = await rt.goals.progress("mail")
            rows = await rt.read(Query(types=("decision-made",)))

            assert [data(row).get("entry") for row in rows] == ["letters", "letters", None]
            assert (progress.streams, progress.runs) == (1, 3)

    play(scenario)


def test_new_code_is_rehearsed_against_what_a_run_told_its_goal(tmp_path: Path) -> None:
    def code(intent: str, *, more: bool = False) -> Any:
        @workflow(name="decides")
        async def decides(ctx: Context) -> None:
            decision = await ctx.goal("mail").decide(intent, criteria=["sent"])
            if more:
                await ctx.goal("mail").outcome(decision, True)
            await ctx.signal("go", of=str)

        return decides

    def runtime(workflow: Any) -> Runtime:
        return Runtime(
            tmp_path / "a.db",
            workflows=[workflow],
            goals=[MAIL],
            predicates={"is_polite": is_polite},
            clock=TestClock(),
        )

    async def scenario() -> None:
        async with runtime(code("send it")) as rt:
            await rt.with_options(id="r").start(rt.workflows["decides"])
            await rt.until_idle()

        same = await runtime(code("send it")).check()
        other = await runtime(code("keep it")).check()
        longer = await runtime(code("send it", more=True)).check()

        assert [one.verdict for one in (*same, *other, *longer)] == ["fits", "differs", "differs"]

    play(scenario)


@on_both_logs
def test_a_large_result_is_kept_apart_and_no_goal_rests_on_it(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mail_box(storage(kind, tmp_path)) as box:
            rt = await box.open()
            decision = await rt.goals.record_decision("mail", "write a lot", criteria=["sent"])
            await rt.goals.record_outcome(decision, True, result={"text": "x" * 200_000})
            rt = await box.close_and_reopen()

            assert (await rt.goals.progress("mail")).successes == 1
            (row,) = await rt.read(Query(types=("outcome-recorded",)))
            assert len(await rt.blob(json.loads(row.blobs or "{}")["result"]) or b"") > 200_000

    play(scenario)


def test_a_goal_of_a_newer_version_keeps_nothing_else_from_working() -> None:
    async def scenario() -> None:
        disk, stream = MemoryDisk(), goal_stream("mail")
        log = MemoryEventLog(disk._storage)
        await log.load([(stream, "")])
        log.append(Unit((Append(stream, 0, (NewEvent("goal-of-the-future", 1, b"{}"),)),), 1))
        await log.flush()
        log.abandon()
        async with mail_box(disk, goals=[MAIL, Goal(id="other")]) as box:
            rt = await box.open()

            assert (await rt.goals.get("other")).status == "draft"
            with pytest.raises(UnknownTagError):
                await rt.goals.get("mail")

    play(scenario)


def test_a_fork_from_a_decision_on_decides_anew() -> None:
    @workflow
    async def tries(ctx: Context, luck: bool) -> int:
        decision = await ctx.goal("mail").decide("try", criteria=["sent"])
        await ctx.goal("mail").outcome(decision, luck)
        return decision.number

    async def scenario() -> None:
        async with mail_box(workflows=[tries]) as box:
            rt = await box.open()
            run: RunHandle[int] = await rt.with_options(id="r").start(tries, False)
            before = await run.result()
            fork = await run.fork("decide#1", id="f", changed={"luck": True})

            assert (before, await fork.result()) == (1, 2)
            progress = await rt.goals.progress("mail")
            assert (progress.successes, progress.failures, progress.runs) == (1, 1, 2)

    play(scenario)


def test_a_run_that_is_tried_again_decides_nothing_twice() -> None:
    is_up = list[bool]()

    @tool
    async def deliver() -> None:
        if not is_up:
            raise OSError("down")

    @workflow
    async def tries(ctx: Context) -> bool:
        decision = await ctx.goal("mail").decide("try", criteria=["sent"])
        await ctx.call(deliver)
        return (await ctx.goal("mail").outcome(decision, True)).is_new

    async def scenario() -> None:
        async with mail_box(workflows=[tries], tools=[deliver]) as box:
            rt = await box.open()
            run: RunHandle[bool] = await rt.with_options(id="r").start(tries)
            await box.clock.settle()
            is_up.append(True)
            await run.retry()

            assert await run.result() is True
            assert (await rt.goals.progress("mail")).decisions == 1

    play(scenario)


def test_texts_that_are_too_long_are_refused() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()

            with pytest.raises(PayloadTooLargeError):
                await rt.goals.record_decision("mail", "x" * 40_000)
            with pytest.raises(PayloadTooLargeError):
                await rt.goals.record_violation("mail", "polite", "x" * 40_000)

            assert await goal_events(rt) == ["goal-defined"]

    play(scenario)


def test_a_goal_that_nobody_has_is_unknown() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()

            with pytest.raises(UnknownGoalError, match="no goal 'nowhere'"):
                await rt.goals.progress("nowhere")
            with pytest.raises(UnknownCriterionError):
                await rt.goals.record_decision("mail", "go", criteria=["never"])
            with pytest.raises(UsageError, match="is no decision"):
                await rt.goals.record_outcome("nowhere", True)
            assert await goal_events(rt, "nowhere") == []

    play(scenario)


def test_an_operator_sets_how_a_goal_stands() -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()

            first = await rt.goals.set_status("mail", "suspended", "no money", who="ada")
            again = await rt.goals.set_status("mail", "suspended")
            listed = await rt.goals.list()

            assert (first, again) == (True, False)
            assert [one.status for one in listed] == ["suspended"]

    play(scenario)


@pytest.mark.parametrize("status", ["fine", "completed", "draft"])
def test_a_goal_is_not_made_what_only_its_progress_makes_it(status: Any) -> None:
    async def scenario() -> None:
        async with mail_box() as box:
            rt = await box.open()
            await rt.goals.set_status("mail", "suspended")

            with pytest.raises(
                UsageError, match=f"status is one of 'ready', 'active', 'failed', 'suspended', not '{status}'"
            ):
                await rt.goals.set_status("mail", status)

            assert (await rt.goals.progress("mail")).status == "suspended"

    play(scenario)


def test_a_key_names_a_step_of_a_goal() -> None:
    @workflow
    async def keyed(ctx: Context) -> None:
        decision = await ctx.with_options(key="what-to-do").goal("mail").decide("send it")
        await ctx.goal("mail").outcome(decision, True)

    async def scenario() -> None:
        async with mail_box(workflows=[keyed]) as box:
            rt = await box.open()
            await (await rt.with_options(id="r").start(keyed)).result()

            assert [one["step"] for one in await events(rt, "r", "goal-told")] == ["what-to-do", "outcome#1"]

    play(scenario)


def test_runs_without_goals_have_nothing_of_them() -> None:
    @workflow
    async def plain(ctx: Context) -> str:
        return str((await ctx.call(send, "ada"))["cost"])

    async def scenario() -> None:
        async with box_with(plain) as box:
            rt = await box.open()
            await (await rt.start(plain)).result()

            assert list(rt.goals) == []
            assert await rt.goals.statistics() == dict.fromkeys(await rt.goals.statistics(), 0)
            with pytest.raises(UsageError, match="say which goal"):
                await rt.get_goal_progress()

    play(scenario)
