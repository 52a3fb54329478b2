"""What becomes of children that the code gives an id, when their parent is forked: each fork has its own."""

from typing import Any

import pytest

from perdure import Context, RunFailedError, RunHandle, Runtime, workflow
from tests.support.runs import Box, box_with, disk_until, events, on_both_logs, play, storage

begun: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    begun.clear()


@workflow
async def leaf(ctx: Context, name: str) -> str:
    begun.append(ctx.run_id)
    await ctx.sleep(1)
    return name


@workflow
async def parent(ctx: Context, rounds: int = 2) -> list[str]:
    return [await ctx.with_options(id=f"leaf-{n}").run(leaf, f"leaf {n}") for n in range(rounds)]


@workflow
async def launcher(ctx: Context, name: str) -> str:
    child = await ctx.with_options(id="report").start(leaf, name)
    return child.id


@workflow
async def chained(ctx: Context, number: int) -> str:
    said: str = await ctx.with_options(id=f"leaf-{number}").run(leaf, f"leaf {number}")
    if number < 2:
        ctx.continue_as_new(number + 1)
    return said


def opened(**options: Any) -> Box:
    return box_with(parent, launcher, chained, leaf, **options)


async def done(box: Box, run: RunHandle[Any], seconds: float = 5) -> Any:
    await box.clock.advance(seconds)
    return await run.result()


async def forked(rt: Runtime, run: str, step: str, **options: Any) -> RunHandle[Any]:
    return await rt.run(run).fork(step, **options)


async def children(rt: Runtime, run: str) -> list[str]:
    return [event["run"] for event in await events(rt, run, "child-started")]


@on_both_logs
def test_a_fork_takes_over_finished_children_and_gives_those_that_it_starts_anew_an_id_of_its_own(
    kind: str, tmp_path: Any
) -> None:
    async def scenario() -> None:
        async with opened(on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await done(box, await rt.with_options(id="p").start(parent))

            fork = await forked(rt, "p", "leaf#2", id="f")

            assert await done(box, fork) == ["leaf 0", "leaf 1"]
            [own] = await children(rt, "f")
            assert own.startswith("leaf-1~f")
            assert begun == ["leaf-0", "leaf-1", own]
            assert (await rt.run(own).status()).parent == "f"

    play(scenario)


def test_forks_of_one_run_and_forks_of_forks_do_not_take_each_others_children() -> None:
    async def scenario() -> list[str]:
        async with opened() as box:
            rt = await box.open()
            await done(box, await rt.with_options(id="p").start(parent, 1))
            first = await forked(rt, "p", "leaf#1", id="f1")
            second = await forked(rt, "p", "leaf#1", id="f2")
            await done(box, first)
            await done(box, second)
            third = await forked(rt, "f1", "leaf#1", id="f3")
            assert await done(box, third) == ["leaf 0"]
            return begun

    assert len(set(play(scenario))) == 4


def test_a_fork_that_comes_first_has_the_id_and_the_run_that_it_was_forked_from_gets_another_one() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            original = await rt.with_options(id="p").start(parent)
            await box.clock.advance(0.5)
            await rt.run("p").pause("look at it")
            await box.clock.advance(1)
            fork = await forked(rt, "p", "leaf#1", id="f", changed={"rounds": 2})
            await done(box, fork)
            assert (await children(rt, "f"))[1] == "leaf-1"

            await original.resume()

            assert await done(box, original) == ["leaf 0", "leaf 1"]
            assert (await children(rt, "p"))[1].startswith("leaf-1~f")

    play(scenario)


def test_a_child_that_was_in_flight_at_the_fork_is_started_anew_under_the_forks_own_id() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            await rt.with_options(id="p").start(parent, 1)
            await box.clock.advance(0.5)

            fork = await forked(rt, "p", "leaf#1", id="f")

            assert await done(box, fork) == ["leaf 0"]
            assert await rt.run("p").result() == ["leaf 0"]
            assert len(set(begun)) == 2

    play(scenario)


def test_a_detached_child_with_the_same_input_is_the_same_run_for_a_fork_and_with_another_one_its_own() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            await done(box, await rt.with_options(id="p").start(launcher, "a"))

            same = await forked(rt, "p", "leaf#1", id="f1")
            other = await forked(rt, "p", "leaf#1", id="f2", changed={"name": "b"})

            assert await done(box, same) == "report"
            assert (await done(box, other)).startswith("report~f")
            assert len(begun) == 2

    play(scenario)


def test_a_run_that_a_fork_goes_on_as_has_children_of_its_own_too() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            await done(box, await rt.with_options(id="p").start(chained, 1))
            fork = await forked(rt, "p", "leaf#1", id="f")

            assert await done(box, fork) == "leaf 2"
            assert len(set(begun)) == 4

    play(scenario)


def test_the_id_of_a_stranger_is_still_a_conflict_in_a_fork() -> None:
    async def scenario() -> None:
        async with opened() as box:
            rt = await box.open()
            await done(box, await rt.with_options(id="p").start(parent, 1))
            await done(box, await rt.with_options(id="leaf-1").start(leaf, "somebody else's"))
            fork = await forked(rt, "p", "leaf#1", id="f", changed={"rounds": 2})
            with pytest.raises(RunFailedError, match="leaf-1"):
                await done(box, fork)

    play(scenario)


def test_after_a_crash_at_any_event_a_fork_has_the_children_that_it_would_have_had() -> None:
    async def scenario() -> None:
        async with opened() as whole:
            rt = await whole.open()
            await done(whole, await rt.with_options(id="p").start(parent))
            await done(whole, await forked(rt, "p", "leaf#2", id="f"))
            [own] = await children(rt, "f")
            history = await rt.run("f").history()
        whole_units = [event.position for event in history if event.type != "child-started"]  # its child starts with it
        for position in whole_units:
            async with Box(disk_until(whole.storage, position), whole.clock, workflows=[parent, leaf]) as box:
                rt = await box.open()
                assert await done(box, rt.run("f")) == ["leaf 0", "leaf 1"]
                assert await children(rt, "f") == [own]

    play(scenario)
