"""The runtime as an application meets it: starting, finding, waiting, opening again, two of them side by side."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Context,
    InvalidArgumentsError,
    Query,
    Retry,
    RunConflictError,
    RunFailedError,
    Runtime,
    Secret,
    Settings,
    StoreLockedError,
    UnknownRunError,
    UsageError,
    tool,
    workflow,
)
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import DAY, HOUR, box_with, events, on_both_logs, play, storage

began: list[str] = []


@pytest.fixture(autouse=True)
def _nobody_began() -> None:
    began.clear()


@workflow
async def greet(ctx: Context, name: str, times: int = 1) -> str:
    began.append(name)
    return f"hello {name}" * times


@workflow
async def nap(ctx: Context) -> str:
    await ctx.sleep(HOUR)
    return "slept"


@on_both_logs
def test_starting_an_id_again_is_the_same_run(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(greet, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            first = await rt.with_options(id="r").start(greet, "ada")
            again = await rt.with_options(id="r").start(greet, name="ada")
            assert await first.result() == await again.result() == "hello ada"
            rt = await box.crash_and_reopen()
            later = await rt.with_options(id="r").start(greet, "ada")
            assert await later.result() == "hello ada"

    play(scenario)

    assert began == ["ada"]


def test_many_starts_of_one_id_at_once_are_one_run() -> None:
    async def scenario() -> None:
        async with box_with(greet) as box:
            rt = await box.open()
            runs = await asyncio.gather(*(rt.with_options(id="r").start(greet, "ada") for _ in range(50)))
            assert {await run.result() for run in runs} == {"hello ada"}

    play(scenario)

    assert began == ["ada"]


def test_the_same_id_with_other_input_or_another_workflow_is_an_error() -> None:
    async def scenario() -> None:
        async with box_with(greet, nap) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(greet, "ada")
            with pytest.raises(RunConflictError, match="other input"):
                await rt.with_options(id="r").start(greet, "bob")
            with pytest.raises(RunConflictError, match="another workflow"):
                await rt.with_options(id="r").start(nap)
            rt = await box.crash_and_reopen()
            with pytest.raises(RunConflictError, match="other input"):
                await rt.with_options(id="r").start(greet, "ada", 2)

    play(scenario)

    assert began == ["ada"]


def test_input_that_does_not_fit_starts_nothing() -> None:
    async def scenario() -> None:
        async with box_with(greet) as box:
            rt = await box.open()
            for arguments in ((), (5,), ("ada", "often"), ("ada", 1, 2)):
                with pytest.raises(InvalidArgumentsError):
                    await rt.with_options(id="r").start(greet, *arguments)
            with pytest.raises(InvalidArgumentsError, match="given twice"):
                await rt.with_options(id="r").start(greet, "ada", name="ada")  # type: ignore[misc] # on purpose
            with pytest.raises(UnknownRunError):
                await rt.run("r").status()

    play(scenario)


def test_a_run_that_nobody_started_is_unknown() -> None:
    async def scenario() -> None:
        async with box_with(greet) as box:
            rt = await box.open()
            for ask in (rt.run("no").status(), rt.run("no").result(), rt.run("no").cancel()):
                with pytest.raises(UnknownRunError, match="'no'"):
                    await ask
            assert await rt.run("no").history() == []

    play(scenario)


@pytest.mark.parametrize("id", ["", "a b", "ä", "x" * 129, "a\n"])
def test_an_id_that_could_not_be_a_key_elsewhere_is_refused(id: str) -> None:
    async def scenario() -> None:
        async with box_with(greet) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match="id"):
                await rt.with_options(id=id).start(greet, "ada")

    play(scenario)


def test_a_workflow_that_is_not_registered_cannot_be_started() -> None:
    async def scenario() -> None:
        async with box_with(greet) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match=r"workflows=\[nap\]"):
                await rt.start(nap)

    play(scenario)


def test_names_must_be_unique_and_things_must_be_what_they_are_given_as() -> None:
    @workflow(name="greet")
    async def other(ctx: Context) -> None: ...

    @tool(name="t")
    async def one() -> int:
        return 1

    @tool(name="t")
    async def two() -> int:
        return 2

    with pytest.raises(UsageError, match="two workflows are called 'greet'"):
        Runtime("x", workflows=[greet, other])
    with pytest.raises(UsageError, match="two tools are called 't'"):
        Runtime("x", tools=[one, two])
    with pytest.raises(UsageError, match="@workflow"):
        Runtime("x", workflows=[lambda: None])  # type: ignore[list-item] # on purpose
    with pytest.raises(UsageError, match="@tool"):
        Runtime("x", tools=[greet])  # type: ignore[list-item] # on purpose


def test_another_tool_of_the_same_name_is_noticed_at_its_call() -> None:
    @tool(name="t")
    async def one() -> int:
        return 1

    @tool(name="t")
    async def two() -> int:
        return 2

    @workflow
    async def wf(ctx: Context) -> int:
        return await ctx.call(one) + await ctx.call(two)

    async def scenario() -> None:
        async with box_with(wf) as box:
            rt = await box.open()
            with pytest.raises(RunFailedError, match="two tools are called 't'"):
                await (await rt.start(wf)).result()

    play(scenario)


def test_a_closed_runtime_says_so() -> None:
    async def scenario() -> None:
        rt = Runtime("x", log=MemoryDisk().open, workflows=[greet], clock=TestClock())
        with pytest.raises(UsageError, match="not open"):
            await rt.start(greet, "ada")
        async with rt:
            run = await rt.start(greet, "ada")
            await run.result()
            with pytest.raises(UsageError, match="open already"):
                await rt.__aenter__()
        with pytest.raises(UsageError, match="not open"):
            await run.status()
        await rt.close()

    play(scenario)


def test_whoever_waits_for_a_run_is_told_when_the_runtime_closes() -> None:
    async def scenario() -> None:
        async with box_with(nap) as box:
            rt = await box.open()
            run = await rt.start(nap)
            waits = asyncio.ensure_future(run.result())
            await box.clock.settle()
            await box.close()
            with pytest.raises(UsageError, match="open it again"):
                await waits

    play(scenario)


@on_both_logs
def test_nothing_goes_on_by_itself_when_told_so(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with box_with(nap, on=storage(kind, tmp_path)) as box:
            rt = await box.open()
            await rt.with_options(id="a").start(nap)
            await box.clock.settle()
            rt = await box.crash_and_reopen(resume=False)
            await box.clock.advance(2 * HOUR)
            [waiting] = await rt.waiting()
            assert waiting.id == "a"
            assert (await rt.run("a").status()).status == "waiting"
            await rt.resume()
            assert await rt.run("a").result() == "slept"

    play(scenario)


@on_both_logs
def test_two_runtimes_on_two_logs_know_nothing_of_each_other(kind: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()

    async def scenario() -> None:
        async with (
            box_with(greet, nap, on=storage(kind, tmp_path / "1")) as one,
            box_with(greet, on=storage(kind, tmp_path / "2")) as two,
        ):
            first, second = await one.open(), await two.open()
            a = await first.with_options(id="r").start(greet, "ada")
            b = await second.with_options(id="r").start(greet, "bob")
            sleeper = await first.start(nap)
            assert (await a.result(), await b.result()) == ("hello ada", "hello bob")
            await two.clock.advance(DAY)
            assert (await sleeper.status()).status == "waiting"
            await one.close()
            c = await second.start(greet, "eve")
            assert await c.result() == "hello eve"
            with pytest.raises(UnknownRunError):
                await second.run(sleeper.id).status()

    play(scenario)


@on_both_logs
def test_a_log_has_one_owner(kind: str, tmp_path: Path) -> None:
    place = storage(kind, tmp_path)

    async def scenario() -> None:
        async with box_with(greet, on=place) as one, box_with(greet, on=place) as two:
            await one.open()
            with pytest.raises(StoreLockedError):
                await two.open()
            await one.close()
            rt = await two.open()
            assert await (await rt.start(greet, "ada")).result() == "hello ada"

    play(scenario)


def test_more_runs_than_places_wait_for_one_and_a_bad_one_holds_up_nobody() -> None:
    gate = asyncio.Event()
    most = [0, 0]

    @tool
    async def pass_gate(number: int) -> int:
        most[0] += 1
        most[1] = max(most)
        await gate.wait()
        most[0] -= 1
        return number

    @workflow
    async def wf(ctx: Context, number: int) -> int:
        return await ctx.call(pass_gate, number)

    async def scenario() -> Any:
        nonlocal gate
        gate = asyncio.Event()
        async with box_with(wf, nap, settings=Settings(max_active_runs=3)) as box:
            rt = await box.open()
            runs = [await rt.with_options(id=f"r{number}").start(wf, number) for number in range(10)]
            await box.clock.settle()
            assert most[0] == 3
            assert (await rt.statistics()).runs_in_memory == 3
            await runs[5].cancel()  # one that waits for a place
            gate.set()
            await box.clock.settle()
            return [(await run.status()).status for run in runs]

    statuses = play(scenario)

    assert statuses == ["completed"] * 5 + ["cancelled"] + ["completed"] * 4
    assert most[1] == 3


def test_runs_over_the_bound_are_resumed_too() -> None:
    async def scenario() -> Any:
        async with box_with(nap, settings=Settings(max_active_runs=4, park_after=DAY)) as box:
            rt = await box.open()
            for number in range(4):
                await rt.with_options(id=f"r{number}").start(nap)
            await box.clock.settle()
            rt = await box.crash_and_reopen(settings=Settings(max_active_runs=1, park_after=DAY))
            await box.clock.advance(5 * HOUR)
            return [await rt.run(f"r{number}").result() for number in range(4)]

    assert play(scenario) == ["slept"] * 4


def test_what_stands_under_a_secret_name_never_reaches_the_log() -> None:
    seen: list[Any] = []

    @tool
    async def login(user: str, password: str, extra: dict[str, Any]) -> dict[str, Any]:
        seen.append((user, password, extra))
        return {"session": "s", "Access-Token": "abc", "nested": [{"api_key": "k", "token": None}]}

    @workflow
    async def wf(ctx: Context, password: str) -> Any:
        return await ctx.call(login, user="ada", password=password, extra={"Authorization": "Bearer x", "other": 1})

    async def scenario() -> Any:
        async with box_with(wf) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf, "hunter2")
            result = await run.result()
            text = "".join(event.data or "" for event in await run.history())
            assert not any(word in text for word in ("hunter2", "Bearer", "abc", '"k"'))
            # The same input is the same run, as far as the log can tell.
            await rt.with_options(id="r").start(wf, "hunter2")
            return result

    result = play(scenario)

    hidden = "[redacted]"
    assert result == {"session": "s", "Access-Token": hidden, "nested": [{"api_key": hidden, "token": None}]}
    assert seen == [("ada", hidden, {"Authorization": hidden, "other": 1})]


def test_a_secret_is_known_inside_of_tools_only_and_cut_out_of_what_they_say() -> None:
    revealed: list[str] = []

    @tool
    async def use(key: Secret) -> str:
        revealed.append(key.reveal())
        return f"sent {key.reveal()} twice: {key.reveal()}"

    @tool
    def use_in_thread(key: Secret) -> str:
        revealed.append(key.reveal())
        raise ValueError(f"refused {key.reveal()}")

    @workflow
    async def wf(ctx: Context) -> list[str]:
        key = Secret("API")
        said = [await ctx.call(use, key)]
        try:
            await ctx.call(use_in_thread, key)
        except Exception as error:  # noqa: BLE001 - its text is what is looked at
            said.append(str(error))
        try:
            key.reveal()
        except UsageError:
            said.append("not here")
        return said

    async def scenario() -> Any:
        async with box_with(wf, secrets={"API": "s3cr3t"}) as box:
            rt = await box.open()
            run = await rt.with_options(id="r").start(wf)
            result = await run.result()
            text = "".join(event.data or "" for event in await rt.read(Query()))
            assert "s3cr3t" not in text
            [started, _] = await events(rt, "r", "step-started")
            assert started["arguments"] == {"key": {"$secret": "API"}}
            return result

    said = play(scenario)

    assert revealed == ["s3cr3t", "s3cr3t"]
    assert said[0] == "sent [secret API] twice: [secret API]"
    assert "refused [secret API]" in said[1]
    assert said[2] == "not here"


def test_a_stop_lets_steps_in_flight_end_and_starts_none() -> None:
    gate = asyncio.Event()

    @tool
    async def pass_gate(number: int) -> int:
        began.append(str(number))
        await gate.wait()
        return number

    @workflow
    async def wf(ctx: Context) -> int:
        return await ctx.call(pass_gate, 1) + await ctx.call(pass_gate, 2)

    async def scenario() -> Any:
        nonlocal gate
        gate = asyncio.Event()
        async with box_with(wf) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            closing = asyncio.ensure_future(box.close())
            await asyncio.sleep(0)
            gate.set()
            await closing
            rt = await box.open()
            await box.clock.settle()
            completed = await events(rt, "r", "step-completed")
            assert [fact["step"] for fact in completed] == ["pass_gate#1", "pass_gate#2"]
            return await rt.run("r").result()

    assert play(scenario) == 3
    assert began == ["1", "2"]


def test_a_stop_does_not_wait_for_steps_that_only_wait_for_their_next_attempt() -> None:
    """No time passes on the test's clock: a stop that waited for the backoff would never end."""
    gate = asyncio.Event()

    @tool(retry=Retry(attempts=5, backoff=timedelta(seconds=30), jitter=False))
    async def flaky() -> int:
        began.append("attempt")
        await gate.wait()
        raise OSError

    @workflow
    async def wf(ctx: Context) -> int:
        return await ctx.call(flaky)

    async def scenario() -> None:
        nonlocal gate
        gate = asyncio.Event()
        async with box_with(wf, settings=Settings(drain=DAY)) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(wf)
            await box.clock.settle()
            closing = asyncio.ensure_future(box.close())
            await asyncio.sleep(0)
            gate.set()
            await closing

    play(scenario)

    assert began == ["attempt"]
