"""The command `state`: which scopes of the shared state hold values, and which values one holds.

It reads the events, and needs no application code. Invariant: what is shown is what a read would give at the newest
event of the log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.state.scopes import place_of, stream_of
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.folding import events_of
from perdure.runtime.cli.options import Number, db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    count,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
    short_id,
    shorten,
)
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId

_ENDS: Final = frozenset({"run-completed", "run-cancelled", "run-continued"})
"""What takes away the values of a run; one that failed keeps them, as it may be tried again."""
_TYPES: Final = ("state-changed", "state-dropped", "state-moved", *sorted(_ENDS))
_WIDTH: Final = 60
_SCOPES: Final = """
SELECT name FROM streams WHERE kind = 'state' AND is_open
UNION SELECT s.name FROM events AS e JOIN streams AS s ON s.id = e.stream
WHERE e.type IN ('state-changed', 'state-moved') AND s.kind = 'run' AND s.is_open ORDER BY 1
"""
_LIST: Final = (
    Column("SCOPE", fixed=False), Column("KEYS", right=True), Column("BYTES", right=True), Column("CHANGED"),
)  # fmt: skip
_VALUES: Final = (
    Column("KEY", fixed=False), Column("VALUE", fixed=False), Column("CHANGED"), Column("BY", fixed=False),
)  # fmt: skip
_CHANGES: Final = (
    Column("TIME"), Column("KEY", fixed=False), Column("OLD", fixed=False), Column("NEW", fixed=False),
    Column("BY", fixed=False),
)  # fmt: skip


class _Fields(msgspec.Struct, frozen=True):
    """What `state-changed` says."""

    key: str = ""
    new: msgspec.Raw = msgspec.Raw(b"null")
    old: msgspec.Raw = msgspec.Raw(b"")
    """Empty: there was none."""
    deleted: bool = False
    run: str | None = None
    step: str | None = None


class _Held(msgspec.Struct, frozen=True):
    """A value, and the event that set it."""

    key: str
    value: str
    """JSON; of a large one what the log has of it."""
    event: Recorded | None
    """None: another run handed it over."""
    run: str | None = None

    @property
    def by(self) -> str:
        """Who set it."""
        if self.run:
            return f"run {short_id(self.run)}"
        return "" if self.event is None else self.event.principal or "the application"


@click.command(short_help="Show the values that runs share.")
@click.argument("scope", required=False)
@db_option
@click.option("--changes", type=Number(min=1), help="The newest so many changes of SCOPE, in place of its values.")
@json_option
def state(*, scope: str | None, db: Path, changes: int | None, as_json: bool) -> None:
    """List the scopes that hold values, or show the values of SCOPE.

    SCOPE is `global`, `stream/ENTRY` (an entry point, or a workflow whose runs come by none), `conversation/ID` or
    `execution/RUN`.
    """
    with LogReader.open(db) as reader:
        if scope is None and changes is None:
            _print_scopes(reader, db, as_json=as_json)
        elif scope is None:
            raise click.UsageError("--changes is of one scope: perdure state SCOPE --changes 10")
        elif changes is not None:
            _print_changes(reader, _stream(reader, scope), changes, as_json=as_json)
        else:
            _print_values(reader, scope, _stream(reader, scope), as_json=as_json)


def _stream(reader: LogReader, scope: str) -> StreamId:
    kind, _, id = scope.partition("/")
    match kind:
        case "global" if not id:
            return stream_of("global", "")
        case "stream" | "conversation" if id:
            return stream_of(kind, id)
        case "execution" if id:
            return find_run(reader, id).stream
        case _:
            known = "global, stream/ENTRY, conversation/ID or execution/RUN"
            raise Failure(f"a scope is {known}, not {scope!r}", Exit.USAGE)


def _values(reader: LogReader, stream: StreamId) -> dict[str, _Held]:
    """Return what a scope holds."""
    held: dict[str, _Held] = {}
    for event in events_of(reader, Query(stream=stream, types=_TYPES)):
        if event.type == "state-moved":
            held = {k: _Held(k, bytes(v).decode(), None) for k, v in _moved(reader, event).items()}
        elif event.type != "state-changed":
            held.clear()
        elif event.data is not None:
            fields = msgspec.json.decode(event.data, type=_Fields)
            held.pop(fields.key, None)
            if not fields.deleted:
                held[fields.key] = _Held(fields.key, _text(event, "new", fields.new), event, fields.run)
    return held


def _moved(reader: LogReader, event: Recorded) -> dict[str, msgspec.Raw]:
    """Return the values that a run got from the one that it goes on for, or forks."""
    if event.blobs is not None:
        large = reader.blob(msgspec.json.decode(event.blobs, type=dict[str, str])["values"])
        return msgspec.json.decode(large or b"{}", type=dict[str, msgspec.Raw])
    if event.data is None:
        return {}
    return msgspec.json.decode(event.data, type=dict[str, dict[str, msgspec.Raw]])["values"]


def _text(event: Recorded, field: str, value: msgspec.Raw) -> str:
    """Return a value as JSON; a large one, which the log keeps apart, by its hash."""
    blobs: dict[str, str] = {} if event.blobs is None else msgspec.json.decode(event.blobs)
    return bytes(value).decode() if field not in blobs else msgspec.json.encode({"$blob": blobs[field]}).decode()


def _print_scopes(reader: LogReader, db: Path, *, as_json: bool) -> None:
    now, rows = now_micros(), list[Sequence[str]]()
    for (name,) in list(reader.sql(_SCOPES).rows):
        values = _values(reader, StreamId(str(name)))
        if not values:
            continue
        label = _label(str(name))
        size = sum(len(one.key.encode()) + len(one.value.encode()) for one in values.values())
        last = max((one.event.at for one in values.values() if one.event is not None), default=None)
        if as_json:
            print_json({"scope": label, "keys": len(values), "bytes": size, "changed_at": iso(last)})
        rows.append((label, str(len(values)), str(size), "" if last is None else clock_time(last, now=now)))
    if not rows:
        print_line(f"no values are shared in {db}", error=True)
    elif not as_json:
        print_table(_LIST, rows)


def _label(stream: str) -> str:
    return place_of("execution" if stream.startswith("run/") else "global", stream).name


def _print_values(reader: LogReader, scope: str, stream: StreamId, *, as_json: bool) -> None:
    values, now = sorted(_values(reader, stream).values(), key=lambda one: one.key), now_micros()
    if as_json:
        for one in values:
            print_json(_value_object(one))
    elif not values:
        print_line(f"{scope} holds nothing", error=True)
    else:
        rows = [(one.key, shorten(one.value, _WIDTH), _when(one.event, now), one.by) for one in values]
        print_table(_VALUES, rows)
        print_line(count(len(values), "key"), "dim", error=True)


def _value_object(one: _Held) -> dict[str, Any]:
    event = one.event
    found = {"key": one.key, "value": msgspec.json.decode(one.value), "run": one.run}
    if event is not None:
        found |= {"at": iso(event.at), "position": event.position, "who": event.principal}
    return found


def _when(event: Recorded | None, now: int) -> str:
    return "" if event is None else clock_time(event.at, now=now)


def _print_changes(reader: LogReader, stream: StreamId, limit: int, *, as_json: bool) -> None:
    now, rows = now_micros(), list[Sequence[str]]()
    for event in reader.read(Query(stream=stream, types=("state-changed",), newest_first=True, limit=limit)):
        fields = msgspec.json.decode(event.data or "{}", type=_Fields)
        old = None if not bytes(fields.old) else _text(event, "old", fields.old)
        new = None if fields.deleted else _text(event, "new", fields.new)
        if as_json:
            values = {name: msgspec.json.decode(text) for name, text in {"old": old, "new": new}.items() if text}
            who = {"run": fields.run, "step": fields.step, "who": event.principal}
            print_json({"key": fields.key, **values, **who, "at": iso(event.at), "position": event.position})
        by = _Held(fields.key, "", event, fields.run).by
        shown = [shorten(text or "", _WIDTH) for text in (old, new)]
        rows.append((clock_time(event.at, now=now), fields.key, *shown, by))
    if not rows:
        print_line("nothing was changed", error=True)
    elif not as_json:
        print_table(_CHANGES, rows)
