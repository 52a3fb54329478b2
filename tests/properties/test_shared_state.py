"""Random calls of several runs on shared state, beside a plain model: dictionaries, and what each run has seen.

The runs take turns that the clock gives them, so the model knows the order of the calls; then the process dies at a
border of the log, and whatever the runs had found they find again. The invariant: a view is never ahead of, or behind,
the model.
"""

import itertools
from datetime import timedelta
from typing import Any, Final, cast

import msgspec
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from perdure import Context, Query, Runtime, Settings, StateConflictError, StepFailedError, workflow
from perdure.actors.state.scopes import Scope
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.testing import TestClock
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, disk_until, play

ENTRIES: Final[dict[str, Isolation]] = {"alone": "isolated", "open": "shared", "strict": "synchronized"}
KEYS: Final = ("a", "b")
SCOPES: Final = ("execution", "stream", "global")
KEEP: Final = Settings(park_after=timedelta(days=999), idle_after=timedelta(days=999))
AWAY: Final = Settings(park_after=timedelta(seconds=1), idle_after=timedelta(seconds=1))
"""Actors, and runs, leave memory between two calls."""
ROUND: Final = 10
"""Seconds between two calls of a run; the runs have theirs at different seconds."""


class Call(msgspec.Struct, frozen=True):
    name: str
    key: str = "a"
    scope: str = "global"
    number: int = 0


