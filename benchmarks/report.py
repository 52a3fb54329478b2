"""The figures as a table for people and as one object for machines."""

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine
from benchmarks.rows import Row, Spread


class Report(msgspec.Struct, frozen=True):
    """All that was measured in one run."""

    machine: Machine
    is_quick: bool
    rows: dict[str, Row]


def print_json(report: Report) -> None:
    """Print one object."""
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


def print_table(report: Report) -> None:
    """Print a line for each row, its further figures below it."""
    machine = report.machine
    console = Console()
    title = f"{machine.processor}, {machine.cores} cores, {machine.python}, SQLite {machine.sqlite}, {machine.folder}"
    table = Table(title=title + (" (quick)" if report.is_quick else ""), title_justify="left", show_lines=True)
    for heading in ("", "measured", "baseline", "ratio", "must be"):
        table.add_column(heading, overflow="fold")
    for name, row in report.rows.items():
        baseline = "" if row.baseline is None else f"{_spread(row.baseline)} {row.unit}\n{row.baseline_is}"
        figure = f"{_spread(row.figure)} {row.unit}"
        table.add_row(f"[bold]{name}[/]\n{row.what}", f"{figure}\n{_extra(row)}", baseline, _ratio(row), _verdict(row))
    console.print(table)
    console.print("Medians, with the lowest and the highest sample in brackets; ratios are taken sample by sample.")


def _spread(values: Spread) -> str:
    if values.samples == 1:
        return _number(values.median)
    return f"{_number(values.median)} \\[{_number(values.low)} … {_number(values.high)}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else _spread(row.ratio)


def _extra(row: Row) -> str:
    return "\n".join(f"{name}: {_number(value)}" for name, value in row.extra.items())


def _verdict(row: Row) -> str:
    if row.target is None:
        return ""
    verdict = "[green]reached[/]" if row.is_reached else "[red]not reached[/]"
    return f"{row.target.kind} {row.target.bound:g}\n{verdict}"
