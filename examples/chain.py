"""Three workflows that know nothing of each other, chained by events: an order, its payment, its shipment.

    python examples/chain.py                       # three orders; each is paid and shipped
    python examples/chain.py                       # again: nothing happens twice
    perdure subscriptions --db chain.db            # how far each entry point is
    perdure log --db chain.db --type event-published

Kill it at any time and start it again: every order is paid once and shipped once.
"""

import asyncio
from typing import Any

from perdure import Context, EntryPoint, LogEvent, OnEvent, Runtime, workflow

DB = "chain.db"
LARGE = 100
ORDERS = {"o-1": 40, "o-2": 250, "o-3": 15}


@workflow
async def place_order(ctx: Context, order: str, amount: int) -> str:
    """Take an order."""
    await ctx.publish("order.placed", {"order": order, "amount": amount})
    return order


@workflow
async def take_payment(ctx: Context, event: dict[str, Any]) -> str:
    """Take the money for an order; a large one is looked at first."""
    order = event["data"]
    if order["amount"] > LARGE:
        await ctx.publish("order.large", order)
    await ctx.publish("order.paid", order)
    return str(order["order"])


@workflow
async def ship(ctx: Context, event: dict[str, Any]) -> str:
    """Ship what was paid."""
    await ctx.publish("order.shipped", event["data"])
    return str(event["data"]["order"])


ENTRY_POINTS = [
    EntryPoint("orders", place_order),
    EntryPoint("payments", take_payment, OnEvent("order.placed")),
    EntryPoint("shipments", ship, OnEvent("order.paid", where={"if": "amount", "gt": 0})),
]


async def main() -> None:
    """Place the orders, and wait until all of them are shipped."""
    shipped: list[str] = []
    done = asyncio.Event()

    async def note(event: LogEvent) -> None:
        shipped.append(f"{event.data['order']} is shipped, {event.depth} events after it was placed")
        if len(shipped) == len(ORDERS):
            done.set()

    async def warn(event: LogEvent) -> None:
        print(f"a large order: {event.data['order']}")

    async with Runtime(DB, entry_points=ENTRY_POINTS) as rt:
        rt.subscribe(note, "order.shipped", after="start")
        rt.subscribe(warn, "order.large", name="warnings")  # told of each one once, however often this is started
        for order, amount in ORDERS.items():
            await rt.trigger("orders", {"order": order, "amount": amount}, id=order)
        await asyncio.wait_for(done.wait(), 60)
    print(*sorted(shipped), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
