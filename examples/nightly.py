"""A report on a folder every night at half past two in Berlin, made up for once after nights without the program.

    python examples/nightly.py                  # makes one report now and says when the next one is due
    python examples/nightly.py --week           # a week in March, on a clock moved by hand: the clocks are changed, and
                                                # for two nights the program is not there
    perdure serve examples/nightly.py --db nightly.db     # every night, until it is stopped
    perdure schedules --db nightly.db                     # when it is next; also pause, resume, fire

The report is `report.md` in the folder from which it is started.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from perdure import Context, EntryPoint, Query, Runtime, Schedule, tool, workflow
from perdure.testing import Crashable, TestClock

DB = "nightly.db"
BERLIN = ZoneInfo("Europe/Berlin")


@tool(effect="read")
def survey() -> dict[str, int]:
    """Count the files of each kind in this folder, hidden ones and the log apart."""
    found: dict[str, int] = {}
    for path in Path().iterdir():
        if path.is_file() and not path.name.startswith((".", DB)):
            found[path.suffix or "none"] = found.get(path.suffix or "none", 0) + 1
    return dict(sorted(found.items()))


@tool(effect="idempotent")
def write(text: str) -> int:
    """Write the report; the same text again is the same report."""
    return Path("report.md").write_text(text, encoding="utf-8")


@workflow
async def report(ctx: Context, event: dict[str, Any]) -> str:
    """Survey the folder and write down what is there."""
    night = datetime.fromisoformat(event["due"]).astimezone(BERLIN)
    kinds = await ctx.call(survey)
    title = f"# Files on {night:%a %d %B %H:%M}"
    note = f"\n\nNights made up for: {event['missed']}" if event["missed"] else ""
    await ctx.call(write, f"{title}{note}\n\n" + "".join(f"- {kind}: {count}\n" for kind, count in kinds.items()))
    return title.removeprefix("# ") + (f", nights made up for: {event['missed']}" if event["missed"] else "")


nightly = EntryPoint(
    "nightly",
    report,
    Schedule(cron="30 2 * * *", time_zone="Europe/Berlin", misfire="one", overlap="skip"),
    description="A report on the files of a folder",
)


async def once() -> None:
    """Make a report now, beside the nightly ones."""
    async with Runtime(DB, entry_points=[nightly]) as rt:
        run = await rt.schedules.fire_now("nightly", who="example")
        print(await rt.run(run, report).result())
        due = await rt.schedules.next("nightly")
        print(f"next: {due.astimezone(BERLIN):%H:%M} in Berlin" if due else "paused")


async def week() -> None:
    """Live through a week on a clock that is moved by hand."""
    clock = TestClock(datetime(2026, 3, 25, 12, tzinfo=UTC))
    async with Crashable(entry_points=[nightly], clock=clock) as box:
        rt = await box.open()
        await clock.advance(timedelta(days=4))  # on Sunday the 29th there is no half past two
        await box.crash()
        await clock.advance(timedelta(days=2))
        rt = await box.open()
        await clock.advance(timedelta(days=1))
        for fired in await rt.read(Query(types=("schedule-fired",))):
            run = msgspec.json.decode(fired.data or "{}")["run"]
            print(await rt.run(run, report).result())


if __name__ == "__main__":
    asyncio.run(week() if "--week" in sys.argv else once())
