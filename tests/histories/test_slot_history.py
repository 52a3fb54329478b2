"""The history of slots and of a trajectory that was recorded once folds to the same states with today's code."""

from typing import Any

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.store.codec import Codec
from perdure.store.records import Recorded, StreamId
from tests.histories.loading import Line
from tests.histories.slots import BEHAVIORS, HISTORY

CODEC = Codec([event for behavior in BEHAVIORS.values() for event in behavior.events])


def lines() -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in HISTORY.read_bytes().splitlines()[1:]]


def event_of(line: Line, position: int) -> Event:
    return CODEC.decode(
        Recorded(
            position=position,
            stream=StreamId(line.stream),
            version=line.version,
            type=line.type,
            type_version=line.type_version,
            at=line.at,
            data=bytes(line.data).decode(),
        )
    )


def test_every_event_leads_to_the_index_of_then_and_the_last_to_the_state_of_then() -> None:
    states: dict[str, Any] = {}
    indexes: dict[str, tuple[bool, int | None, str | None]] = {}
    for position, line in enumerate(lines(), 1):
        behavior = BEHAVIORS[line.stream.partition("/")[0]]
        before = states.get(line.stream, behavior.initial(StreamId(line.stream)))

        after = states[line.stream] = behavior.evolve(before, event_of(line, position))

        index = behavior.index(after)
        indexes[line.stream] = line.index or indexes[line.stream]
        assert (line.stream, line.version, index.is_open, index.wake_at, index.waits_on) == (
            line.stream, line.version, *indexes[line.stream],
        )  # fmt: skip

    expected = msgspec.json.decode(HISTORY.read_bytes().splitlines()[0])["states"]
    told: dict[str, dict[str, Any]] = {
        stream: msgspec.json.decode(msgspec.json.encode(state)) for stream, state in states.items()
    }
    # A field that is new since then has no place in the history; what was there then is as it was.
    assert {stream: {field: told[stream][field] for field in then} for stream, then in expected.items()} == expected


def test_the_history_holds_every_event_of_slots_and_of_trajectories() -> None:
    assert {line.type for line in lines()} == CODEC.tags
