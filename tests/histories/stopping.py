"""The workflow of a history that stands still: interrupted, and paused by itself. It is never changed."""

from datetime import timedelta
from typing import Any

from perdure import Context, workflow
from tests.histories.code import tidy
from tests.histories.steering import outcome

MINUTE = timedelta(minutes=1)
TALK = "talk"


@workflow
async def stopped(ctx: Context) -> list[Any]:
    """Pauses that are ended, that nobody ends in time, and that are no longer wanted; a crash before them."""
    await ctx.sleep(5)
    told: list[Any] = [await ctx.call(tidy, "before")]
    told.append(await ctx.pause("review", result={"draft": told[0]}, text="is it good?", to="ada"))
    told.append(await outcome(ctx.pause("late", text="nobody?", timeout=MINUTE)))
    number, _ = await ctx.race(ctx.pause("unwanted", text="nobody?"), ctx.sleep(20))
    told.append(await ctx.gather(ctx.pause("left", of=int), ctx.pause("right", of=int)))
    return [*told, number]
