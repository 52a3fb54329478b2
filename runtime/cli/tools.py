"""The command tools: what the log knows of every tool, and, beside an application's file, what it can offer.

The figures are folds of the log and need no application code; what a tool is, and whether it can be used now, its code
alone can say. The log is only read.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.tools.registry import Registry
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.fleet import CircuitStanding, Fleet, ToolFigures, by_tool, figures_object
from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.loading import load
from perdure.runtime.cli.options import LogFile, json_option
from perdure.runtime.cli.output import (
    Column,
    Row,
    Span,
    aside,
    clock_time,
    duration,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
)
from perdure.store.reader import LogReader
from perdure.store.records import Recorded

_FIGURES: Final = (
    Column("TOOL", fixed=False), Column("STATE", styled=True), Column("CALLS", right=True), Column("OK", right=True),
    Column("IN ROW", right=True), Column("REFUSED", right=True), Column("AVG", right=True), Column("P50", right=True),
    Column("P95", right=True),
)  # fmt: skip
_OFFERS: Final = (
    Column("TOOL"), Column("EFFECT"), Column("TOOLSET"), Column("OFFERED", fixed=False),
    Column("DESCRIPTION", fixed=False),
)  # fmt: skip


class Offered(msgspec.Struct, frozen=True):
    """A tool of the application's file, and whether it can be used now."""

    tool: Tool[..., Any]
    lacks: str
    """What it lacks; empty: nothing."""


@click.command("tools", short_help="List tools: their circuits, calls and times.")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.py]")
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", show_envvar=True, metavar="FILE", help="The log.")
@json_option
def tools(*, file: Path | None, db: Path | None, as_json: bool) -> None:
    """List every tool that the log knows: its circuit, how often it was called and what came of it.

    With FILE.py also the tools found in it: whether each can be offered now, its effect class and what it does; with
    --json its definition, too. Then --db may be left out.
    """
    if file is None and db is None:
        raise Failure(
            "say which log, with --db FILE or PERDURE_DB, or which application: perdure tools FILE.py", Exit.USAGE
        )
    offers = {} if file is None else _offers(file)
    figures: dict[str, ToolFigures] = {}
    now = now_micros()
    if db is not None:
        with LogReader.open(db) as reader:
            policies = {name: offer.tool.breaker for name, offer in offers.items()}
            figures = {one.tool: one for one in by_tool(Fleet(reader, policies, now).standings())}
    if as_json:
        for name in sorted(offers.keys() | figures.keys()):
            print_json(_object(name, figures.get(name), offers.get(name)))
        return
    if offers:
        print_table(_OFFERS, [_offer_row(offer) for offer in offers.values()])
    if offers and figures:
        print_line("")
    if figures:
        print_table(_FIGURES, [row for one in figures.values() for row in _figure_rows(one, now)])


def _offers(file: Path) -> dict[str, Offered]:
    log_to_stderr()
    with aside():
        registry = Registry(load(file).tools)
        return {name: Offered(registry[name], _lacks(registry, name)) for name in registry}


def _lacks(registry: Registry, name: str) -> str:
    if registry.is_available(name):
        return ""
    missing = [variable for variable in registry[name].offer.requires_env if not os.environ.get(variable)]
    return f"needs {', '.join(missing)}" if missing else "its check says no"


def _offer_row(offer: Offered) -> Row:
    tool = offer.tool
    what = tool.description.partition("\n")[0]
    return (tool.name, tool.effect, tool.toolset or "", f"no: {offer.lacks}" if offer.lacks else "yes", what)


def _figure_rows(one: ToolFigures, now: int) -> Iterator[Row]:
    figures = one.figures
    yield (
        one.tool, one.state, f"{figures.calls:,}", f"{figures.successes:,}", str(figures.failures),
        f"{figures.rejected:,}", _seconds(figures.avg_time), _seconds(figures.p50), _seconds(figures.p95),
    )  # fmt: skip
    if len(one.circuits) == 1 and one.circuits[0].turn is not None and one.state != "closed":
        yield _note(_why(one.circuits[0], one.circuits[0].turn, now))
    elif one.not_closed:
        yield _note(f"which and why: perdure breakers; {len(one.circuits)} conversations have one each")
    if figures.last_error:
        yield _note(f"last error {figures.last_error}")
    if figures.cancelled or figures.lost:
        yield _note(f"{figures.cancelled:,} cancelled, {figures.lost:,} lost with the process")


def _note(text: str) -> Span:
    return Span("  ↳ ", text)


def _why(circuit: CircuitStanding, turn: Recorded, now: int) -> str:
    parts = [f"since {clock_time(turn.at, now=now)}, position {turn.position}"]
    if circuit.reason:
        parts.append(f": {circuit.reason}")
    if circuit.is_due:
        parts.append("; its time has come, the next call is a probe")
    elif circuit.figures.state == "open" and circuit.is_retry_known:
        parts.append(f"; a probe in {duration(round(circuit.figures.retry_after_seconds * 1e6))}")
    return "".join(parts)


def _seconds(value: float) -> str:
    return duration(round(value * 1e6)) if value else ""


def _object(name: str, figures: ToolFigures | None, offer: Offered | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"tool": name}
    if figures is not None:
        numbers = figures_object(figures)
        opened_at = numbers["opened_at"]
        fields |= numbers | {"opened_at": iso(None if opened_at is None else round(opened_at * 1e6))}
        fields |= {"circuits": len(figures.circuits), "circuits_not_closed": len(figures.not_closed)}
    if offer is not None:
        tool = offer.tool
        fields |= {"is_available": not offer.lacks, "lacks": offer.lacks or None, "effect": tool.effect}
        fields |= {"toolset": tool.toolset, "definition": tool.schema}
    return fields