async def perform(ctx: Context, call: Call) -> Any:
    view, key, scope = ctx.state, call.key, cast("Scope", call.scope)
    match call.name:
        case "read":
            return await view.read(key)
        case "has":
            return await view.has(key)
        case "read_all":
            return await view.read_all()
        case "write":
            return await view.write(key, [call.number], scope)
        case "batch":
            return await view.write_batch({key: [call.number] for key in KEYS}, scope)
        case "delete":
            return await view.delete(key, scope)
        case "set":
            return await view.compare_and_set(key, [0], [call.number], scope)
        case "update":
            return await view.update(key, lambda held: [*held, 1 // call.number], default=[], scope=scope)
        case _:
            return None


@workflow
async def calls(ctx: Context, offset: int, script: list[Call]) -> list[Any]:
    found: list[Any] = []
    await ctx.sleep(offset)
    for call in script:
        try:
            found.append(await perform(ctx, call))
        except (StateConflictError, StepFailedError) as error:
            found.append(getattr(error, "error_type", type(error).__name__))
        await ctx.sleep(ROUND)
    return found


class Model:
    """The same by dictionaries; a value is changed when its number is another one."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], dict[str, tuple[int, Any]]] = {}
        self.seen: dict[tuple[str, tuple[str, str], str], int] = {}
        self.numbers = itertools.count(1)

    def perform(self, run: str, entry: str, call: Call) -> Any:  # noqa: C901 - one case a call
        isolation = ENTRIES[entry]
        own, stream, every = ("execution", run), ("stream", entry), ("global", "")
        places = [own] if isolation == "isolated" else [own, stream, every]
        target = own if isolation == "isolated" else {"execution": own, "stream": stream, "global": every}[call.scope]
        watched = isolation == "synchronized" and target != own
        held = self.values.setdefault(target, {})
        match call.name:
            case "read" | "has":
                return self._first(run, places, call)
            case "read_all":
                for place, key in itertools.product(places, KEYS):
                    self.seen[run, place, key] = self._number(place, key)
                return {k: v for place in reversed(places) for k, (_, v) in self.values.get(place, {}).items()}
            case "write" | "batch" | "delete":
                keys = KEYS if call.name == "batch" else (call.key,)
                if watched and any(self._is_another(run, target, key) for key in keys):
                    return "StateConflictError"
                if call.name == "delete":
                    return self._delete(run, target, call.key)
                for key in keys:
                    self._set(run, target, key, [call.number])
                return None
            case "set":
                is_met = call.key in held and held[call.key][1] == [0]
                if is_met:
                    self._set(run, target, call.key, [call.number])
                return is_met
            case _:
                if call.number == 0:
                    return "ZeroDivisionError"
                before = held[call.key][1] if call.key in held else []
                self._set(run, target, call.key, [*before, 1 // call.number])
                return held[call.key][1]

    def _first(self, run: str, places: list[tuple[str, str]], call: Call) -> Any:
        for place in places:
            self.seen[run, place, call.key] = self._number(place, call.key)
            if call.key in self.values.get(place, {}):
                return True if call.name == "has" else self.values[place][call.key][1]
        return False if call.name == "has" else None

    def _is_another(self, run: str, place: tuple[str, str], key: str) -> bool:
        now = self._number(place, key)
        return self.seen.get((run, place, key), now) != now

    def _number(self, place: tuple[str, str], key: str) -> int:
        return self.values.get(place, {}).get(key, (0, None))[0]

    def _set(self, run: str, place: tuple[str, str], key: str, value: Any) -> None:
        self.values[place][key] = (next(self.numbers), value)
        self.seen[run, place, key] = self._number(place, key)

    def _delete(self, run: str, place: tuple[str, str], key: str) -> bool:
        was_there = self.values[place].pop(key, None) is not None
        if was_there:
            self.seen[run, place, key] = 0
        return was_there


def expected(runs: list[tuple[str, list[Call]]]) -> tuple[list[list[Any]], Model]:
    """What the runs find, and what is left, when they take turns."""
    model, found = Model(), [list[Any]() for _ in runs]
    for turn in range(max((len(script) for _, script in runs), default=0)):
        for number, (entry, script) in enumerate(runs):
            if turn < len(script):
                found[number].append(model.perform(f"r{number}", entry, script[turn]))
    return found, model


async def live(box: Box, rt: Runtime, runs: list[tuple[str, list[Call]]]) -> list[list[Any]]:
    for _ in range(40):
        views = [await rt.run(f"r{number}").status() for number in range(len(runs))]
        if all(view.is_closed for view in views):
            return [await rt.run(f"r{number}", calls).result() for number in range(len(runs))]
        await box.clock.advance(ROUND)
    raise AssertionError("the runs do not end")


def box_on(disk: MarkedDisk | Any, clock: TestClock, chosen: Settings) -> Box:
    entries = [EntryPoint(entry, calls, isolation=isolation) for entry, isolation in ENTRIES.items()]
    return Box(disk, clock, workflows=[calls], entry_points=entries, settings=chosen)


async def check_left(rt: Runtime, model: Model) -> None:
    """Check that the application finds what the model has left."""
    for entry in ("open", "strict"):
        places = (("global", ""), ("stream", entry))
        left = {key: value for place in places for key, (_, value) in model.values.get(place, {}).items()}
        assert await rt.state.view(stream=entry).read_all() == left


async def play_and_crash(runs: list[tuple[str, list[Call]]], chosen: Settings, crashes: list[int]) -> None:
    disk = MarkedDisk()
    whole = box_on(disk, TestClock(), chosen)
    rt = await whole.open()
    for number, (entry, script) in enumerate(runs):
        await rt.trigger(entry, {"offset": number + 1, "script": msgspec.to_builtins(script)}, id=f"r{number}")
    found = await live(whole, rt, runs)
    log = await rt.read(Query(limit=100_000))
    wanted, model = expected(runs)
    assert found == wanted
    await check_left(rt, model)
    await whole.close()
    begun = [row.position for row in log if row.type == "run-started"]
    borders = sorted(border for border in disk.borders if begun[-1] <= border <= log[-1].position)
    for crash in crashes:
        position = borders[crash % len(borders)]
        clock = TestClock()
        await clock.advance((log[position - 1].at - log[0].at) / 1_000_000)
        box = box_on(disk_until(whole.storage, position), clock, chosen)
        rt = await box.open()
        assert await live(box, rt, runs) == wanted, f"after a crash at {position}"
        await check_left(rt, model)
        changes = Query(types=("state-changed",), limit=100_000)
        assert [row.data for row in await rt.read(changes)] == [row.data for row in log if row.type == "state-changed"]
        await box.close()


CALLS = st.builds(
    Call,
    name=st.sampled_from(
        ["read", "read", "has", "read_all", "write", "write", "batch", "delete", "set", "update", "update"]
    ),
    key=st.sampled_from(KEYS),
    scope=st.sampled_from(SCOPES),
    number=st.integers(0, 2),
)
RUNS = st.lists(st.tuples(st.sampled_from([*ENTRIES, "strict"]), st.lists(CALLS, max_size=6)), min_size=1, max_size=4)


@hypothesis_settings(max_examples=40, deadline=None)
@given(runs=RUNS, chosen=st.sampled_from([KEEP, AWAY]), crashes=st.lists(st.integers(0, 999), max_size=3))
def test_runs_find_what_the_model_finds_whatever_they_call_and_wherever_the_process_dies(
    runs: list[tuple[str, list[Call]]], chosen: Settings, crashes: list[int]
) -> None:
    async def scenario() -> None:
        await play_and_crash(runs, chosen, crashes)

    play(scenario)
