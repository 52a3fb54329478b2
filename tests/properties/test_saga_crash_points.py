"""A saga of six steps that fails at each of them, killed after every event: it ends as if nothing had been.

Compared are the run's end, what happened outside and in which order, and what was undone. Of what was in flight when
the process died both worlds are tried: it had happened, and it had not.
"""

import json
from datetime import timedelta

import pytest

from perdure import Recorded, RunView, Settings
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, play
from tests.support.sagas import STEPS, Plan, Verdict, attend, begin_anew, crashes, journey, world

PARKS = Settings(idle_after=timedelta(days=9))
STAYS = Settings(idle_after=timedelta(days=9), park_after=timedelta(days=9))

every_failure = pytest.mark.parametrize("failing", range(STEPS + 1))


def outcome(view: RunView) -> tuple[str, str, str, str]:
    return view.status, view.result, view.error_type, view.error


def check(history: list[Recorded]) -> None:
    """Check what holds for every history of a saga: a step begins once and ends once, and none is left over."""
    begun: list[str] = []
    ended: list[str] = []
    for event in history:
        step = json.loads(event.data or "{}").get("step")
        if event.type == "step-started":
            begun.append(step)
        elif event.type in {"step-completed", "step-failed", "step-cancelled"}:
            ended.append(step)
    assert len(set(begun)) == len(begun)
    assert sorted(ended) == sorted(begun)
    assert "run-blocked" not in {event.type for event in history}


def check_every_crash(plan: Plan, settings: Settings = PARKS, verdict: Verdict = "done") -> int:
    """Run the saga without a crash, and again with one after each of its events; return how many crashes there were."""

    async def scenario() -> int:
        begin_anew()
        whole = Box(None, TestClock(), workflows=[journey], settings=settings)
        rt = await whole.open()
        await rt.with_options(id="r").start(journey, plan)
        expected, history = await attend(whole, verdict)
        await whole.close()
        check(history)
        happened = dict(world.facts)
        assert isinstance(whole.storage, MemoryDisk)
        count = 0
        for position, completed, box in crashes(whole.storage, history, happened, settings):
            await box.open()
            view, again = await attend(box, verdict)
            await box.close()
            check(again)
            assert outcome(view) == outcome(expected), f"after a crash at {position}"
            assert list(world.facts.items()) == list(happened.items()), f"after a crash at {position}"
            assert {f"r:{step}" for step in completed}.isdisjoint(world.calls), f"again after a crash at {position}"
            count += 1
        return count

    return play(scenario)


@pytest.mark.row("A2-35")
@every_failure
def test_a_crash_after_any_event_changes_neither_what_is_done_nor_what_is_undone(failing: int) -> None:
    crashes = check_every_crash(Plan(failing=failing))

    assert crashes > 2 * STEPS if not failing else crashes > 2 * failing
    done, undone = [f"booked {n}" for n in range(1, failing or STEPS + 1)], range(failing - 1, 0, -1)
    assert list(world.facts.values()) == [*done, *(f"unbooked {n}" for n in undone)]


@every_failure
def test_a_step_that_may_have_happened_is_undone_after_a_crash_as_without(failing: int) -> None:
    check_every_crash(Plan(failing=failing, unsure=True))

    assert [w for w in world.facts.values() if w.startswith("unbooked")] == [
        f"unbooked {n}" for n in range(failing, 0, -1)
    ]


@every_failure
def test_a_crash_of_a_saga_that_left_memory_changes_nothing(failing: int) -> None:
    check_every_crash(Plan(failing=failing, sleep=3))


@pytest.mark.row("A2-33")
@pytest.mark.parametrize("settings", [PARKS, STAYS], ids=["parked", "in memory"])
@pytest.mark.parametrize("verdict", ["done", "not done", "failed"])
@pytest.mark.parametrize("stubborn", [(2,), (1, 4)])
def test_a_crash_around_a_compensation_that_needs_a_person_changes_nothing(
    stubborn: tuple[int, ...], verdict: Verdict, settings: Settings
) -> None:
    check_every_crash(Plan(failing=5, stubborn=stubborn), settings, verdict)

    undone = {w for w in world.facts.values() if w.startswith("unbooked")}
    by_tool = {f"unbooked {n}" for n in range(1, 5) if verdict == "not done" or n not in stubborn}
    assert undone == by_tool


@pytest.mark.parametrize("verdict", ["done", "not done", "failed"])
@pytest.mark.parametrize("failing", [2, 3, 6])
def test_a_crash_around_a_pivot_changes_nothing(failing: int, verdict: Verdict) -> None:
    check_every_crash(Plan(failing=failing, pivot=3), verdict=verdict)


@pytest.mark.parametrize("failing", [0, 4])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_cancel_and_a_crash_after_any_event_leave_all_or_nothing(failing: int, rounds: int) -> None:
    async def scenario() -> None:
        begin_anew()
        plan = Plan(failing=failing, sleep=3, unsure=True)
        whole = Box(None, TestClock(), workflows=[journey], settings=PARKS)
        rt = await whole.open()
        run = await rt.with_options(id="r").start(journey, plan)
        await whole.clock.advance(250 * rounds)
        await run.cancel("enough")
        _, history = await attend(whole)
        await whole.close()
        check(history)
        assert world.standing() in ([], [f"booked {n}" for n in range(1, STEPS + 1)])
        happened = dict(world.facts)
        assert isinstance(whole.storage, MemoryDisk)
        for position, completed, box in crashes(whole.storage, history, happened, PARKS):
            rt = await box.open()
            await rt.run("r").cancel("enough")
            view, again = await attend(box)
            await box.close()
            check(again)
            everything = [f"booked {n}" for n in range(1, STEPS + 1)] if view.status == "completed" else []
            assert world.standing() == everything, f"after a crash at {position}"
            assert {f"r:{step}" for step in completed}.isdisjoint(world.calls), f"again after a crash at {position}"

    play(scenario)
