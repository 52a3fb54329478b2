"""The commands about slots: how each stands, and who held it, lost it, emptied it.

The commands here only read; the operator's are in `slot_words.py`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.slots.slot import NOBODY
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import events_of
from perdure.runtime.cli.options import LogFile, db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    count,
    is_terminal,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
    short_id,
)
from perdure.runtime.cli.slot_standing import SLOT_PREFIX, SlotStanding, read_slot, read_slots
from perdure.runtime.cli.slot_words import OPERATORS
from perdure.runtime.cli.standing import read_owner
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId

_TURNS: Final = (
    "slot-created", "slot-acquired", "slot-release-begun", "slot-released", "slot-quarantined",
    "slot-reset-begun", "slot-reset", "slot-retired",
)  # fmt: skip
_LIST: Final = (
    Column("SLOT"), Column("STATE", styled=True), Column("TRAJECTORY", fixed=False), Column("SINCE"),
    Column("LEASE", right=True), Column("EXPIRES"), Column("CALLS", right=True), Column("RUNS", fixed=False),
    Column("WHY", fixed=False),
)  # fmt: skip
_MAY_GO: Final = frozenset({"EXPIRES", "RUNS", "WHY"})
"""Columns that are left out where they are empty."""
_HISTORY: Final = (
    Column("TIME"), Column("WHAT", styled=True), Column("LEASE", right=True), Column("TRAJECTORY", fixed=False),
    Column("CALLS", right=True), Column("WHO"), Column("WHY", fixed=False),
)  # fmt: skip


class _Fields(msgspec.Struct, frozen=True):
    """What the events of a slot say."""

    trajectory: str = ""
    lease: int | None = None
    because: str = ""
    reason: str = ""
    is_to_be_reset: bool = False
    keeps_files_of: str | None = None
    machine: str = ""


@click.command("history", short_help="List who held a slot, and what became of it.")
@click.argument("slot", metavar="SLOT")
@db_option
@json_option
def history(*, slot: str, db: Path, as_json: bool) -> None:
    """List what happened to SLOT: leases, quarantines and resets, with who and why.

    CALLS counts the calls of a lease up to its end.
    """
    with LogReader.open(db) as reader:
        name = StreamId(SLOT_PREFIX + read_slot(reader, slot).slot)
        types = (*_TURNS, "slot-execution-started")
        turns = _with_calls(list(events_of(reader, Query(stream=name, types=types))))
    if as_json:
        for event, calls in turns:
            print_json(_turn_object(event, calls))
        return
    now = now_micros()
    print_table(_HISTORY, [_turn_row(event, calls, now) for event, calls in turns], wraps=True)


def _with_calls(events: Sequence[Recorded]) -> list[tuple[Recorded, int | None]]:
    """Return the turns; the ends of leases with how many calls each had."""
    found: list[tuple[Recorded, int | None]] = []
    calls, is_held = 0, False
    for event in events:
        match event.type:
            case "slot-execution-started":
                calls += 1
                continue
            case "slot-acquired":
                calls, is_held = 0, True
            case _:
                pass
        is_end = is_held and event.type in ("slot-released", "slot-quarantined")
        is_held = is_held and not is_end
        found.append((event, calls if is_end else None))
    return found


def _fields(event: Recorded) -> _Fields:
    try:
        return msgspec.json.decode(event.data or b"{}", type=_Fields)
    except msgspec.MsgspecError:
        return _Fields()  # a newer version's


def _turn_row(event: Recorded, calls: int | None, now: int) -> tuple[str, ...]:
    said = _fields(event)
    why = {
        "slot-created": said.machine,
        "slot-release-begun": f"{said.because}{', to be reset' if said.is_to_be_reset else ''}",
        "slot-released": "" if said.keeps_files_of is None else f"keeps the files of {said.keeps_files_of}",
        "slot-quarantined": said.reason,
    }.get(event.type, "")
    return (
        clock_time(event.at, now=now),
        event.type.removeprefix("slot-").replace("-", " "),
        "" if said.lease is None else str(said.lease),
        said.trajectory,
        "" if calls is None else str(calls),
        event.principal or "",
        why,
    )


def _turn_object(event: Recorded, calls: int | None) -> dict[str, Any]:
    said = _fields(event)
    return {
        "position": event.position,
        "at": iso(event.at),
        "slot": event.stream[len(SLOT_PREFIX) :],
        "type": event.type,
        "lease": said.lease,
        "trajectory": said.trajectory or None,
        "calls": calls,
        "principal": event.principal,
        "reason": said.because or said.reason or None,
        "keeps_files_of": said.keeps_files_of,
    }


# All slots


@click.group(
    commands={command.name or "": command for command in (history, *OPERATORS)},
    invoke_without_command=True,
    short_help="List slots; look into one, empty it, take it out of use.",
)
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", show_envvar=True, metavar="FILE", help="The log.")
@click.option("--all", "everything", is_flag=True, help="Slots that are gone, too.")
@json_option
@click.pass_context
def slots(ctx: click.Context, *, db: Path | None, everything: bool, as_json: bool) -> None:
    """List the slots: who holds each, since when, what runs in it, why it is quarantined.

    It reads the log alone, and asks no machine.
    """
    if ctx.invoked_subcommand is not None:
        if db is not None:  # said before the subcommand, it is as good as behind it
            ctx.default_map = {name: {"db": str(db)} for name in slots.commands}
        return
    if db is None:
        raise Failure("say which log: --db FILE, or PERDURE_DB", Exit.USAGE)
    with LogReader.open(db) as reader:
        found, owner = read_slots(reader, only_open=not everything), read_owner(reader)
    if as_json:
        for one in found:
            print_json(_slot_object(one))
        return
    if found:
        _print_slots(found)
    else:
        print_line("the log has no slots" if everything else "no slots (--all: those that are gone, too)", error=True)
    if is_terminal(sys.stdout):
        owned = f"owned by {owner.text}" if owner.is_there else "owned by nobody"
        print_line(f"{count(len(found), 'slot')}; the log is {owned}", "dim")


def _print_slots(found: Sequence[SlotStanding]) -> None:
    now = now_micros()
    rows = [_row(one, now) for one in found]
    kept = [
        number for number, column in enumerate(_LIST) if column.name not in _MAY_GO or any(row[number] for row in rows)
    ]
    print_table([_LIST[number] for number in kept], [[row[number] for number in kept] for row in rows], wraps=True)


def _row(one: SlotStanding, now: int) -> tuple[str, ...]:
    kept = "" if one.keeps_files_of is None else f"keeps the files of {one.keeps_files_of}"
    if one.keeps_files_of == NOBODY:
        kept = "its reset did not end"
    return (
        one.slot,
        one.state,
        "" if one.trajectory is None else short_id(one.trajectory),
        clock_time(one.since, now=now),
        str(one.lease) if one.lease else "",
        "" if one.expires_at is None else clock_time(one.expires_at, now=now),
        str(one.executions),
        one.runs,
        one.error or kept,
    )


def _slot_object(one: SlotStanding) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(one)
    times = {"since": iso(one.since), "expires_at": iso(one.expires_at), "last_at": iso(one.last_at)}
    return fields | times | {"runs": one.runs or None, "error": one.error or None, "machine": one.machine or None}
