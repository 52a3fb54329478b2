"""Orders over three services: stock, payments and shipping. When one fails, what the others did is undone, last first.

    python examples/order_saga.py [FOLDER]

The first order is shipped. Of the second one the parcel is refused: its payment is given back, then its goods. Of the
third one the payment cannot be given back either, which no program can make good: the goods are free again all the
same, and the run waits until somebody has seen to it. What the services are told is printed as they are told it; on a
second start they are told nothing, for the log has the answers.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from perdure import Context, Retry, RunFailedError, Runtime, tool, workflow

PERSISTENT = Retry(attempts=3, backoff=timedelta(milliseconds=20))


# The services. Each is told once what it is told here, or again with the same idempotency key after a crash.


@tool
async def reserve(order: str, goods: str) -> str:
    print(f"  stock     reserve {goods}")
    return f"{order}-goods"


@tool
async def release(reservation: str) -> None:
    print(f"  stock     release {reservation}")


@tool
async def charge(order: str, amount: int) -> str:
    print(f"  payments  charge {amount}")
    return f"{order}-payment"


@tool
async def refund(payment: str) -> None:
    print(f"  payments  refund {payment}")
    if payment.startswith("order-3"):
        raise ConnectionError("the bank does not answer")


@tool
async def ship(order: str, to: str) -> str:
    print(f"  shipping  send to {to}")
    if to == "the moon":
        raise ValueError("nobody delivers to the moon")
    return f"{order}-parcel"


@workflow
async def order(ctx: Context, goods: str, amount: int, to: str) -> str:
    """Each call says what undoes it; that gets what the call returned."""
    number = ctx.run_id
    async with ctx.saga() as saga:
        await saga.undo_with(release).call(reserve, number, goods)
        await saga.undo_with(refund, retry=PERSISTENT).call(charge, number, amount)
        return await saga.call(ship, number, to)


async def tell_of(rt: Runtime, id: str, goods: str, amount: int, to: str) -> None:
    """Place an order, stand in for the person who is needed, and say how it ended."""
    print(f"{id}: {goods} for {amount}, to {to}")
    run = await rt.with_options(id=id).start(order, goods, amount, to)
    await rt.until_idle()
    for step in (await run.status()).in_doubt:
        print(f"  needs attention: {step} (perdure settle {id} '{step}' --done)")
        await run.settle_done(step)
        print("  somebody gave the money back by hand, and said so")
    try:
        print(f"  => {await run.result()}")
    except RunFailedError as error:
        print(f"  => {error}")


async def main() -> None:
    db = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "orders.db"
    async with Runtime(db, workflows=[order]) as rt:
        await tell_of(rt, "order-1", "a lamp", 40, "Lisbon")
        await tell_of(rt, "order-2", "a desk", 300, "the moon")
        await tell_of(rt, "order-3", "a chair", 90, "the moon")


if __name__ == "__main__":
    asyncio.run(main())
