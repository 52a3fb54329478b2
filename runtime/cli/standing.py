"""How runs stand, read from the log alone: which one runs, sleeps, needs a person, or was left lying by its process.

The log cannot know that a process died: a run is `running` only while somebody owns the log, in the life that it was
started or resumed in. Pure, but for what is called `read`, which asks a reader.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from perdure.actors.workflows.children import CHILD
from perdure.actors.workflows.mailbox import ANSWER, SIGNAL
from perdure.actors.workflows.queue import WAITS_IN, is_queued
from perdure.actors.workflows.steering import PAUSED
from perdure.actors.workflows.subscriptions import EVENT
from perdure.runtime.cli.facts import ENDS, RUN_PREFIX, Facts, facts_of
from perdure.runtime.cli.output import clock_time, duration
from perdure.runtime.cli.timeline import Timeline
from perdure.store import lock
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId, StreamSummary

PAGE: Final = 200
"""Runs asked about with one statement."""

Status: TypeAlias = Literal[
    "running", "queued", "sleeping", "waiting", "paused", "due", "suspended", "interrupted", "cancelling", "in doubt",
    "blocked", "completed", "failed", "cancelled", "continued",
]  # fmt: skip
_ENDED: Final[dict[str, Status]] = {
    "run-completed": "completed", "run-failed": "failed", "run-cancelled": "cancelled", "run-blocked": "blocked",
    "run-continued": "continued",
}  # fmt: skip
"""The turns after which a run does nothing more by itself, and how it stands then."""
ATTENTION: Final[frozenset[Status]] = frozenset({"in doubt", "blocked"})
"""What only a person can move."""
WAITS: Final[dict[str | None, str]] = {
    ANSWER: "an answer: perdure questions", SIGNAL: "a signal", CHILD: "its children", EVENT: "an event",
}  # fmt: skip
"""What a run sleeps for that is no time, in words."""

_TURNS: Final = msgspec.json.encode(
    ["run-started", "run-resumed", "run-suspended", "run-parked", "run-blocked", "run-retried", *sorted(ENDS)]
).decode()
# Per run: its first event, its last turn, and counts; payloads of steps are not read. `streams` names the runs. The end
# of a child past a pivot, of which a person is asked, is none, and the next one of its step is no other step.
_RUNS: Final = """
WITH seen AS (
    SELECT stream,
           max(iif(type IN (SELECT value FROM json_each(:turns)), version, 0)) AS turn,
           sum(type IN ('step-completed', 'step-failed', 'step-cancelled', 'child-ended')
               OR type = 'child-started' AND NOT data->>'$.is_awaited')
           - sum(type = 'step-in-doubt' AND ifnull(data->>'$.child', '') <> '') AS done,
           sum(type IN ('step-started', 'child-started'))
           - sum(type = 'step-not-done' AND data->>'$.step' IN (
               SELECT doubt.data->>'$.step' FROM log AS doubt
               WHERE doubt.stream = log.stream AND doubt.type = 'step-in-doubt' AND doubt.data->>'$.child' <> ''
           )) AS started,
           sum(type = 'step-in-doubt') AS doubts,
           max(type = 'run-cancel-requested') AS is_cancelled,
           sum(type NOT IN ('run-paused', 'run-unpaused')) AS events
    FROM log WHERE stream IN (SELECT value FROM json_each(:streams)) GROUP BY stream
)
SELECT seen.stream, first.data->>'$.workflow', last.type, last.at,
       json_object('life', last.data->'$.life', 'wake_at', last.data->'$.wake_at', 'waits_on', last.data->'$.waits_on',
                   'kind', last.data->'$.kind', 'account', last.data->'$.account', 'reason', last.data->'$.reason',
                   'listens', last.data->'$.listens',
                   'error_type', last.data->'$.error_type', 'error', last.data->'$.error', 'run', last.data->'$.run'),
       seen.done, seen.started, seen.doubts, seen.is_cancelled, seen.events
