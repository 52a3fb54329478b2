"""Writes the streams of runs straight into a log, as the runtime would have, where running them would take too long."""

from collections.abc import Iterator

import msgspec

from perdure.actors.workflows.events import RUN_EVENTS, RunCompleted, RunStarted, StepCompleted, StepStarted
from perdure.store.codec import Codec, Event
from perdure.store.records import Append, Index, NewEvent, StreamId, Unit
from perdure.store.sqlite import SqliteEventLog

EVENTS_AT_ONCE = 4_000


def events_of_run(steps: int, *, is_open: bool) -> Iterator[Event]:
    """Return what a run of *steps* steps records."""
    yield RunStarted("steps", msgspec.Raw(b'{"count":5,"x":1}'), "0" * 32, 1)
    for number in range(1, steps + 1):
        step = f"increment#{number}"
        arguments = msgspec.Raw(b'{"x":%d}' % number)
        yield StepStarted(step, "", "tool", "increment", "idempotent", arguments, f"{number:032x}")
        yield StepCompleted(step, msgspec.Raw(b"%d" % number), 1, 60)
    if not is_open:
        yield RunCompleted(msgspec.Raw(b"%d" % steps))


def encoded(steps: int, *, is_open: bool) -> tuple[NewEvent, ...]:
    """Return the same, ready for the log."""
    codec = Codec(RUN_EVENTS)
    return tuple(codec.encode(event)[0] for event in events_of_run(steps, is_open=is_open))


async def append_stream(log: SqliteEventLog, stream: StreamId, events: tuple[NewEvent, ...], *, is_open: bool) -> None:
    """Append a whole new stream, as many units as it takes; keeps nothing of it in memory."""
    await log.load([(stream, "")])
    for start in range(0, len(events), EVENTS_AT_ONCE):
        part = events[start : start + EVENTS_AT_ONCE]
        ticket = log.append(Unit((Append(stream, start, part, Index(is_open=is_open)),), start, stream))
        if log.is_congested:
            await ticket
    log.forget([stream])


async def append_closed_runs(log: SqliteEventLog, events: int, *, steps: int) -> None:
    """Append closed runs until the log has *events* events."""
    run = encoded(steps, is_open=False)
    closed = Index(is_open=False)
    number = 0
    while (left := events - log.statistics().position) > 0:
        names = [StreamId(f"run/past-{number + offset:08d}") for offset in range(min(1_000, left // len(run) + 1))]
        number += len(names)
        await log.load([(name, "") for name in names])
        for name in names:
            log.append(Unit((Append(name, 0, run, closed),), 0, name))
        await log.flush()
        log.forget(names)
