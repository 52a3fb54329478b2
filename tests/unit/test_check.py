"""Whether new code fits open runs: what `check` says of changes that were made, and that it changes nothing."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import CheckedRun, Context, Runtime, UsageError, Workflow, tool, workflow
from perdure.runtime.cli import main
from tests.support.runs import DAY, box_with, play

CALLS: list[str] = []


@tool(effect="read")
async def fetch(name: str) -> str:
    CALLS.append(name)
    return name


@tool(name="get", effect="read")
async def renamed(name: str) -> str:
    return name


@tool(name="fetch", effect="read")
async def numbers(name: str) -> int:
    return len(name)


async def as_it_was(ctx: Context, name: str) -> str:
    first = await ctx.call(fetch, name)
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(fetch, "y"))
    await ctx.sleep(DAY)
    await ctx.signal("go", of=str)
    return first


async def with_a_renamed_step(ctx: Context, name: str) -> str:
    first = await ctx.call(renamed, name)
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(fetch, "y"))
    await ctx.sleep(DAY)
    return first


async def with_an_inserted_step(ctx: Context, name: str) -> str:
    first = await ctx.call(fetch, name)
    await ctx.call(renamed, first)
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(fetch, "y"))
    await ctx.sleep(DAY)
    return first


async def with_other_arguments(ctx: Context, name: str) -> str:
    first = await ctx.call(fetch, name.upper())
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(fetch, "y"))
    await ctx.sleep(DAY)
    return first


async def with_another_step_in_a_branch(ctx: Context, name: str) -> str:
    first = await ctx.call(fetch, name)
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(renamed, "y"))
    await ctx.sleep(DAY)
    return first


async def with_another_result(ctx: Context, name: str) -> str:
    return str(await ctx.call(numbers, name))


async def with_a_step_at_its_end(ctx: Context, name: str) -> str:
    first = await as_it_was(ctx, name)
    return await ctx.call(renamed, first)


async def with_a_marked_step(ctx: Context, name: str) -> str:
    if ctx.version("look first") >= 1:
        await ctx.call(renamed, name)
    return await as_it_was(ctx, name)


async def that_fails_now(ctx: Context, name: str) -> str:
    first = await ctx.call(fetch, name)
    await ctx.gather(ctx.call(fetch, "x"), ctx.call(fetch, "y"))
    await ctx.sleep(DAY)
    raise ValueError(first)


async def of_another_input(ctx: Context, number: int) -> str:
    return str(number) + await ctx.call(fetch, "x")


Code = Callable[..., Awaitable[str]]


def old_run(log: Path) -> None:
    """Leave a run behind that sleeps after its first steps."""

    async def scenario() -> None:
        async with box_with(workflow(name="w")(as_it_was), on=log) as box:
            rt = await box.open()
            await rt.with_options(id="old").start(rt.workflows["w"], "ada")
            await rt.until_idle()

    CALLS.clear()
    play(scenario)
    CALLS.clear()


def checked(log: Path, code: Code | None) -> list[CheckedRun]:
    workflows: list[Workflow[..., Any]] = [] if code is None else [workflow(name="w")(code)]

    async def scenario() -> list[CheckedRun]:
        return await Runtime(log, workflows=workflows).check()

    return play(scenario)


@pytest.mark.parametrize(
    ("code", "step", "account"),
    [
        (with_a_renamed_step, "fetch#1", ["fetch#1 (step fetch)", "the code asks for step get, at get#1"]),
        (with_an_inserted_step, "gather#1", ["gather#1 (branches", "the code asks for step get, at get#1"]),
        (with_other_arguments, "fetch#1", ["with other arguments", '"ada"', '"ADA"']),
        (with_another_step_in_a_branch, "gather#1.1/fetch#1", ["the code asks for step get, at gather#1.1/get#1"]),
    ],
)
def test_code_that_differs_is_shown_beside_what_is_recorded(
    tmp_path: Path, code: Code, step: str, account: list[str]
) -> None:
    old_run(tmp_path / "x.db")

    (found,) = checked(tmp_path / "x.db", code)

    assert (found.run, found.workflow, found.verdict, found.step) == ("old", "w", "differs", step)
    for part in account:
        assert part in found.account


@pytest.mark.parametrize("code", [as_it_was, with_a_step_at_its_end, with_a_marked_step])
def test_code_that_only_goes_on_otherwise_fits(tmp_path: Path, code: Code) -> None:
    old_run(tmp_path / "x.db")

    assert checked(tmp_path / "x.db", code) == [CheckedRun("old", "w", "fits")]


def test_code_that_fits_and_would_fail_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(workflow(name="w")(as_it_was), on=tmp_path / "x.db") as box:
            rt = await box.open()
            await rt.with_options(id="old").start(rt.workflows["w"], "ada")
            await box.clock.advance(DAY)

    play(scenario)

    (found,) = checked(tmp_path / "x.db", that_fails_now)

    assert (found.verdict, found.step) == ("differs", "signal#1")


@pytest.mark.parametrize(
    ("code", "part"), [(with_another_result, "fetch#1"), (of_another_input, "invalid arguments for w")]
)
def test_what_the_code_cannot_read_any_more_needs_an_upcaster(tmp_path: Path, code: Code, part: str) -> None:
    old_run(tmp_path / "x.db")

    (found,) = checked(tmp_path / "x.db", code)

    assert found.verdict == "needs an upcaster"
    assert part in found.account


def test_runs_whose_code_is_not_there_are_named(tmp_path: Path) -> None:
    old_run(tmp_path / "x.db")

    (found,) = checked(tmp_path / "x.db", None)

    assert (found.run, found.workflow, found.verdict) == ("old", "w", "has no code")


def test_a_check_calls_no_tool_and_writes_nothing_also_beside_the_owner(tmp_path: Path) -> None:
    log = tmp_path / "x.db"

    async def scenario() -> tuple[int, int, list[CheckedRun]]:
        async with box_with(workflow(name="w")(as_it_was), on=log) as box:
            rt = await box.open()
            await rt.with_options(id="old").start(rt.workflows["w"], "ada")
            await rt.until_idle()
            CALLS.clear()
            before = (await rt.statistics()).log
            found = await Runtime(log, workflows=[workflow(name="w")(with_a_step_at_its_end)]).check()
            return before.position, (await rt.statistics()).log.position, found

    before, after, found = play(scenario)

    assert (before, CALLS) == (after, [])
    assert [one.verdict for one in found] == ["fits"]


def test_an_open_runtime_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Runtime(tmp_path / "x.db") as rt:
            with pytest.raises(UsageError, match="not open yet"):
                await rt.check()

    play(scenario)


CODE = """
from perdure import Context, tool, workflow

@tool(name="fetch", effect="read")
async def fetch(name: str) -> str:
    return name

@workflow(name="w")
async def w(ctx: Context, name: str) -> str:
    return await ctx.call(fetch, {argument})
"""


@pytest.mark.parametrize(("argument", "verdict", "code"), [("name", "fits", 0), ("'other'", "differs", 4)])
def test_the_command_says_it_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, verdict: str, code: int
) -> None:
    old_run(tmp_path / "x.db")
    (tmp_path / f"new_{code}.py").write_text(CODE.format(argument=argument), encoding="utf-8")
    if verdict == "fits":
        (tmp_path / f"new_{code}.py").write_text(
            CODE.format(argument="name").replace("return await", "await ctx.call(fetch, name) if False else await")
            + "    await ctx.gather(ctx.call(fetch, 'x'), ctx.call(fetch, 'y'))\n    await ctx.sleep(86400)\n"
            + "    return name\n",
            encoding="utf-8",
        )

    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path / f"new_{code}.py"), "--db", str(tmp_path / "x.db"), "--json"])

    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["verdict"], ended.value.code) == ("old", verdict, code)
