"""Random runs that pursue one goal, killed wherever the process may die: what is counted is what it would have been."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import Constraint, Context, Criterion, Goal, GoalDecision, Query, Runtime, Settings, workflow
from perdure.actors.state.goals import goal_stream
from perdure.testing import TestClock
from tests.properties.test_crash_points import keep_or_park
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, disk_until, play

Program = list[tuple[str, Any]]

GOAL = Goal(
    id="g",
    criteria=[Criterion(id="c0", target="90%"), Criterion(id="c1", weight=0.5)],
    constraints=[Constraint(id="small", type="soft", check={"if": "result", "lt": 5}), Constraint(id="law")],
)


@workflow
async def pursue(ctx: Context, program: Program) -> list[Any]:
    return await perform(ctx, program)


async def perform(ctx: Context, program: Program) -> list[Any]:
    found: list[Any] = []
    made: list[GoalDecision] = []
    goal = ctx.goal("g")
    for kind, argument in program:
        match kind:
            case "decide":
                made.append(await goal.decide(f"try {argument}", criteria=[f"c{argument % 2}"]))
            case "end" if made:
                outcome = await goal.outcome(made[argument % len(made)], argument % 3 > 0, result=argument)
                found.append([outcome.is_new, list(outcome.violated)])
            case "violate":
                await goal.violation("small", "seen")
            case "ask":
                found.append((await goal.progress()).goal)
            case "sleep":
                await ctx.sleep(argument)
            case "map":
                found.append(await ctx.map(partial(perform, ctx), argument, concurrency=2))
            case _:
                pass
    return found


leaves = st.one_of(
    st.tuples(st.sampled_from(["decide", "end", "end", "decide"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["violate", "ask"]), st.just(0)),
    st.tuples(st.just("sleep"), st.sampled_from([1, 500])),
)
programs = st.recursive(
    st.lists(leaves, min_size=1, max_size=5),
    lambda inner: st.lists(
        st.one_of(leaves, st.tuples(st.just("map"), st.lists(inner, max_size=2))), min_size=1, max_size=4
    ),
    max_leaves=6,
)
TOGETHER: list[Program] = [
    [("decide", 1), ("sleep", 1), ("end", 1), ("end", 1), ("decide", 2), ("end", 9)],
    [("map", [[("decide", 3), ("end", 5)], [("decide", 4), ("sleep", 500), ("end", 4)]]), ("ask", 0)],
]


async def finish(box: Box, rt: Runtime, count: int) -> tuple[Any, ...]:
    """Let time pass until all runs have ended; return what became of them and of the goal."""
    await box.clock.advance(4000)
    views = [await rt.run(f"r{n}").status() for n in range(count)]
    assert {view.status for view in views} == {"completed"}, views
    progress = await rt.goals.progress("g")
    achieved = await rt.read(Query(stream=goal_stream("g"), types=("goal-achieved",)))
    assert len(achieved) == (progress.status == "completed")
    assert progress.recommendation != "complete" or achieved
    return (
        [view.result for view in views],
        [(one.decisions, one.successes, one.failures, one.met) for one in progress.criteria],
        (progress.decisions, progress.successes, progress.failures, progress.runs, progress.overall),
        (progress.violations, progress.unjudged),
    )


async def check_log(rt: Runtime) -> None:
    rows = await rt.read(Query(limit=10_000))
    told = Counter(json.loads(row.data or "{}")["step"] + row.stream for row in rows if row.type == "goal-told")
    assert max(told.values(), default=1) == 1
    for kind in ("decision-made", "outcome-recorded"):
        numbers = Counter(json.loads(row.data or "{}")["decision"] for row in rows if row.type == kind)
        assert max(numbers.values(), default=1) == 1


async def live_and_crash(given_programs: list[Program], chosen: Settings) -> int:
    disk = MarkedDisk()
    whole = Box(disk, TestClock(), workflows=[pursue], goals=[GOAL], settings=chosen)
    rt = await whole.open()
    for number, program in enumerate(given_programs):
        await rt.with_options(id=f"r{number}").start(pursue, program)
    born = disk.position
    expected = await finish(whole, rt, len(given_programs))
    await check_log(rt)
    await whole.close()
    borders = sorted(position for position in disk.borders if position >= born)
    for position in borders:
        at = max(row.at for row in disk._storage.events if row.position <= position)
        clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))
        box = Box(disk_until(disk, position), clock, workflows=[pursue], goals=[GOAL], settings=chosen)
        rt = await box.open()
        again = await finish(box, rt, len(given_programs))
        await check_log(rt)
        await box.close()
        assert again == expected, f"after a crash at {position}"
    return len(borders)


def test_a_crash_at_any_border_counts_nothing_twice_and_loses_nothing() -> None:
    async def scenario() -> None:
        assert await live_and_crash(TOGETHER, Settings(idle_after=timedelta(days=1))) > 15

    play(scenario)


@settings(max_examples=15, deadline=None)
@given(given_programs=st.lists(programs, min_size=1, max_size=2), chosen=keep_or_park)
@example(given_programs=TOGETHER, chosen=Settings(idle_after=timedelta(seconds=1)))
def test_whatever_runs_tell_a_goal_is_counted_once(given_programs: list[Program], chosen: Settings) -> None:
    async def scenario() -> None:
        await live_and_crash(given_programs, chosen)

    play(scenario)
