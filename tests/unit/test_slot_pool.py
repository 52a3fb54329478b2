"""Who gets a slot and when: the pool on a machine held in hand, asked through the executor."""

import asyncio

import pytest

from perdure.actors.slots.commands import AcquireSlot, FinishRelease
from perdure.actors.slots.errors import NoSlotError, ResetFailedError, SlotTransitionError, StaleLeaseError
from tests.support.executing import WINDOW, Bench, on_bench

LEASE = 10.0


@pytest.mark.row("A1-31")
def test_two_first_calls_of_a_trajectory_share_one_slot() -> None:
    async def scenario(bench: Bench) -> None:
        calls = [bench.submit("t", "one"), bench.submit("t", "two")]
        await bench.advance()

        assert all([(await call).success for call in calls])
        assert bench.machine.acquired == [("slot-0", 1)]
        assert bench.states() == {"slot-0": "acquired"}

    on_bench(scenario)


def test_slots_are_given_in_the_order_of_asking() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("first")
        calls = []
        for name in ("b", "a", "c"):
            calls.append(bench.submit(name, name))
            await bench.advance()
        for name in ("first", "b", "a", "c"):
            await bench.executor.release_trajectory(name)
            await bench.clock.settle()

        assert bench.machine.order == ["true", "b", "a", "c"]
        assert all([(await call).success for call in calls])

    on_bench(scenario, max_slots=1)


def test_a_slot_with_files_goes_back_to_their_owner_as_it_is_and_to_others_empty() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.executor.release_trajectory("t")
        await bench.run("t")
        assert bench.machine.resets == []

        await bench.executor.release_trajectory("t")
        await bench.run("other")

        assert bench.machine.resets == ["slot-0"]
        assert bench.states() == {"slot-0": "acquired"}

    on_bench(scenario, max_slots=1)


@pytest.mark.row("A1-45")
def test_a_holder_of_a_former_lease_releases_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        await bench.executor.release_trajectory("t1", reset_workspace=True)
        await bench.run("t2")
        pool = bench.executor.pool

        for lease in (1, 0):
            with pytest.raises(StaleLeaseError):
                pool.shelf.record("slot-0", FinishRelease(lease, was_reset=True))
        await bench.executor.release_trajectory("t1")

        view = pool.views()[0]
        assert (view.state, view.trajectory, view.lease) == ("acquired", "t2", 2)

    on_bench(scenario, max_slots=1)


@pytest.mark.row("A1-46")
def test_a_slot_that_is_not_well_stays_with_its_holder() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        bench.machine.ill.add("slot-0")
        await bench.advance(31)
        bench.machine.ill.clear()
        await bench.advance(30)
        other = bench.submit("t2")
        await bench.advance()

        assert (await bench.run("t1")).success
        assert bench.executor.pool.views()[0].trajectory == "t1"
        assert not other.done()

    on_bench(scenario, max_slots=1)


def test_a_free_slot_that_is_not_well_is_given_to_nobody() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.ill.add("slot-0")
        await bench.advance(31)
        await bench.run("t")

        assert bench.states() == {"slot-0": "error", "slot-1": "acquired"}
        assert "unreachable" in bench.executor.pool.views()[0].error

    on_bench(scenario, min_slots=1)


@pytest.mark.row("A1-47")
def test_a_slot_whose_reset_fails_is_quarantined() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        bench.machine.refuses_reset.add("slot-0")
        with pytest.raises(ResetFailedError, match="busy"):
            await bench.executor.release_trajectory("t1", reset_workspace=True)
        await bench.run("t2")

        assert bench.states() == {"slot-0": "error", "slot-1": "acquired"}
        bench.machine.refuses_reset.clear()
        await bench.executor.pool.reset("slot-0")
        assert bench.states()["slot-0"] == "available"

    on_bench(scenario)


def test_a_slot_that_cannot_be_emptied_for_another_makes_room_for_a_new_one() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        await bench.executor.release_trajectory("t1")
        bench.machine.refuses_reset.add("slot-0")

        assert (await bench.run("t2")).success
        assert bench.states() == {"slot-0": "error", "slot-1": "acquired"}

    on_bench(scenario, max_slots=2)


@pytest.mark.row("A1-48")
def test_who_gets_no_slot_in_time_is_told() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        shell = await bench.rt._system.directory.activate(bench.executor.pool.shell("slot-0").stream)
        assert shell.state.trajectory == "t1"
        call = bench.submit("t2")
        await bench.advance(WINDOW + 0.199)
        assert not call.done()
        await bench.advance(0.001)

        text = "no slot became free within 0.2 s: 1 slots, 0 of them quarantined, at most 1"
        assert (await call).error == f"Failed to acquire slot: {text}"
        assert issubclass(NoSlotError, TimeoutError)

    on_bench(scenario, max_slots=1, acquire_timeout_seconds=0.2)


def test_an_operator_resets_no_slot_that_is_held_or_worked_at() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t1")
        with pytest.raises(SlotTransitionError):
            await bench.executor.pool.reset("slot-0")
        await bench.executor.release_trajectory("t1")
        stuck, reset = asyncio.Event(), bench.machine.reset

        async def slow(slot: str, lease: int) -> None:
            await stuck.wait()
            await reset(slot, lease)

        bench.machine.reset = slow  # type: ignore[method-assign]
        one = asyncio.ensure_future(bench.executor.pool.reset("slot-0"))
        await bench.clock.settle()
        with pytest.raises(SlotTransitionError, match="being emptied"):
            await bench.executor.pool.reset("slot-0")
        assert bench.executor.pool.shelf.free() == []
        stuck.set()
        await one

        assert bench.executor.pool.shelf.is_free("slot-0")

    on_bench(scenario)


