"""The commands about circuit breakers: which are not closed and why, and what they did.

The commands here only read; the operator's are in `forcing.py`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import Facts, facts_of
from perdure.runtime.cli.fleet import (
    TOOL_PREFIX,
    TURNS,
    CircuitStanding,
    Fleet,
    check_known,
    circuits_of,
    figures_object,
)
from perdure.runtime.cli.folding import events_of
from perdure.runtime.cli.forcing import AFTER, OPERATORS
from perdure.runtime.cli.options import LogFile, db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    count,
    duration,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
)
from perdure.runtime.cli.simulating import simulate
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId

_LIST: Final = (
    Column("CIRCUIT", fixed=False), Column("STATE", styled=True), Column("SINCE"), Column("POSITION", right=True),
    Column("IN ROW", right=True), Column("PROBE IN", right=True), Column("WHY", fixed=False),
)  # fmt: skip
_HISTORY: Final = (
    Column("POSITION", right=True), Column("TIME"), Column("CIRCUIT", fixed=False), Column("GEN", right=True),
    Column("STATE", styled=True), Column("WHO"), Column("WHY", fixed=False),
)  # fmt: skip


@click.command("history", short_help="List all that a circuit did.")
@click.argument("tool", metavar="TOOL")
@db_option
@json_option
def history(*, tool: str, db: Path, as_json: bool) -> None:
    """List every transition of TOOL's circuit: when, to which state, who and why.

    Where every conversation has a circuit of its own, TOOL means all of them, and TOOL@CONVERSATION one.
    """
    with LogReader.open(db) as reader:
        check_known(reader, tool)
        names = [stream for stream, _ in circuits_of(reader, tool)]
        turns = sorted(_turns(reader, names), key=lambda event: event.position)
    if as_json:
        for event in turns:
            print_json(_turn_object(event))
    elif turns:
        _print_turns(turns, has_names=len(names) > 1)
    else:
        print_line(f"the circuit of {tool} never moved: it is closed", error=True)


def _print_turns(turns: Iterable[Recorded], *, has_names: bool) -> None:
    kept = [number for number, column in enumerate(_HISTORY) if has_names or column.name != "CIRCUIT"]
    rows = [_turn_row(event) for event in turns]
    print_table([_HISTORY[number] for number in kept], [[row[number] for number in kept] for row in rows], wraps=True)


def _turns(reader: LogReader, streams: Iterable[StreamId]) -> Iterator[Recorded]:
    for stream in streams:
        yield from events_of(reader, Query(stream=stream, types=TURNS))


def _turn(event: Recorded) -> tuple[Facts, str]:
    """Return what a transition says, and the state that it led to."""
    turn = facts_of(event)
    states = {"circuit-opened": "open", "circuit-half-opened": "half_open", "circuit-closed": "closed"}
    return turn, states.get(event.type) or AFTER.get(turn.to, turn.to)


def _turn_row(event: Recorded) -> tuple[str, ...]:
    turn, state = _turn(event)
    why = {
        "circuit-half-opened": "its time had come: a probe was let through",
        "circuit-closed": "probes succeeded",
        "circuit-forced": f"{turn.to}: {turn.because}",
    }.get(event.type, turn.reason)
    name = event.stream[len(TOOL_PREFIX) :]
    when = clock_time(event.at)
    return (str(event.position), when, name, str(turn.generation), state, event.principal or "", why)


def _turn_object(event: Recorded) -> dict[str, Any]:
    turn, state = _turn(event)
    return {
        "position": event.position,
        "at": iso(event.at),
        "circuit": event.stream[len(TOOL_PREFIX) :],
        "generation": turn.generation,
        "type": event.type,
        "state": state,
        "forced": turn.to or None,
        "reason": turn.because or turn.reason or None,
        "principal": event.principal,
        "correlation": event.correlation,
    }


# All circuits


@click.group(
    commands={command.name or "": command for command in (*OPERATORS, history, simulate)},
    invoke_without_command=True,
    short_help="List circuits; open, close, disable or simulate them.",
)
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", show_envvar=True, metavar="FILE", help="The log.")
@click.option("--all", "everything", is_flag=True, help="Closed circuits of conversations, too.")
@json_option
@click.pass_context
def breakers(ctx: click.Context, *, db: Path | None, everything: bool, as_json: bool) -> None:
    """List the circuits: since when each is as it is, and why.

    Where every conversation has a circuit of its own, those that are closed are only counted.
    """
    if ctx.invoked_subcommand is not None:
        if db is not None:  # said before the subcommand, it is as good as behind it
            ctx.default_map = {name: {"db": str(db)} for name in breakers.commands}
        return
    if db is None:
        raise Failure("say which log: --db FILE, or PERDURE_DB", Exit.USAGE)
    now, hidden = now_micros(), 0
    shown: list[CircuitStanding] = []
    with LogReader.open(db) as reader:
        for one in Fleet(reader, {}, now).standings():
            if everything or one.conversation is None or one.state != "closed":
                shown.append(one)
            else:
                hidden += 1
    if as_json:
        for one in shown:
            print_json(_circuit_object(one))
        return
    if shown:
        print_table(_LIST, [_row(one, now) for one in shown], wraps=True)
    if hidden:
        print_line(f"{count(hidden, 'circuit')} of conversations closed: --all", "dim", error=True)


def _row(one: CircuitStanding, now: int) -> tuple[str, ...]:
    turn, figures = one.turn, one.figures
    is_open = figures.state == "open"
    probe = duration(round(figures.retry_after_seconds * 1e6)) if is_open and one.is_retry_known else ""
    probe = "now" if one.is_due else probe
    return (
        one.name,
        one.state,
        "" if turn is None else clock_time(turn.at, now=now),
        "" if turn is None else str(turn.position),
        str(figures.failures),
        probe,
        one.reason,
    )


def _circuit_object(one: CircuitStanding) -> dict[str, Any]:
    figures, turn = figures_object(one), one.turn
    return {
        "circuit": one.name,
        "tool": one.tool,
        "conversation": one.conversation,
        "state": figures["state"],
        "forced": figures["forced"],
        "since": None if turn is None else iso(turn.at),
        "position": None if turn is None else turn.position,
        "failures": figures["failures"],
        "retry_after_seconds": figures["retry_after_seconds"],
        "reason": one.reason,
        "principal": None if turn is None else turn.principal,
    }