FROM seen
JOIN log AS first ON first.stream = seen.stream AND first.version = 1
JOIN log AS last ON last.stream = seen.stream AND last.version = seen.turn
"""


_ROWS: Final = "SELECT id, name, kind, version, is_open, wake_at, waits_on, first_at, last_at FROM streams"
# A stream's id is its number in the order of beginning. Open runs are found by their partial index and sorted, which
# costs as much as there are of them; all runs are met from the end of the table, which costs a page.
_NEWEST_OPEN: Final = f"""{_ROWS} INDEXED BY streams_open
WHERE is_open AND name >= 'run/' AND name < 'run0' AND id < ?1 ORDER BY id DESC LIMIT ?2"""
_NEWEST: Final = f"{_ROWS} NOT INDEXED WHERE kind = 'run' AND id < ?1 ORDER BY id DESC LIMIT ?2"
_AFTER_ALL: Final = 2**63 - 1


class Owner(msgspec.Struct, frozen=True):
    """Whether somebody writes the log, and in which life of the runtime it is."""

    is_there: bool
    text: str | None
    life: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one run stands."""

    run: str
    workflow: str
    status: Status
    steps_done: int
    in_flight: int
    in_doubt: tuple[str, ...]
    waits_for: str
    """In words, for people."""
    wake_at: int | None
    started_at: int
    last_at: int


def read_owner(reader: LogReader) -> Owner:
    """Return who owns the log that *reader* reads."""
    state = lock.look(reader.path)
    opened = reader.read(Query(stream=StreamId("runtime/main"), types=("runtime-opened",), limit=1, newest_first=True))
    life = facts_of(opened[0]).life if opened else 0
    return Owner(is_there=state.is_held, text=None if state.owner is None else str(state.owner), life=life)


def read_runs(reader: LogReader, *, only_open: bool, now: int) -> Iterator[Standing]:
    """Yield the runs in the order of their ids."""
    owner = read_owner(reader)
    after = ""
    while page := reader.streams(RUN_PREFIX, after=after, only_open=only_open, limit=PAGE):
        yield from _standings(reader, page, owner, now)
        after = page[-1].stream


def read_newest_runs(reader: LogReader, *, only_open: bool, now: int) -> Iterator[Standing]:
    """Yield the runs, the one that was started last first."""
    owner, before = read_owner(reader), _AFTER_ALL
    query = _NEWEST_OPEN if only_open else _NEWEST
    while rows := list(reader.sql(query, (before, PAGE)).rows):
        yield from _standings(reader, [_summary(*row) for _, *row in rows], owner, now)
        before = rows[-1][0]


def _summary(name: str, kind: str, version: int, is_open: int, *times: Any) -> StreamSummary:
    return StreamSummary(StreamId(name), kind, version, bool(is_open), *times)


def read_run(reader: LogReader, stream: StreamSummary, *, now: int) -> Standing:
    """Return how one run stands."""
    return next(_standings(reader, [stream], read_owner(reader), now))


def _standings(reader: LogReader, page: Sequence[StreamSummary], owner: Owner, now: int) -> Iterator[Standing]:
    summaries = {row.stream: row for row in page}
    names = msgspec.json.encode(list(summaries)).decode()
    found = reader.sql(_RUNS.replace(":turns", "?1").replace(":streams", "?2"), (_TURNS, names)).rows
    rows = {row[0]: row for row in found}
    for row in [rows[name] for name in summaries if name in rows]:
        stream, workflow, turn, at, data, done, started, doubts, is_cancelled, events = row
        keys = _in_doubt(reader, stream) if doubts else ()
        facts = _lenient(data)
        status = status_of(
            turn,
            facts,
            owner=owner,
            now=now,
            is_new=events == 1,
            is_cancelled=bool(is_cancelled),
            is_in_doubt=bool(keys),
        )
        waits_on = summaries[stream].waits_on if summaries[stream].is_open else None
        is_paused = waits_on == PAUSED and status != "in doubt"
        has_place = is_queued(waits_on)
        status = "paused" if is_paused else "queued" if has_place else status
        in_flight = max(0, started - done)  # one that a retry goes on with was cancelled before
        waits_for = describe(status, facts, keys, now=now, at=at, in_flight=in_flight)
        if has_place:
            waits_for = f"its turn in the queue {(waits_on or '').removeprefix(WAITS_IN)}"
        yield Standing(
            run=stream[len(RUN_PREFIX) :],
            workflow=workflow or "",
            status=status,
            steps_done=done,
            in_flight=in_flight,
            in_doubt=keys,
            waits_for=_why_paused(reader, stream) if is_paused else waits_for,
            wake_at=facts.wake_at if status in ("sleeping", "waiting", "due") else None,
            started_at=summaries[stream].first_at,
            last_at=summaries[stream].last_at,
        )


