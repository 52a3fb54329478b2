"""Histories that were recorded once fit today's engine: whole, and cut off after every event, as by a crash."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.messages import Event
from perdure.actors.tools.tool import ToolBehavior
from perdure.actors.triggers.listing import ListingBehavior
from perdure.actors.triggers.topic import TopicBehavior
from perdure.actors.workflows.queue import QueueBehavior
from perdure.actors.workflows.run import RunBehavior
from perdure.store.codec import Codec
from perdure.store.records import Recorded, StreamId
from perdure.testing import TestClock
from tests.histories.loading import FOLDER, Expected, Line, disk_of, read
from tests.histories.outside import PLANS, RUN, Outcome, Outside, box_for
from tests.support.runs import play

WITHOUT_A_RUN = {"slots"}
"""Replayed by tests of their own."""

BEHAVIORS: dict[str, Behavior[Any]] = {
    one.kind: one for one in (RunBehavior(), TopicBehavior(), ListingBehavior(), QueueBehavior())
}
CODEC = Codec([*ToolBehavior.events, *(event for behavior in BEHAVIORS.values() for event in behavior.events)])
NAMES = sorted({path.stem for path in FOLDER.glob("*.jsonl")} - WITHOUT_A_RUN)


def cuts(lines: list[Line]) -> list[int]:
    """Return how many events a disk may hold that has the run: all of a unit are on it, or none."""
    born = next(number for number, line in enumerate(lines) if line.stream == f"run/{RUN}")
    return [number for number in range(born + 1, len(lines) + 1) if not lines[number - 1].more]


async def end_of(name: str, lines: list[Line]) -> dict[str, Outcome]:
    """Go on with the runs of a history and return how each of them ends."""
    clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=lines[-1].at))
    async with box_for(PLANS[name], await disk_of(lines), clock) as box:
        outside = Outside(box, PLANS[name], before=[line.type for line in lines])
        await box.open()
        return await outside.attend()


def event_of(line: Line, position: int) -> Event:
    recorded = Recorded(
        position=position,
        stream=StreamId(line.stream),
        version=line.version,
        type=line.type,
        type_version=line.type_version,
        at=line.at,
        data=bytes(line.data).decode(),
    )
    return CODEC.decode(recorded)


def is_last_of_its_unit(lines: list[Line]) -> bool:
    """Return whether the first of *lines* is the last one of its stream in its unit: the index is told with it."""
    for line, following in pairwise(lines):
        if not line.more:
            return True
        if following.stream == lines[0].stream:
            return False
    return True


def expected_ends(expected: Expected) -> dict[str, Outcome]:
    return expected.runs or {RUN: (expected.status, expected.result, expected.error)}


def test_there_is_a_history_of_every_workflow() -> None:
    assert sorted(PLANS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_history_fits_wherever_it_is_cut(name: str) -> None:
    expected, lines = read(name)
    ends = expected_ends(expected)

    async def scenario() -> list[tuple[int, dict[str, Outcome]]]:
        return [(cut, await end_of(name, lines[:cut])) for cut in cuts(lines)]

    found = play(scenario)

    assert len(found) > 5
    # What an operator started later, a fork, is not there where the history was cut before.
    assert [(cut, end) for cut, end in found if not (RUN in end and end.items() <= ends.items())] == []
    assert found[-1][1] == ends


def test_the_histories_hold_every_kind_of_event_that_runs_and_what_they_use_have() -> None:
    """What is not in a history is not guarded; these are left out on purpose, each with the reason."""
    on_purpose = {
        "call-started", "call-lost",  # calls outside of runs are not replayed
        "run-blocked",  # nothing is replayed from it
    }  # fmt: skip
    recorded = {line.type for name in NAMES for line in read(name)[1]}

    assert CODEC.tags - recorded == on_purpose


@pytest.mark.parametrize("name", NAMES)
def test_every_event_leads_to_the_index_of_then(name: str) -> None:
    recorded = read(name)[1]
    states: dict[str, Any] = {}
    indexes: dict[str, tuple[bool, int | None, str | None]] = {}
    for position, line in enumerate(recorded, 1):
        behavior = BEHAVIORS.get(line.stream.partition("/")[0])
        if behavior is None:
            continue
        before = states.get(line.stream, behavior.initial(StreamId(line.stream)))

        states[line.stream] = behavior.evolve(before, event_of(line, position))

        if is_last_of_its_unit(recorded[position - 1 :]):
            index = behavior.index(states[line.stream])
            indexes[line.stream] = line.index or indexes[line.stream]
            assert (line.stream, line.version, (index.is_open, index.wake_at, index.waits_on)) == (
                line.stream, line.version, indexes[line.stream],
            )  # fmt: skip
