"""The life of three slots and a trajectory, by commands: where `slots.jsonl` is from, and what views are shown.

`python -m tests.histories.slots` records it. One that exists is never replaced: what is new gets a new history.
"""

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.messages import Command, Event, Moment
from perdure.actors.slots.commands import (
    AcquireSlot,
    AssignSlot,
    BeginRelease,
    BeginReset,
    CancelExecution,
    CompleteExecution,
    CreateSlot,
    DoubtExecution,
    EndExecution,
    FinishRelease,
    LeaveSlot,
    QuarantineSlot,
    RecordFile,
    RenewLease,
    RequestExecution,
    ResetSlot,
    RetireSlot,
    SettleExecution,
    StartExecution,
)
from perdure.actors.slots.slot import SlotBehavior
from perdure.actors.slots.trajectory import TrajectoryBehavior
from perdure.store.codec import Codec
from perdure.store.records import Index, StreamId
from tests.histories.loading import FOLDER, Line

Fact: TypeAlias = tuple[StreamId, int, Event]

BEHAVIORS: dict[str, Behavior[Any]] = {one.kind: one for one in (SlotBehavior(), TrajectoryBehavior())}
HISTORY = FOLDER / "slots.jsonl"

S0: list[Command] = [
    CreateSlot(0),
    AcquireSlot("t1"),
    StartExecution(1, "c1"),
    EndExecution(1, "c1"),
    StartExecution(1, "c2"),
    BeginRelease(1, "released", reset=False),
    EndExecution(1, "c2"),
    FinishRelease(1, was_reset=False),
    BeginReset(),
    ResetSlot(),
    AcquireSlot("t1", 1_000),
    RenewLease(2, 2_000),
    BeginRelease(2, "lease expired", reset=True),
    FinishRelease(2, was_reset=True),
    AcquireSlot("t2"),
    QuarantineSlot("reset failed: busy"),
    ResetSlot(),
    RetireSlot(),
]
S1: list[Command] = [CreateSlot(1), AcquireSlot("t2")]
S2: list[Command] = [CreateSlot(2), AcquireSlot("t3"), BeginRelease(1, "operator", reset=True)]

ARGUMENTS = msgspec.Raw(b'{"command":"make"}')


def bash(execution: str, slot: str, lease: int) -> RequestExecution:
    return RequestExecution(execution, "bash", ARGUMENTS, "irreversible", 30.0, slot, lease)


def reading(slot: str, attempt: int) -> RequestExecution:
    return RequestExecution("c3", "read_file", msgspec.Raw(b'{"path":"a"}'), "read", 5.0, slot, 1, attempt)


T1: list[Command] = [
    AssignSlot("s0", 1),
    bash("c1", "s0", 1),
    CompleteExecution("c1", success=True, output="hi\n", metadata=msgspec.Raw(b'{"exit_code":0}'), micros=900),
    bash("c2", "s0", 1),
    CompleteExecution("c2", success=False, error="Exit code: 3", metadata=msgspec.Raw(b'{"exit_code":3}')),
    reading("s0", 1),
    LeaveSlot("s0", 1, "quarantined"),
    AssignSlot("s1", 1),
    reading("s1", 2),
    CompleteExecution("c3", success=True, output="text"),
    RequestExecution("c4", "web", msgspec.Raw(b"{}"), "idempotent", 30.0),
    CancelExecution("c4", "given up", was_begun=True),
    bash("c5", "s1", 1),
    DoubtExecution("c5", "the process died"),
    SettleExecution("c5", success=True, output="", because="the file is there"),
    bash("c6", "s1", 1),
    DoubtExecution("c6", "the process died"),
    bash("c7", "s1", 1),
    RecordFile("in", "a.txt", "ab" * 32, 3),
    RecordFile("out", ".", "cd" * 32, 400, "archive"),
]


def facts_of(name: str, commands: list[Command], begin: int = 0) -> Iterator[Fact]:
    """The events that *commands* lead to, each a microsecond after the one before."""
    stream, behavior, at = StreamId(name), BEHAVIORS[name.partition("/")[0]], begin
    state = behavior.initial(stream)
    for command in commands:
        decided = behavior.decide(state, command, Moment(at, at))
        for event in decided.events:
            at += 1
            state = behavior.evolve(state, event)
            yield stream, at, event


def slot_facts() -> list[Fact]:
    first = list(facts_of("slot/s0", S0))
    second = list(facts_of("slot/s1", S1, len(first)))
    return [*first, *second, *facts_of("slot/s2", S2, len(first) + len(second))]


def trajectory_facts() -> list[Fact]:
    return list(facts_of("trajectory/t1", T1))


def record() -> None:
    """Keep every event with the index after it, and before them, in one line, the states at the end."""
    codec = Codec([event for behavior in BEHAVIORS.values() for event in behavior.events])
    states: dict[StreamId, Any] = {}
    indexes: dict[StreamId, Index] = {}
    versions: dict[StreamId, int] = {}
    lines: list[bytes] = []
    for stream, at, event in [*slot_facts(), *trajectory_facts()]:
        behavior = BEHAVIORS[stream.partition("/")[0]]
        states[stream] = behavior.evolve(states.get(stream, behavior.initial(stream)), event)
        versions[stream] = versions.get(stream, 0) + 1
        index = behavior.index(states[stream])
        changed = None if index == indexes.get(stream) else (index.is_open, index.wake_at, index.waits_on)
        indexes[stream] = index
        new, _ = codec.encode(event)
        line = Line(stream, versions[stream], new.type, new.type_version, at, None, changed, msgspec.Raw(new.data))
        lines.append(msgspec.json.encode(line))
    HISTORY.write_bytes(b"\n".join([msgspec.json.encode({"states": states}), *lines]) + b"\n")


if __name__ == "__main__":
    if HISTORY.exists():
        sys.exit(f"{HISTORY.name} is there; a history is kept for ever")
    record()
