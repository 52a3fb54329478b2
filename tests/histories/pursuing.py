"""The workflows of histories that pursue goals. They are never changed: what is new gets a new one."""

from typing import Any

from perdure import Constraint, Context, Criterion, Goal, workflow

GOAL = Goal(
    id="golden",
    criteria=[Criterion(id="found", target="80%"), Criterion(id="noted", weight=0.5)],
    constraints=[
        Constraint(id="cheap", type="soft", check={"if": "result.cost", "le": 100}),
        Constraint(id="polite", type="soft"),
    ],
)


@workflow
async def pursuit(ctx: Context) -> list[Any]:
    """Decisions and outcomes: of branches, twice, against a constraint, across a sleep, to the goal's end."""
    goal = ctx.goal("golden")
    first = await goal.decide(
        "look", criteria=["found"], options=["here", "there"], chosen="here", reasoning="near", constraints=["cheap"]
    )
    told: list[Any] = [(await goal.progress()).decisions]
    told.append((await goal.outcome(first, False, result={"cost": 5}, error="nothing there")).recommendation)
    second = await goal.decide("look again", criteria=["found"], kind="search", context={"tries": 1})
    await ctx.sleep(20)
    told.append((await goal.outcome(second, True, result={"cost": 500}, summary="dear")).violated)
    told.append((await goal.outcome(first, True)).is_new)
    await goal.violation("polite", "somebody complained")

    async def once_more(number: int) -> bool:
        decision = await goal.decide(f"look at {number}", criteria=["found", "noted"])
        return (await goal.outcome(decision, True, result=None)).is_new

    told.append(await ctx.map(once_more, range(3)))
    end = await goal.progress()
    return [*told, end.overall, end.violations, end.unjudged]
