"""The status screen of `perdure serve`: what it says of runs, requests, questions and ways in, and how large it is."""

import asyncio
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from perdure import Context, workflow
from perdure.runtime.cli.board import RECENT, Board
from perdure.store.records import Query
from tests.support.api import BY_HAND, OFTEN, WORKFLOWS, Opened, opened


@workflow
async def halts(ctx: Context) -> str:
    return str(await ctx.pause("look at it"))


def screen(path: Path, scenario: Callable[[Opened], Awaitable[Any]]) -> list[str]:
    """What the screen shows after a scenario, line by line."""

    async def main() -> list[str]:
        async with opened(path, entry_points=[OFTEN, BY_HAND], workflows=[*WORKFLOWS, halts]) as served:
            board = Board("perdure serve app.py", 0)
            await scenario(served)
            await served.rt.until_idle()
            for event in await served.rt.read(Query(limit=10_000)):
                board.add(event)
            await board.read(served.rt, served.api, 0)
            out = StringIO()
            Console(file=out, width=120, color_system=None).print(board.draw(3_000_000, served.api.state))
            return [line.rstrip() for line in out.getvalue().splitlines()]

    return asyncio.run(main())


def test_it_says_what_goes_on(tmp_path: Path) -> None:
    async def scenario(served: Opened) -> None:
        for body in ({"workflow": "double", "id": "r1"}, {"workflow": "asks", "id": "r2"}):
            await served.post("/v1/runs", body)
        await served.refused("GET", "/v1/runs/nobody")
        await served.rt.run("r1").result()
        await served.post("/v1/entry-points/by-hand/trigger", {"id": "r3"})
        await served.rt.run("r3").result()
        await served.post("/v1/runs", {"workflow": "halts", "id": "r4"})
        await served.rt.until_idle()

    shown = screen(tmp_path / "a.db", scenario)

    assert shown[0] == "perdure serve app.py  ready  up 3 s"
    lines = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in shown[1:7]}
    assert lines["runs"].endswith("4 started, 0 steps in flight")
    assert lines["http"] == "5 requests, 1 refused, 0 failed, 0 at once, 0 streams"
    assert "entry point  often: 0 active, 0 so far" in shown
    assert "entry point  by-hand: 0 active, 1 so far" in shown
    assert any(line.startswith("questions    ") and "r2:ask#1" in line for line in shown)
    assert any(line.startswith("schedule     often: next ") for line in shown)
    table = {line.split()[0]: line.split()[1:3] for line in shown[-4:]}
    assert table == {
        "r1": ["double", "completed"], "r2": ["asks", "waiting"], "r3": ["double", "completed"],
        "r4": ["halts", "paused"],
    }  # fmt: skip


def test_it_shows_the_newest_runs_and_no_more_lines_the_more_there_are(tmp_path: Path) -> None:
    async def some(served: Opened, count: int) -> None:
        for number in range(count):
            await served.post("/v1/runs", {"workflow": "double", "id": f"r{number}"})
            await served.rt.run(f"r{number}").result()

    few = screen(tmp_path / "a.db", lambda served: some(served, RECENT))
    many = screen(tmp_path / "b.db", lambda served: some(served, 3 * RECENT))

    assert len(few) == len(many)
    assert [line.split()[0] for line in many[-RECENT:]] == [
        f"r{number}" for number in reversed(range(2 * RECENT, 3 * RECENT))
    ]
