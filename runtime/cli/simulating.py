"""The command breakers simulate: what another policy would have made of the calls that a log holds.

It only reads. The calls are those that were made. What a refused call would have come to nobody knows: those that the
tool's own circuit refused are counted and not replayed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.kernel.spans import span_of
from perdure.actors.tools.breaker import WINDOW_CALLS, BreakerPolicy
from perdure.actors.tools.simulation import PastCall, Simulation
from perdure.actors.tools.simulation import simulate as replay
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import facts_of
from perdure.runtime.cli.fleet import circuits_of
from perdure.runtime.cli.folding import events_of
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import Column, clock_time, count, duration, iso, print_json, print_line, print_table
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId

_TYPES: Final = ("call-succeeded", "call-failed", "call-refused", "circuit-opened")
_LISTED: Final = 10
_COLUMNS: Final = (Column(""), Column("RECORDED", right=True), Column("SIMULATED", right=True))


class Recording(msgspec.Struct):
    """What a log holds of the calls of one circuit."""

    calls: list[PastCall] = []
    opened_at: list[int] = []
    refused: int = 0
    excluded: set[str] = set()
    """Types of errors that did not count against the tool."""

    def add(self, event: Recorded) -> None:
        """Take in an event."""
        facts = facts_of(event)
        match event.type:
            case "call-succeeded":
                self.calls.append(PastCall(facts.at or event.at, facts.micros))
            case "call-failed":
                self.calls.append(PastCall(facts.at or event.at, facts.micros, facts.error_type))
                if not facts.counts:
                    self.excluded.add(facts.error_type)
            case "call-refused":
                self.refused += facts.by in ("", "circuit")
            case _:
                self.opened_at.append(event.at)


@click.command("simulate", short_help="Replay recorded calls under another policy.")
@click.option("--tool", required=True, metavar="TOOL", help="Whose calls.")
@db_option
@click.option("--threshold", default=3, show_default=True, metavar="N", help="Failures in a row that open it.")
@click.option("--reset", default=300.0, show_default=True, metavar="SECONDS", help="How long it stays open.")
@click.option("--failure-rate", type=float, metavar="SHARE", help="Of failures in the window that opens it: 0.5.")
@click.option("--window", default=WINDOW_CALLS, show_default=True, metavar="N", help="The last so many calls.")
@click.option("--window-seconds", type=float, metavar="SECONDS", help="Of these, the ones that ended within.")
@click.option(
    "--minimum", type=int, metavar="N", help="With fewer calls no rate is judged.  [default: 10, or --window]"
)
@click.option("--slow", type=float, metavar="SECONDS", help="A call that takes longer is slow …")
@click.option("--slow-rate", type=float, metavar="SHARE", help="… and this share of slow ones opens it.")
@click.option("--probes", default=1, show_default=True, metavar="N", help="Calls at a time while half open.")
@click.option("--successes", default=1, show_default=True, metavar="N", help="Successful probes that close it.")
@click.option("--exclude", multiple=True, metavar="ERROR", help="A type of error that does not count; repeatable.")
@json_option
def simulate(*, tool: str, db: Path, as_json: bool, exclude: tuple[str, ...], **options: Any) -> None:
    """Replay the recorded calls of TOOL under another policy: when it would have opened, what that saves.

    Errors that the tool's own policy left out of account stay out of it.
    """
    policy = _policy(exclude, **options)
    with LogReader.open(db) as reader:
        recordings = [_read(reader, stream) for stream, _ in circuits_of(reader, tool)]
    calls = [call for one in recordings for call in one.calls]
    if not calls:
        raise Failure(f"this log holds no calls of {tool} that ended: there is nothing to replay", Exit.USAGE)
    simulated = _joined([replay(_with(policy, one.excluded), one.calls) for one in recordings])
    recorded = {
        "opened_at": sorted(at for one in recordings for at in one.opened_at),
        "refused": sum(one.refused for one in recordings),
        "failed": sum(call.error_type is not None for call in calls),
    }
    if as_json:
        print_json(_object(tool, recorded, simulated))
        return
    ends = sorted(call.ended_at for call in calls)
    print_line(f"{tool}: {count(len(calls), 'call')}, {clock_time(ends[0])} to {clock_time(ends[-1], now=ends[0])}")
    print_line(f"policy: {_describe(policy)}")
    print_line("")
    _print_comparison(recorded, simulated)
    _print_openings(simulated.opened_at)


def _policy(  # noqa: PLR0913 - the options of the command
    exclude: tuple[str, ...],
    *,
    threshold: int,
    reset: float,
    failure_rate: float | None,
    window: int,
    window_seconds: float | None,
    minimum: int | None,
    slow: float | None,
    slow_rate: float | None,
    probes: int,
    successes: int,
) -> BreakerPolicy:
    return BreakerPolicy(
        failure_threshold=threshold,
        reset_timeout=span_of(reset, "--reset"),
        probes=probes,
        successes_to_close=successes,
        window_calls=window,
        window_time=None if window_seconds is None else span_of(window_seconds, "--window-seconds"),
        minimum_calls=min(BreakerPolicy().minimum_calls, window) if minimum is None else minimum,
        failure_rate=failure_rate,
        slow_call=None if slow is None else span_of(slow, "--slow"),
        slow_call_rate=slow_rate,
        excluded=exclude,
    )


def _with(policy: BreakerPolicy, excluded: set[str]) -> BreakerPolicy:
    return msgspec.structs.replace(policy, excluded=(*policy.excluded, *sorted(excluded)))


def _read(reader: LogReader, stream: StreamId) -> Recording:
    recording = Recording()
    for event in events_of(reader, Query(stream=stream, types=_TYPES)):
        recording.add(event)
    recording.calls.sort(key=lambda call: call.ended_at)
    return recording


def _joined(parts: Sequence[Simulation]) -> Simulation:
    """Return the sum over the circuits of a tool."""
    return Simulation(
        calls=sum(one.calls for one in parts),
        opened_at=tuple(sorted(at for one in parts for at in one.opened_at)),
        refused=sum(one.refused for one in parts),
        saved=sum(one.saved for one in parts),
        lost=sum(one.lost for one in parts),
        saved_micros=sum(one.saved_micros for one in parts),
    )


def _describe(policy: BreakerPolicy) -> str:
    parts = [f"opens after {count(policy.failure_threshold, 'failure')} in a row"]
    within = "" if policy.window_time is None else f" within {policy.window_time.total_seconds():g} s"
    window = f"of the last {policy.window_calls} calls{within}, {policy.minimum_calls} at least"
    if policy.failure_rate is not None:
        parts.append(f"or when {policy.failure_rate:.0%} failed {window}")
    if policy.slow_call is not None and policy.slow_call_rate is not None:
        parts.append(f"or when {policy.slow_call_rate:.0%} took over {policy.slow_call.total_seconds():g} s {window}")
    return f"{', '.join(parts)}; stays open for {policy.reset_timeout.total_seconds():g} s"


def _print_comparison(recorded: dict[str, Any], simulated: Simulation) -> None:
    failed = recorded["failed"]
    time_saved = f", {duration(simulated.saved_micros)}" if simulated.saved else ""
    rows = [
        ("times opened", f"{len(recorded['opened_at']):,}", f"{len(simulated.opened_at):,}"),
        ("calls made", f"{simulated.calls:,}", f"{simulated.calls - simulated.refused:,}"),
        ("  that failed", f"{failed:,}", f"{failed - simulated.saved:,}"),
        ("calls refused", f"{recorded['refused']:,}", f"{simulated.refused:,}"),
        ("  saved: they failed when made", "", f"{simulated.saved:,}{time_saved}"),
        ("  lost: they succeeded when made", "", f"{simulated.lost:,}"),
    ]
    print_table(_COLUMNS, rows)
    if recorded["refused"]:
        refused = count(recorded["refused"], "call")
        print_line(f"the {refused} refused at the time cannot be replayed: nobody knows what they would have come to")


def _print_openings(opened_at: Sequence[int]) -> None:
    if opened_at:
        print_line("")
        print_line("would have opened")
    for line in _openings(opened_at):
        print_line(f"  {line}")


def _openings(opened_at: Sequence[int]) -> Iterator[str]:
    for at in opened_at[:_LISTED]:
        yield clock_time(at, precise=True)
    if (hidden := len(opened_at) - _LISTED) > 0:
        yield f"… {count(hidden, 'more time')}: --json"


def _object(tool: str, recorded: dict[str, Any], simulated: Simulation) -> dict[str, Any]:
    return {
        "tool": tool,
        "calls": simulated.calls,
        "recorded": {**recorded, "opened_at": [iso(at) for at in recorded["opened_at"]]},
        "simulated": {
            "opened_at": [iso(at) for at in simulated.opened_at],
            "refused": simulated.refused,
            "saved": simulated.saved,
            "lost": simulated.lost,
            "saved_micros": simulated.saved_micros,
        },
    }