def test_what_runs_in_a_slot_that_is_quarantined_is_ended_and_its_trajectory_gets_another() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        calls = [bench.submit("t", "hold a", uniq_id="u1"), bench.submit("t", "next", uniq_id="u2")]
        await bench.advance()
        bench.executor.pool.quarantine("slot-0", "an operator said so")
        await bench.clock.settle()

        assert bench.machine.cancelled == ["t 1 u1", "t 1 u2"]
        assert (await calls[0]).error == "cancelled: its slot was quarantined"
        assert (await bench.run("t")).error.startswith("Failed to acquire slot: the trajectory has lost slot slot-0")
        assert (await bench.run("t")).success
        assert bench.states() == {"slot-0": "error", "slot-1": "acquired"}

    on_bench(scenario)


def test_warm_slots_are_kept_ready_and_those_that_nobody_takes_are_given_up() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.clock.settle()
        assert bench.states() == {"slot-0": "available", "slot-1": "available"}
        await bench.run("t")
        assert bench.states() == {"slot-0": "acquired", "slot-1": "available", "slot-2": "available"}
        await bench.executor.release_trajectory("t", reset_workspace=True)
        await bench.advance(601)

        assert len(bench.states()) == 2
        assert len(bench.machine.removed) == 1

    on_bench(scenario, warm_slots=2)


def test_the_number_of_a_slot_that_was_given_up_is_used_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        await bench.executor.release_trajectory("t")
        await bench.advance(601)
        assert (bench.states(), bench.machine.removed) == ({}, ["slot-0"])

        await bench.run("t")

        assert bench.machine.acquired == [("slot-0", 1), ("slot-0", 2)]

    on_bench(scenario)


def test_who_asks_while_the_last_slot_is_deleted_gets_a_new_one() -> None:
    async def scenario(bench: Bench) -> None:
        stuck = asyncio.Event()
        bench.machine.remove = lambda _: stuck.wait()  # type: ignore[method-assign,assignment,return-value]
        await bench.run("t")
        await bench.executor.release_trajectory("t")
        await bench.advance(601)
        call = bench.submit("other")
        await bench.advance()
        assert not call.done()
        stuck.set()

        assert (await call).success

    on_bench(scenario, max_slots=1)


def test_a_certain_slot_can_be_taken_out_of_turn() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.executor.take_slot("op", "slot-1")
        await bench.run("op")
        with pytest.raises(SlotTransitionError):
            await bench.executor.take_slot("op2", "slot-1")
        with pytest.raises(SlotTransitionError):
            await bench.executor.take_slot("op", "slot-0")

        assert bench.states() == {"slot-0": "available", "slot-1": "acquired"}
        assert [one.slot for one in bench.machine.executions] == ["slot-1"]

    on_bench(scenario, min_slots=2)


# Leases


async def remote(bench: Bench, command: str = "true") -> None:
    await bench.run("t", command, lease_seconds=LEASE)


@pytest.mark.row("A1-49")
def test_the_slot_of_a_holder_that_is_heard_of_no_more_is_emptied_and_offered() -> None:
    async def scenario(bench: Bench) -> None:
        await remote(bench)
        other = bench.submit("other")
        await bench.advance(LEASE - 0.1)
        assert not other.done()
        await bench.advance(0.1)

        assert bench.machine.resets == ["slot-0"]
        assert (await other).success

    on_bench(scenario, max_slots=1)


def test_a_holder_that_goes_on_calling_keeps_its_slot() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(5):
            await remote(bench)
            await bench.advance(LEASE * 0.8)

        assert bench.machine.resets == []
        assert {one.lease for one in bench.machine.executions} == {1}

    on_bench(scenario)


def test_a_lease_does_not_end_while_its_holder_waits_for_an_answer() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        call = bench.submit("t", "hold a", lease_seconds=LEASE)
        await bench.advance(5 * LEASE)
        assert not call.done()
        held.set()
        assert (await call).success
        assert bench.states() == {"slot-0": "acquired"}

        await bench.advance(2 * LEASE)
        assert bench.states() == {"slot-0": "available"}

    on_bench(scenario)


def test_the_call_of_a_holder_that_has_died_ends_and_its_slot_is_emptied() -> None:
    async def scenario(bench: Bench) -> None:
        bench.machine.hold("a")
        call = bench.submit("t", "hold a", lease_seconds=LEASE)
        await bench.advance()
        call.cancel()
        await bench.advance(2 * LEASE)

        assert bench.machine.cancelled == ["t 1 " + bench.machine.executions[0].execution_id.rpartition(" ")[2]]
        assert bench.states() == {"slot-0": "available"}
        assert bench.machine.resets == ["slot-0"]

    on_bench(scenario)


def test_the_time_that_the_process_was_down_does_not_count_against_a_lease() -> None:
    async def scenario(bench: Bench) -> None:
        await remote(bench)
        await bench.box.crash()
        await bench.clock.advance(10 * LEASE)
        await bench.box.open()
        await bench.clock.settle()
        assert bench.states() == {"slot-0": "acquired"}

        await bench.advance(601)
        assert bench.states() == {"slot-0": "available"}

    on_bench(scenario)


def test_no_slot_is_offered_that_is_held() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")

        with pytest.raises(SlotTransitionError):
            bench.executor.pool.shelf.record("slot-0", AcquireSlot("other"))

    on_bench(scenario)
