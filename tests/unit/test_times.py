"""Whatever time an application or a workflow is told is an aware datetime in UTC, of the runtime's clock."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from perdure import Constraint, Context, EntryPoint, Goal, Schedule, workflow
from tests.support.runs import HOUR, box_with, play

TOLD: list[datetime] = []


@workflow
async def looks_at_the_clock(ctx: Context, event: Any = None) -> str:
    del event
    TOLD.append(ctx.now())
    await ctx.state.write("k", 1, "global")
    await ctx.publish("news", 1)
    await ctx.sleep(1)
    return ctx.now().isoformat()


POINTS = [
    EntryPoint("by-hand", looks_at_the_clock),
    EntryPoint("hourly", looks_at_the_clock, Schedule(cron="0 * * * *", time_zone="Europe/Berlin")),
]


POLITE = Goal(id="polite", name="Be polite", constraints=[Constraint(id="tone")])


def times_in(value: Any) -> Iterator[datetime]:
    """Every datetime within a value, however deep."""
    match msgspec.to_builtins(value, builtin_types=(datetime,)):
        case datetime() as found:
            yield found
        case dict() as fields:
            for each in fields.values():
                yield from times_in(each)
        case list() | tuple() as items:
            for each in items:
                yield from times_in(each)
        case _:
            pass


@pytest.mark.row("A3-103")
def test_every_time_that_is_told_is_aware_and_utc_and_that_of_the_clock() -> None:
    TOLD.clear()

    async def scenario() -> None:
        async with box_with(looks_at_the_clock, entry_points=POINTS, goals=[POLITE]) as box:
            rt = await box.open()
            begin = box.clock.now
            conversation = rt.conversation("c")
            run = await conversation.trigger("by-hand", {})
            waits = asyncio.ensure_future(rt.entry_points.wait("by-hand", run))
            await box.clock.advance(HOUR)
            end = box.clock.now
            await rt.goals.record_violation("polite", "tone")
            [violation] = (await rt.get_goal_progress("polite"))["constraint_violations"]
            told: dict[str, Any] = {
                "result": await waits,
                "events": await rt.events.history(limit=1000),
                "changes": await rt.state.recent_changes(),
                "schedules": await rt.schedules.list(),
                "next": await rt.schedules.next("hourly"),
                "conversation": await conversation.status(),
                "checkpoints": await rt.run(run).checkpoints(),
                "goal": await rt.goals.progress("polite"),
                "violation": datetime.fromisoformat(violation["timestamp"]),
                "workflow": TOLD,
                "output": datetime.fromisoformat(str(await rt.run(run).result())),
                "event": datetime.fromisoformat((await rt.events.history("news"))[0].to_dict()["timestamp"]),
            }

            assert TOLD[0] == begin
            for name, value in told.items():
                found = list(times_in(value))
                assert found, name
                assert {one.utcoffset() for one in found} == {timedelta(0)}, name
                assert {one.tzinfo for one in found} <= {UTC}, name
                assert all(begin <= one <= end + HOUR for one in found), name
                assert all(written.endswith("Z") for written in msgspec.json.decode(msgspec.json.encode(found))), name

    play(scenario)
