"""Commands that judge a log: verify and doctor. They only read.

The invariant: what is wrong with a file is an answer with an exit code, never an exception.
"""

from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.options import LogFile, json_option
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
    size,
)
from perdure.runtime.cli.standing import ATTENTION, read_runs
from perdure.store.audit import Report
from perdure.store.audit import verify as audit
from perdure.store.doctor import DoctorFacts, doctor_facts
from perdure.store.errors import StoreError
from perdure.store.reader import LogReader

_LARGE_WAL: Final = 64 * 1024 * 1024
"""Bytes: more than this, and some reader keeps the WAL from being reset."""
_LITTLE_ROOM: Final = 256 * 1024 * 1024
"""Bytes: a checkpoint and a large map need about as much."""
_SHOWN: Final = 20
_OPEN_RUNS: Final = "SELECT count(*), count(wake_at) FROM streams WHERE kind = 'run' AND is_open"
"""Beside runs other streams are open: those of subscriptions, schedules and slots, which wait for nobody."""


def _one_path(path: Path | None, db: Path | None) -> Path:
    found = path or db  # what stands on the line goes before what stands in the environment
    if found is None:
        raise Failure("say which log: --db FILE, or PERDURE_DB", Exit.USAGE)
    return found


@click.command(short_help="Recompute everything that a log claims.")
@click.argument("path", required=False, type=LogFile())
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", metavar="FILE", help="The log; or PATH.")
@json_option
@click.pass_context
def verify(ctx: click.Context, *, path: Path | None, db: Path | None, as_json: bool) -> None:
    """Recompute everything that a log claims: SQLite's integrity, hash chains, heads, every derived table.

    Names the first position in which damage lies. Exit code 1 when anything is wrong.
    """
    report = audit(_one_path(path, db))
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(report)
        print_json({"is_sound": report.is_sound, "first_position": report.first_position, **fields})
    else:
        _print_report(report)
    if not report.is_sound:
        ctx.exit(Exit.FAILED)


def _print_report(report: Report) -> None:
    if report.is_sound:
        print_line(f"{report.path} is sound", "bold green")
    elif report.first_position is None:
        print_line(f"{report.path} is damaged, but in no event", "bold red")
    else:
        print_line(f"{report.path} is damaged, first at position {report.first_position}", "bold red")
    print_line(
        f"  checked   {count(report.events, 'event')} in {count(report.streams, 'stream')}, "
        f"{count(report.heads, 'head')}, {count(report.snapshots, 'snapshot')}, {count(report.blobs, 'blob')}"
    )
    if report.log_id is not None:
        print_line(f"  log       {report.log_id}")
    if report.root is not None and report.is_sound:
        print_line(f"  root      {report.root}  over all {report.events:,} events: keep it elsewhere to compare")
    if report.is_sound:
        return
    print_line("")
    rows = [
        (found.kind, "" if found.position is None else str(found.position), found.stream or "", found.detail)
        for found in report.findings[:_SHOWN]
    ]
    columns = (Column("FOUND BY"), Column("POSITION", right=True), Column("STREAM"), Column("DETAIL", fixed=False))
    print_table(columns, rows, wraps=True)
    if hidden := len(report.findings) + report.omitted - len(rows):
        print_line(f"… {count(hidden, 'more finding')}: --json has {len(report.findings):,} of them")


class _Runs(msgspec.Struct, frozen=True):
    """How many runs are open."""

    open: int = 0
    sleeping: int = 0


class _Remark(msgspec.Struct, frozen=True):
    """One line of a diagnosis."""

    what: str
    judgement: str
    text: str


