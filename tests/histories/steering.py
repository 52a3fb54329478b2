"""The workflows of histories in which others have a say: people, publishers, operators. They are never changed.

What the others say is in `outside.py`. As in `code.py`, what is new gets a new workflow and a new history.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from perdure import Context, On, Retry, StepFailedError, tool, workflow
from tests.histories.code import tidy

HAPPENED: set[str] = set()
"""The types of the events so far: what tools go by that work again once somebody has intervened."""

MINUTE = timedelta(minutes=1)


async def outcome(waits: Coroutine[Any, Any, Any]) -> Any:
    """Return what is waited for, or why there is nothing."""
    try:
        return await waits
    except StepFailedError as error:
        return f"{error.error_type}: {error.error}"


@tool
async def transfer(cents: int, to: str) -> str:
    return f"{cents} to {to}"


@workflow
async def people(ctx: Context) -> list[Any]:
    """Signals, questions and approvals: taken, changed on the way, refused, too late, and no longer wanted."""
    told: list[Any] = [await ctx.signal("go", of=str)]
    told.append(await ctx.ask("how many?", of=int, choices=[1, 2, 3], to="ada"))
    told.append(await ctx.ask("and you?", of=int, several=2))
    approval = await ctx.approval(several=2, to=["ada", "ben"]).of(transfer, 100, "carol")
    told.append([approval.outcome, approval.is_edited, list(approval.by), await ctx.call_approved(approval)])
    refused = await ctx.approval().of(tidy, "everything")
    told.append([refused.outcome, refused.reason])
    told.append(await outcome(ctx.signal("nobody", of=str, timeout=MINUTE)))
    told.append(await outcome(ctx.ask("nobody?", of=str, timeout=MINUTE)))
    late = await ctx.approval(text="nobody?", timeout=MINUTE).of(tidy, "the rest")
    told.append(late.outcome)
    unwanted = ctx.race(ctx.signal("nobody", of=str), ctx.ask("nobody?", of=str), ctx.sleep(20))
    return [*told, (await unwanted)[0]]


@workflow
async def listener(ctx: Context) -> list[Any]:
    """Published events: taken in order, passed over, its own, one that is not published, one no longer wanted."""
    taken = [(await ctx.event("order.paid", where={"if": "n", "gt": 1})).data]
    both: list[str | On] = ["order.paid", On("order.lost", {"if": "n", "eq": 3})]
    taken += [(await ctx.any_event(both)).data for _ in range(3)]
    await ctx.publish("order.seen", {"count": len(taken)})
    taken.append((await ctx.event("order.seen")).data)
    taken.append(await outcome(ctx.event("nobody", timeout=MINUTE)))
    number, _ = await ctx.race(ctx.event("nobody"), ctx.sleep(20))
    return [*taken, number]


@workflow
async def relay(ctx: Context, found: list[Any]) -> list[Any]:
    """A run that goes on as a new one, with the signals and the place in the events that it has come to."""
    if len(found) < 3:
        said = await ctx.signal("go", of=str)
        paid = await ctx.event("order.paid")
        ctx.continue_as_new([*found, [said, paid.data["n"]]])
    return found


@tool(failure_threshold=100, retry=Retry(attempts=1))
async def brittle(what: str) -> str:
    """Fail until an operator has had the run tried again."""
    if "run-retried" not in HAPPENED:
        raise ConnectionError(f"{what} is down")
    return what


@tool(effect="irreversible")
async def wire(cents: int) -> str:
    """Hang until somebody has said that it did not happen."""
    if "step-not-done" not in HAPPENED:
        await asyncio.get_running_loop().create_future()
    return f"wired {cents}"


@workflow
async def steered(ctx: Context) -> list[str]:
    """A run that is paused, set right, retried and forked."""
    done = [await ctx.call(tidy, "before")]
    await ctx.sleep(30)
    done.append(await ctx.call(wire, 500))

    async def rest() -> str:
        await ctx.sleep(30)
        return await ctx.call(tidy, "beside")

    async def fail() -> str:
        await ctx.sleep(10)
        return await ctx.call(brittle, "bank")

    return [*done, *await ctx.gather(rest(), fail())]


@workflow
async def lined(ctx: Context, name: str) -> str:
    """A run that waits for its turn behind another one."""
    await ctx.sleep(5)
    return await ctx.call(tidy, name)
