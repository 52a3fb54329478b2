"""How the figures of an entry point tell its open runs apart: in line, at work, waiting out of memory, paused."""

from typing import Any

from perdure import Context, EntryPoint, RunHandle, Runtime, workflow
from tests.support.runs import Box, box_with, play


@workflow
async def job(ctx: Context, does: str) -> str:
    match does:
        case "work":
            await ctx.sleep(1)
        case "wait":
            await ctx.signal("go", of=str)
        case "stop":
            await ctx.pause("look")
        case _:
            await ctx.run(job, "wait")
    return does


def entered(max_concurrent: int = 3) -> Box:
    return box_with(entry_points=[EntryPoint("one", job, max_concurrent=max_concurrent), EntryPoint("two", job)])


async def standing(rt: Runtime, entry: str = "one") -> dict[str, int]:
    """The open runs of an entry point by how they stand, without those of which there are none."""
    figures: dict[str, Any] = (await rt.get_stats())["streams"][entry]
    ends = ("completed", "failed", "cancelled")
    found = {name: number for name, number in figures["status_counts"].items() if number and name not in ends}
    assert sum(found.values()) == figures["active_executions"]
    return found


def test_runs_that_wait_or_are_paused_do_not_count_as_running() -> None:
    async def scenario() -> None:
        async with entered(max_concurrent=1) as box:
            rt = await box.open()
            await rt.trigger("one", {"does": "wait"}, id="waits")
            await box.clock.settle()
            await rt.trigger("one", {"does": "stop"}, id="stops")
            await box.clock.settle()
            await rt.trigger("one", {"does": "wait"}, id="held")
            await box.clock.settle()
            await rt.run("held").pause("look at it")
            await rt.trigger("one", {"does": "work"}, id="works")
            await rt.trigger("one", {"does": "work"}, id="next")
            await box.clock.settle()

            counts = {"pending": 1, "running": 1, "waiting": 1, "paused": 2}
            assert await standing(rt) == counts
            assert await standing(rt, "two") == {}
            assert (await rt.entry_points.statistics())["one"]["available_slots"] == 0

            rt = await box.crash_and_reopen()
            await box.clock.settle()
            assert await standing(rt) == counts

            await rt.run("held").resume()
            await box.clock.advance(3)
            assert await standing(rt) == {"waiting": 2, "paused": 1}

    play(scenario)


def test_children_and_forks_that_are_paused_are_none_of_the_runs_of_an_entry_point() -> None:
    async def scenario() -> dict[str, int]:
        async with entered() as box:
            rt = await box.open()
            await rt.trigger("one", {"does": "parent"}, id="parent")
            await rt.trigger("one", {"does": "wait"}, id="waits")
            await box.clock.settle()
            fork: RunHandle[str] = await rt.run("waits").fork("signal#1")
            await box.clock.settle()
            child = (await rt.run("parent").status()).children[0]
            await rt.run(child).pause("look at it")
            await fork.pause("look at it")
            await box.clock.advance(61)
            return await standing(rt)

    assert play(scenario) == {"waiting": 2}


def test_a_run_that_was_paused_in_line_counts_as_paused_once_it_is_passed_over() -> None:
    async def scenario() -> None:
        async with entered(max_concurrent=1) as box:
            rt = await box.open()
            for name in "ab":
                await rt.trigger("one", {"does": "work"}, id=name)
            await box.clock.settle()
            await rt.run("b").pause("look at it")
            assert await standing(rt) == {"pending": 1, "running": 1}

            await box.clock.advance(1)

            assert await standing(rt) == {"paused": 1}

    play(scenario)