def _why_paused(reader: LogReader, stream: str) -> str:
    types = ("run-paused", "run-interrupted", "pause-reached")
    found = reader.read(Query(stream=StreamId(stream), types=types, limit=1, newest_first=True))
    if found and found[0].type == "run-interrupted":
        return "resume: its process ended, and it is held"
    if found and found[0].type == "pause-reached":
        facts = facts_of(found[0])
        return f"resume with --answer: paused at {facts.name}{f': {facts.text}' if facts.text else ''}"
    who = f" by {found[0].principal}" if found and found[0].principal else ""
    return f"resume: paused{who}: {facts_of(found[0]).reason}" if found else "resume: paused"


def _lenient(data: str) -> Facts:
    fields: dict[str, Any] = {k: v for k, v in msgspec.json.decode(data).items() if v is not None}
    try:
        return msgspec.convert(fields, Facts)
    except msgspec.ValidationError:
        return Facts()


def _in_doubt(reader: LogReader, stream: str) -> tuple[str, ...]:
    timeline, after = Timeline(stream), 0
    while page := reader.read(Query(stream=StreamId(stream), after=after)):
        for event in page:
            timeline.add(event)
        after = page[-1].position
    return tuple(timeline.in_doubt)


def status_of(
    turn: str, facts: Facts, *, owner: Owner, now: int, is_new: bool, is_cancelled: bool, is_in_doubt: bool
) -> Status:
    """Return how a run stands whose last turn was an event of type *turn* that says *facts*."""
    match turn:
        case _ if (end := _ENDED.get(turn)) is not None:
            return end
        case _ if is_in_doubt:
            return "in doubt"
        case _ if is_cancelled:
            return "cancelling"
        case "run-parked":
            if facts.waits_on in WAITS and (facts.wake_at is None or facts.wake_at > now):
                return "waiting"
            return "sleeping" if facts.wake_at is not None and facts.wake_at > now else "due"
        case "run-suspended":
            return "suspended"
        case "run-retried":
            return "due"
        case _ if owner.is_there and facts.life == owner.life:
            return "running"
        case _:
            return "queued" if is_new else "interrupted"


def describe(  # noqa: C901 - one case a status
    status: Status, facts: Facts, in_doubt: Sequence[str], *, now: int, at: int, in_flight: int
) -> str:
    """Return in words what a run waits for, or how it ended."""
    match status:
        case "in doubt":
            return f"a verdict on {', '.join(in_doubt)}"
        case "blocked":
            return f"{facts.kind}: {facts.account}"
        case "sleeping":
            wake = facts.wake_at or now
            return f"until {clock_time(wake, now=now)} (in {duration(wake - now)})"
        case "waiting":
            until = "" if facts.wake_at is None else f", until {clock_time(facts.wake_at, now=now)} at most"
            types = sorted({place.partition("/")[0] for place in facts.listens} if facts.waits_on == EVENT else ())
            return f"{WAITS[facts.waits_on or ANSWER]}{': ' if types else ''}{', '.join(types)}{until}"
        case "due":
            return "resume: its time has come"
        case "suspended":
            return "resume: it was stopped in good order"
        case "interrupted":
            steps = f", {in_flight} in flight" if in_flight else ""
            return f"resume: its process ended{steps}"
        case "queued":
            return "resume: its code has not run yet"
        case "cancelling":
            return "resume: its code takes itself down"
        case "failed":
            return f"{facts.error_type}: {facts.error}"
        case "cancelled":
            return facts.reason
        case "continued":
            return f"goes on as {facts.run}"
        case "running":
            return f"{in_flight} in flight" if in_flight else "its code"
        case "paused":
            return "resume"
        case "completed":
            return f"ended {clock_time(at, now=now)}"
