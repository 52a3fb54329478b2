"""One life of a process that takes webhooks in and will be killed: each delivery starts a run. No test.

`live` runs in a child of `nursery.py`. Who sends is in the test's own process, and knows what was answered.
"""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from perdure import Context, EntryPoint, Query, Runtime, Secret, Settings, Webhook, tool, workflow

ENTRY = "hook"
SECRETS = {"HOOK": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one life is to do."""

    directory: str
    port: int
    finishes: bool = False
    """Whether it ends by itself, once the file `done` is there and each recorded delivery's run has ended."""


@tool(effect="read")
async def look(payload: dict[str, Any]) -> int:
    return int(payload["n"])


@workflow
async def investigate(ctx: Context, event: dict[str, Any]) -> int:
    return await ctx.call(look, event["data"]["payload"])


def runtime(directory: Path, port: int) -> Runtime:
    """Return a runtime that takes webhooks in at a port."""
    trigger = Webhook("/hook", secret=Secret("HOOK"), scheme="standard")
    return Runtime(
        directory / "log.db",
        tools=[look],
        workflows=[investigate],
        entry_points=[EntryPoint(ENTRY, investigate, trigger=trigger)],
        settings=Settings(webhook_port=port, socket=False),
        secrets=SECRETS,
    )


async def _live(order: Order) -> None:
    directory = Path(order.directory)
    async with runtime(directory, order.port) as rt:
        while not (order.finishes and (directory / "done").exists()):  # noqa: ASYNC110 - until it is killed
            await asyncio.sleep(0.02)
        expected = len(await rt.read(Query(types=("event-published",), limit=10_000)))
        while (await rt.entry_points.statistics())[ENTRY]["status_counts"]["completed"] < expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def live(order: Order) -> None:
    """Live one life to its end, or to its kill."""
    asyncio.run(_live(order))
