"""Commands that print events: log and tail. They read raw JSON, need no application code, and work beside an owner.

The invariant: a log is opened through the store's reader and in no other way, so nothing here can change it.
"""

import heapq
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from perdure.runtime.cli.events import print_event
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import RUN_PREFIX, run_of
from perdure.runtime.cli.finding import find_run
from perdure.runtime.cli.folding import events_of
from perdure.runtime.cli.options import Moment, Number, db_option, json_option
from perdure.runtime.cli.output import Column, print_bytes, print_json, print_table
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded, StreamId, StreamSummary, stream_id

F = TypeVar("F", bound=Callable[..., Any])


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a person asks for; the names are those of the options."""

    stream: str | None = None
    type: tuple[str, ...] = ()
    run: str | None = None
    tool: str | None = None
    correlation: str | None = None
    since: int | None = None
    until: int | None = None
    after: int | None = None
    to: int | None = None
    last: int | None = None

    @property
    def query(self) -> Query:
        """The query for all of it but the run and the last ones.

        Raises:
            UsageError: the stream's name is none.
        """
        is_prefix = self.stream is not None and self.stream.endswith("*")
        return Query(
            stream=None if self.stream is None or is_prefix else stream_id(self.stream),
            stream_prefix=self.stream.removesuffix("*") if self.stream is not None and is_prefix else None,
            types=self.type or None,
            tool=self.tool,
            correlation=self.correlation,
            since_time=self.since,
            until_time=self.until,
            after=self.after or 0,
            until=self.to,
        )


def _which(function: F) -> F:
    options = (
        click.option("--stream", metavar="NAME", help="Of this stream; of all that begin so, with * at the end."),
        click.option("--type", multiple=True, metavar="TYPE", help="Of this type; may be given again."),
        click.option("--run", metavar="RUN", help="Of this run, and what its tools recorded of it."),
        click.option("--tool", metavar="TOOL", help="That name this tool."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("log", short_help="Print events, the result of a query, or a large value.")
@db_option
@_which
@click.option("--correlation", metavar="ID", help="Of what this run, or this call outside of runs, led to.")
@click.option("--since", type=Moment(), metavar="TIME", help="Not before: 2026-11-21T08:15, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), metavar="TIME", help="Not after.")
@click.option("--after", type=Number(min=0), metavar="POSITION", help="Only later positions.")
@click.option("--to", type=Number(min=0), metavar="POSITION", help="Only up to this position.")
@click.option("--last", type=Number(min=1), metavar="N", help="Only the last N of them.")
@click.option("--sql", metavar="QUERY", help="The result of a SELECT, in place of events; see the view `log`.")
@click.option("--blob", metavar="SHA256", help="The large value of this hash, as it is, in place of events.")
@json_option
def log(*, db: Path, sql: str | None, blob: str | None, as_json: bool, **which: Any) -> None:
    """Print events in the order of the log, the result of a query, or a large value by its hash."""
    given = [name for name, value in which.items() if value not in (None, ())]
    if {"run", "correlation"} <= set(given):
        raise Failure("--run and --correlation are two ways to ask: give one of them", Exit.USAGE)
    with LogReader.open(db) as reader:
        if blob is not None:
            if sql is not None or as_json or given:
                raise Failure("--blob stands alone: it prints one value, as it is", Exit.USAGE)
            _print_blob(reader, blob)
        elif sql is not None:
            if given:
                raise Failure(f"--sql stands alone: put what --{given[0]} says into the query", Exit.USAGE)
            _print_query(reader, sql, as_json=as_json)
        else:
            for event in _events(reader, Filters(**which)):
                print_event(event, as_json=as_json)


def _print_blob(reader: LogReader, sha256: str) -> None:
    value = reader.blob(sha256.lower())
    if value is None:
        raise Failure(f"the log has no value of the hash {sha256}", Exit.USAGE)
    print_bytes(value)


def _events(reader: LogReader, filters: Filters) -> Iterator[Recorded]:
    query = filters.query
    queries = [query] if filters.run is None else _of_run(query, find_run(reader, filters.run))
    if filters.last is None:
        return heapq.merge(*(events_of(reader, one) for one in queries), key=_position)
    ends = [msgspec.structs.replace(one, limit=filters.last, newest_first=True) for one in queries]
    newest = chain.from_iterable(reader.read(one) for one in ends)
    return iter(sorted(newest, key=_position)[-filters.last :])


def _position(event: Recorded) -> int:
    return event.position


def _of_run(query: Query, run: StreamSummary) -> list[Query]:
    """Return the queries that together find the events of a run: its own, and those of others that name it."""
    name = run.stream[len(RUN_PREFIX) :]
    since = max(query.since_time or 0, run.first_at)
    if query.stream == run.stream:
        return [query]
    if query.stream is not None or query.stream_prefix is not None:
        return [msgspec.structs.replace(query, correlation=name, since_time=since)]
    until = query.until_time
    if not run.is_open:  # what comes after a run's end is not about it: no need to look through all of the log
        until = run.last_at if until is None else min(until, run.last_at)
    others = msgspec.structs.replace(query, stream_prefix="tool/", correlation=name, since_time=since, until_time=until)
    return [msgspec.structs.replace(query, stream=run.stream), others]


def _print_query(reader: LogReader, sql: str, *, as_json: bool) -> None:
    table = reader.sql(sql)
    if as_json:
        for row in table.rows:
            print_json(dict(zip(table.columns, map(_jsonable, row), strict=True)))
        return
    columns = [Column(name, fixed=False) for name in table.columns]
    print_table(columns, [["" if value is None else str(_jsonable(value)) for value in row] for row in table.rows])


def _jsonable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


@click.command(short_help="Follow the log.")
@db_option
@_which
@click.option("--after", type=Number(min=0), metavar="POSITION", help="Begin after this position.")
@click.option("-n", "--last", default=10, show_default=True, type=Number(min=0), help="Begin with the last N.")
@click.option("--count", "most", type=Number(min=1), metavar="N", help="End after N events.")
@json_option
def tail(*, db: Path, most: int | None, as_json: bool, **which: Any) -> None:
    """Print events as they are committed, by whichever process; ends with Ctrl-C."""
    filters = Filters(**which)
    with LogReader.open(db) as reader:
        run = None if filters.run is None else find_run(reader, filters.run).stream[len(RUN_PREFIX) :]
        start = _start(reader, filters, run) if filters.after is None else filters.after
        events = (event for event in reader.tail(start, filters.query) if run is None or run_of(event) == run)
        try:
            for event in islice(events, most):
                print_event(event, as_json=as_json)
        except KeyboardInterrupt:
            click.echo(err=True)  # the usual end: what stands behind ^C goes to a line of its own


def _start(reader: LogReader, filters: Filters, run: str | None) -> int:
    """Return the position before the last events that match."""
    position = reader.last_position()
    if not filters.last:
        return position
    query = filters.query
    if run is not None and query.stream is None:
        query = msgspec.structs.replace(query, stream=StreamId(RUN_PREFIX + run))
    newest = reader.read(msgspec.structs.replace(query, limit=filters.last, newest_first=True))
    return newest[-1].position - 1 if newest else position