@click.command(short_help="Say how a log and this machine are.")
@click.argument("path", required=False, type=LogFile())
@click.option("--db", type=LogFile(), envvar="PERDURE_DB", metavar="FILE", help="The log; or PATH.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, path: Path | None, db: Path | None, as_json: bool) -> None:
    """Say what is known of a log and of this machine's SQLite: owner, sizes, open work, stale locks.

    Exit code 1 when there is a problem; a warning is none.
    """
    facts = doctor_facts(_one_path(path, db))
    attention, runs = _runs(facts)
    remarks = _diagnose(facts, attention, runs)
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(facts)
        fields |= {"last_at": iso(facts.last_at), "need_a_person": attention, "remarks": msgspec.to_builtins(remarks)}
        print_json(fields)
    else:
        columns = (Column("WHAT"), Column("VERDICT", styled=True), Column("FOUND", fixed=False))
        print_table(columns, [(r.what, r.judgement, r.text) for r in remarks], wraps=True)
    if any(remark.judgement == "problem" for remark in remarks):
        ctx.exit(Exit.FAILED)


def _runs(facts: DoctorFacts) -> tuple[list[str], _Runs]:
    """Return the runs that need a person, and how many are open."""
    if facts.problem is not None:
        return [], _Runs()
    try:
        with LogReader.open(facts.path) as reader:
            now = now_micros()
            attention = [run.run for run in read_runs(reader, only_open=True, now=now) if run.status in ATTENTION]
            return attention, _Runs(*next(iter(reader.sql(_OPEN_RUNS).rows)))
    except StoreError:
        return [], _Runs()  # it went away, or broke, since the facts were taken


def _diagnose(facts: DoctorFacts, attention: list[str], runs: _Runs) -> list[_Remark]:
    remarks = [_sqlite(facts), _wal_reset(facts)]
    if facts.problem is not None:
        return [*remarks, _Remark("log", "problem", facts.problem)]
    last = "never" if facts.last_at is None else clock_time(facts.last_at)
    ago = "" if facts.last_at is None else f", {duration(now_micros() - facts.last_at)} ago"
    remarks += [
        _Remark(
            "log", "ok", f"{count(facts.events, 'event')} in {count(facts.streams, 'stream')}; the last {last}{ago}"
        ),
        _owner(facts),
        _size(facts),
        _wal(facts),
        _room(facts),
        _work(facts, runs),
    ]
    if attention:
        shown = ", ".join(attention[:3]) + (", …" if len(attention) > 3 else "")  # noqa: PLR2004 - fits a line
        remarks.append(_Remark("attention", "warning", f"{count(len(attention), 'run')} need a person: {shown}"))
    return remarks


def _sqlite(facts: DoctorFacts) -> _Remark:
    if facts.is_sqlite_supported:
        return _Remark("sqlite", "ok", f"version {facts.sqlite_version}")
    return _Remark("sqlite", "problem", f"version {facts.sqlite_version} is too old: use another Python")


def _wal_reset(facts: DoctorFacts) -> _Remark:
    if not facts.has_wal_reset_bug:
        return _Remark("wal-reset", "ok", "this SQLite does not have the WAL-reset bug")
    return _Remark(
        "wal-reset",
        "warning",
        "SQLite 3.7.0 to 3.51.2 can corrupt a file that two connections write at once. Perdure writes with one; "
        "let nothing else write to the log",
    )


def _owner(facts: DoctorFacts) -> _Remark:
    if facts.is_owned:
        return _Remark("owner", "ok", facts.owner or "another process")
    if facts.is_lock_stale:
        return _Remark("owner", "ok", f"none; the lock is stale: {facts.owner} ended without closing. Nothing to do")
    return _Remark("owner", "ok", "none; the last one closed the log")


def _size(facts: DoctorFacts) -> _Remark:
    whole = facts.database_bytes + facts.wal_bytes  # large values may still be in the WAL
    return _Remark("size", "ok", f"{size(whole)}, of which {size(facts.blob_bytes)} are large values")


def _wal(facts: DoctorFacts) -> _Remark:
    text = size(facts.wal_bytes)
    if facts.wal_bytes <= _LARGE_WAL:
        return _Remark("wal", "ok", text)
    return _Remark("wal", "warning", f"{text}: a reader that never ends keeps it from shrinking; find it with `fuser`")


def _room(facts: DoctorFacts) -> _Remark:
    text = f"{size(facts.free_bytes)} free on the disk of the log"
    if facts.free_bytes > _LITTLE_ROOM:
        return _Remark("disk", "ok", text)
    return _Remark("disk", "warning", f"{text}: when it is full the log stops, with everything that was acknowledged")


def _work(facts: DoctorFacts, runs: _Runs) -> _Remark:
    text = f"{count(runs.open, 'run')} open, of which {runs.sleeping:,} sleep"
    is_left = bool(runs.open) and not facts.is_owned
    return _Remark("work", "ok", text + ("; nobody is at work on it: perdure resume FILE.py" if is_left else ""))
