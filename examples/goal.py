"""A goal that several runs work on: what they decide, what comes of it, and a rule that is checked each time.

`python goal.py`, and then `perdure goal support --db goal.db`: the same from the log, with the places to look at.
"""

import asyncio
from typing import Any

from perdure import Constraint, Context, Criterion, Goal, Runtime, StepFailedError, tool, workflow

SUPPORT = Goal(
    id="support",
    name="Answer the customers",
    criteria=[
        Criterion(id="answered", description="letters are answered", target="90%"),
        Criterion(id="refunded", description="wrong bills are paid back", weight=0.5),
    ],
    constraints=[Constraint(id="budget", type="soft", check={"if": "result.refund", "le": 50})],
)


@tool
async def write_letter(to: str, refund: int) -> dict[str, Any]:
    """Write to a customer."""
    if to == "Nobody":
        raise LookupError("no such customer")
    return {"text": f"Dear {to}, here are {refund} EUR.", "refund": refund}


@workflow
async def answer(ctx: Context, customer: str, refund: int = 0) -> str:
    """Answer a letter, and tell the goal how it went."""
    goal = ctx.goal("support")
    criteria = ["answered", "refunded"] if refund else ["answered"]
    decision = await goal.decide(f"write to {customer}", criteria=criteria, options=["write", "call"], chosen="write")
    try:
        letter = await ctx.call(write_letter, customer, refund)
    except StepFailedError as error:
        outcome = await goal.outcome(decision, success=False, error=error.error)
    else:
        outcome = await goal.outcome(decision, success=True, result=letter)
    return outcome.recommendation


async def main() -> None:
    """Answer five letters."""
    async with Runtime("goal.db", workflows=[answer], goals=[SUPPORT]) as rt:
        for number, (customer, refund) in enumerate(
            [("Nobody", 0), ("Ada", 0), ("Ben", 20), ("Cleo", 80), ("Dora", 0)], 1
        ):
            run = await rt.with_options(id=f"letter-{number}").start(answer, customer, refund)
            print(f"{customer}: {await run.result()}")
        progress = await rt.goals.progress("support")
        print(f"{progress.overall:.0%} by {progress.runs} runs; violations: {progress.violations}")


if __name__ == "__main__":
    asyncio.run(main())
