"""`python -m benchmarks [--json] [--quick] [--only NAME]`: measures group after group, prints all rows."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import click
from rich.console import Console

from benchmarks import (
    asks,
    children,
    connecting,
    events,
    guarded,
    journal,
    latency,
    mapping,
    memory,
    opening,
    patterns,
    replay,
    sagas,
    slots,
    throughput,
    waiting,
)
from benchmarks.machine import machine
from benchmarks.report import Report, print_json, print_table
from benchmarks.rows import Row, Size

GROUPS: Mapping[str, Callable[[Size], dict[str, Row]]] = MappingProxyType(
    {
        "throughput": throughput.measure,
        "latency": latency.measure,
        "ask": asks.measure,
        "replay": replay.measure,
        "open": opening.measure,
        "memory": memory.measure,
        "append": journal.measure,
        "guarded": guarded.measure,
        "slots": slots.measure,
        "connect": connecting.measure,
        "patterns": patterns.measure,
        "map": mapping.measure,
        "saga": sagas.measure,
        "child": children.measure,
        "waiting": waiting.measure,
        "events": events.measure,
    }
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Measure less and less often: to see that it works, not for figures.")
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="Measure this group; may be repeated.")
def main(*, as_json: bool, quick: bool, only: tuple[str, ...]) -> None:
    """Measure what must hold in numbers, each figure beside its baseline."""
    rows: dict[str, Row] = {}
    with Console(stderr=True).status("measuring …") as status:
        for name in only or GROUPS:
            status.update(f"measuring: {name} …")
            rows.update(GROUPS[name](Size(quick)))
    report = Report(machine(), quick, rows)
    if as_json:
        print_json(report)
    else:
        print_table(report)


if __name__ == "__main__":
    main()
