"""Random schedules against the executor: calls, holds, cancels, releases, crashes, machines that know or do not.

Whatever comes: order within a trajectory, one holder a slot, no irreversible command dispatched twice, every caller
answered, the log's fold equal to the state, and nothing left in flight but doubts.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.actors.kernel.messages import Event
from perdure.actors.slots.events import ExecutionRequested
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.store.records import Query, StreamId
from tests.support.executing import Bench
from tests.support.machine import Machine

TRAJECTORIES = ("a", "b", "c")

trajectory = st.sampled_from(TRAJECTORIES)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("call"), trajectory, st.sampled_from(["true", "hold", "lose", "fail x"])),
        st.tuples(st.just("again"), st.integers(0, 30), st.just("")),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just("")),
        st.tuples(st.just("release"), trajectory, st.sampled_from(["keep", "reset", "cancel"])),
        st.tuples(st.just("quarantine"), st.integers(0, 2), st.just("")),
        st.tuples(st.just("let go"), st.just(""), st.just("")),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.02, 1.0]), st.just("")),
        st.tuples(st.just("turn"), st.just(""), st.just("")),
        st.tuples(st.just("crash"), st.sampled_from(["known", "lost"]), st.just("")),
        st.tuples(st.just("crash soon"), st.integers(0, 12), st.sampled_from(["known", "lost"])),
        st.tuples(st.just("stop"), st.just(""), st.just("")),
        st.tuples(st.just("close"), st.just(""), st.just("")),
    ),
    max_size=25,
)


class Watched(Machine):
    """A machine that cries out when two leases of a slot are at work, and that knows what a crash left."""

    def __init__(self) -> None:
        super().__init__(max_slots=2)
        self.at_work: Counter[tuple[str, str]] = Counter()
        self.performed: Counter[tuple[str, str]] = Counter()
        """By trajectory and `uniq_id`: how often a command really ran."""

    async def _perform(self, execution: Execution) -> ExecutionResult | None:
        owner = execution.execution_id.partition(" ")[0]
        others = [who for (slot, who), n in self.at_work.items() if slot == execution.slot and who != owner and n]
        assert not others, f"{execution.slot} is shared by {owner} and {others}"
        self.at_work[execution.slot, owner] += 1
        if not str(execution.arguments["command"]).startswith("lose"):
            self.performed[owner, execution.execution_id.rpartition(" ")[2]] += 1
        try:
            return await super()._perform(execution)
        finally:
            self.at_work[execution.slot, owner] -= 1

    async def reset(self, slot: str, lease: int) -> None:
        await super().reset(slot, lease)
        await self.forget(slot, [one.execution_id for one in self.executions if one.slot == slot])

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        for uid in list(execution_ids):
            self.outcomes.pop(uid, None)
            self.forgotten.append(uid)

    def end_life(self, knows: str) -> None:
        """Remember of what really began how it ended, or that nobody will ever know."""
        for execution in self.executions:
            uid = execution.execution_id
            owner, _, uniq_id = uid.split(" ")
            if self.performed[owner, uniq_id] and uid not in self.forgotten:
                known = ExecutionResult(execution_id=uid, success=True, output="found")
                self.outcomes.setdefault(uid, known if knows == "known" else Unfinished("died"))


class Schedule:
    """One example: what was done, and what must hold after it."""

    def __init__(self, bench: Bench, machine: Watched) -> None:
        self.bench = bench
        self.machine = machine
        self.made: list[tuple[str, str, str]] = []
        self.calls: list[tuple[str, str, asyncio.Task[Any]]] = []
        self.resubmitted = False
        self.beside: list[asyncio.Task[Any]] = []

    async def do(self, verb: str, what: Any, how: Any) -> None:  # noqa: C901 - a list of what can happen
        bench = self.bench
        match verb:
            case "call":
                command = f"hold h{len(self.made)}" if how == "hold" else f"{how} {len(self.made)}"
                self.made.append((what, f"u{len(self.made)}", command))
                self._submit(*self.made[-1])
            case "again" if self.made:
                self.resubmitted = True
                self._submit(*self.made[what % len(self.made)])
            case "cancel" if self.calls:
                self.calls[what % len(self.calls)][2].cancel()
            case "release":
                options = {"reset_workspace": how == "reset", "cancel": how == "cancel"}
                self.beside.append(asyncio.ensure_future(bench.executor.release_trajectory(what, **options)))
            case "quarantine":
                views = bench.executor.pool.views()
                if views and views[what % len(views)].state != "retired":
                    bench.executor.pool.quarantine(views[what % len(views)].slot, "said so")
                    self.beside.append(asyncio.ensure_future(self._repair(views[what % len(views)].slot)))
            case "let go":
                self._let_go()
            case "advance":
                await bench.advance(what)
            case "turn":
                await asyncio.sleep(0)
            case "crash":
                await self._crash(what)
            case "crash soon":
                self._let_go()
                for _ in range(what):
                    await asyncio.sleep(0)
                await self._crash(how)
            case "stop":
                await bench.box.close()
                self.machine.end_life("lost")
                await bench.box.open()
            case "close":
                self._let_go()
                close = asyncio.ensure_future(bench.executor.close())
                await bench.advance(31)
                self._let_go()
                await close
                await bench.executor.start()
            case _:
                pass

    async def _crash(self, knows: str) -> None:
        await self.bench.box.crash()
        self.machine.end_life(knows)
        await self.bench.box.open()

    def _submit(self, name: str, uniq_id: str, command: str) -> None:
        self.calls.append((name, uniq_id, self.bench.submit(name, command, uniq_id=uniq_id)))

    async def _repair(self, slot: str) -> None:
        await self.bench.executor.pool.reset(slot)

    def _let_go(self) -> None:
        for number in range(len(self.made)):
            self.machine.hold(f"h{number}").set()

    async def come_to_rest(self) -> None:
        for _ in range(6):
            self._let_go()
            await self.bench.advance(31)
        for name in TRAJECTORIES:
            self.beside.append(asyncio.ensure_future(self.bench.executor.release_trajectory(name)))
        await self.bench.advance(31)

    async def check(self) -> None:
        assert all(call.done() for *_, call in self.calls), "somebody waits"
        assert all(task.done() for task in self.beside), "a release waits"
        for task in (*(call for *_, call in self.calls), *self.beside):
            if not task.cancelled():
                task.exception()
        begun = Counter(one.execution_id for one in self.machine.executions)
        assert max(begun.values(), default=1) == 1, "one attempt was dispatched twice"
        assert max(self.machine.performed.values(), default=1) == 1, "a command ran twice"
        figures = self.bench.executor.statistics()
        assert (figures.queued, figures.running, figures.waiting, figures.trajectories) == (0, 0, 0, 0)
        for name in TRAJECTORIES:
            view = await self.bench.rt.trajectory(name).view()
            assert {call.execution for call in view.in_flight} == set(view.in_doubt), "something is left in flight"
            assert view.slot is None
        await self._check_order()
        await self._check_folds()
        assert (await self.bench.run("fresh", "true")).success, "the slots are of no use any more"

    async def _check_order(self) -> None:
        for name in TRAJECTORIES:
            events = await self.bench.rt.read(Query(stream=StreamId(f"trajectory/{name}"), limit=10_000))
            decoded: list[Any] = [self.bench.rt._system.codec.decode(event, {}) for event in events]
            asked = [f"{name} {one.attempt} {one.execution}" for one in decoded if isinstance(one, ExecutionRequested)]
            sent = [one.execution_id for one in self.machine.executions if one.execution_id.startswith(f"{name} ")]
            assert sent == [uid for uid in asked if uid in set(sent)], "not in the order of the intents"
            first = [uid.rpartition(" ")[2] for uid in asked if uid.split(" ")[1] == "1"]
            assert self.resubmitted or first == sorted(first, key=lambda uid: int(uid[1:])), (
                "not in the order of asking"
            )

    async def _check_folds(self) -> None:
        system = self.bench.rt._system
        for shell in (*system.directory.shells("slot/"), *system.directory.shells("trajectory/")):
            state = shell.core.behavior.initial(shell.stream)
            for recorded in await self.bench.rt.read(Query(stream=shell.stream, limit=10_000)):
                event: Event = system.codec.decode(recorded, {})
                state = shell.core.behavior.evolve(state, event)
            assert state == shell.state


@settings(max_examples=150)
@given(actions)
def test_whatever_happens_every_caller_is_answered_and_nothing_runs_twice(schedule: list[tuple[str, Any, Any]]) -> None:
    async def play() -> None:
        machine = Watched()
        async with asyncio.timeout(60), Bench(machine) as bench:
            played = Schedule(bench, machine)
            for action in schedule:
                await played.do(*action)
            await played.come_to_rest()
            await played.check()

    asyncio.run(play())


@pytest.mark.parametrize("turns", range(16))
def test_a_crash_in_any_turn_of_a_release_leaves_nobody_waiting(turns: int) -> None:
    async def play() -> None:
        machine = Watched()
        async with asyncio.timeout(60), Bench(machine) as bench:
            played = Schedule(bench, machine)
            await played.do("release", "a", "keep")
            await played.do("crash soon", turns, "lost")
            await played.come_to_rest()
            await played.check()

    asyncio.run(play())


@pytest.mark.row("A1-34")
@pytest.mark.parametrize("knows", ["known", "lost"])
@pytest.mark.parametrize("turns", range(16))
def test_a_crash_in_any_turn_around_a_commands_end_runs_nothing_twice(turns: int, knows: str) -> None:
    async def play() -> None:
        machine = Watched()
        async with asyncio.timeout(60), Bench(machine) as bench:
            played = Schedule(bench, machine)
            for action in [("call", "a", "hold"), ("call", "a", "true"), ("advance", 0.02, "")]:
                await played.do(*action)
            await played.do("crash soon", turns, knows)
            await played.come_to_rest()
            await played.check()

    asyncio.run(play())


@pytest.mark.parametrize("turns", range(24))
def test_a_crash_in_any_turn_after_a_call_is_made_runs_nothing_twice(turns: int) -> None:
    async def play() -> None:
        machine = Watched()
        async with asyncio.timeout(60), Bench(machine, batch_window_ms=0) as bench:
            played = Schedule(bench, machine)
            for action in [("call", "a", "true"), ("call", "b", "true")]:
                await played.do(*action)
            await played.do("crash soon", turns, "lost")
            await played.come_to_rest()
            await played.check()

    asyncio.run(play())
