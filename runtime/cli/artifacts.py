"""The commands about files of trajectories: list, get, archive, and which went in and out.

What leaves a workspace is recorded by its hash first. The invariant: a file is written when the log is closed, and
never one of the log's own.
"""

import base64
import hashlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.finding import find_trajectory
from perdure.runtime.cli.folding import events_of, newest
from perdure.runtime.cli.machines import backend_of, machine_options, on_slots
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    clock_time,
    is_terminal,
    iso,
    print_bytes,
    print_json,
    print_line,
    print_table,
    size,
)
from perdure.runtime.cli.slot_standing import TRAJECTORY_PREFIX, read_slots
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListEntryPayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId
from perdure.store.wording import printable

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", ArtifactReadResponsePayload, ArtifactListResponsePayload, ArtifactArchiveResponsePayload)

_FILES: Final = (
    Column("SIZE", right=True), Column("MODIFIED"), Column("PATH", fixed=False),
)  # fmt: skip
_LOG: Final = (
    Column("TIME"), Column("WAY"), Column("KIND"), Column("SIZE", right=True), Column("SHA256", fixed=False),
    Column("PATH", fixed=False),
)  # fmt: skip
_LOGS_OWN: Final = ("", "-wal", "-shm", "-journal", ".lock")


@click.group(short_help="List and get files of a trajectory's workspace.")
def artifacts() -> None:
    """List, get and archive files of the workspace that a trajectory's slot has; what went in and out by hash.

    TRAJECTORY is an id, or the beginning or the end of one.
    """


def _output_options(function: F) -> F:
    """Add `-o` and `--force`."""
    output = click.option(
        "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to; stdout when left out."
    )
    return output(click.option("--force", is_flag=True, help="Overwrite FILE.")(function))


@artifacts.command("ls", short_help="List files of a workspace.")
@click.argument("trajectory")
@click.argument("path", default=".")
@click.option("-r", "--recursive", is_flag=True, help="What is in folders, too.")
@db_option
@machine_options
@json_option
def ls(
    *, trajectory: str, path: str, recursive: bool, db: Path, machine: str | None, allow_unsandboxed: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """List what is in a folder of TRAJECTORY's workspace; all of it when PATH is left out."""
    there = _Workspace(trajectory, path, db, machine, allow_unsandboxed)
    reply = there.ask(
        lambda rt, name: rt.executor.list_artifacts(name, path, recursive=recursive), f"list_files({path!r})"
    )
    if as_json:
        for entry in reply.entries:
            print_json(_entry_object(entry))
    else:
        rows = [
            (
                "" if entry.is_dir else size(entry.size),
                clock_time(int(entry.mtime * 1_000_000)),
                f"{entry.path}/" if entry.is_dir else entry.path,
            )
            for entry in reply.entries
        ]
        if rows:
            print_table(_FILES, rows)
        else:
            print_line(f"{path} is empty", error=True)
    if reply.truncated:
        print_line(f"only the first {len(reply.entries):,}: list its folders one by one", "yellow", error=True)


def _entry_object(entry: ArtifactListEntryPayload) -> dict[str, Any]:
    mtime = iso(int(entry.mtime * 1_000_000))
    return {"path": entry.path, "is_dir": entry.is_dir, "size": entry.size, "mtime": mtime}


@artifacts.command("get", short_help="Get a file of a workspace.")
@click.argument("trajectory")
@click.argument("path")
@_output_options
@db_option
@machine_options
def get(
    *, trajectory: str, path: str, output: Path | None, force: bool, db: Path, machine: str | None,
    allow_unsandboxed: bool,
) -> None:  # fmt: skip
    """Print a file of TRAJECTORY's workspace as it is, or write it to FILE. Its hash is recorded first."""
    _check_output(output, db, force=force)
    there = _Workspace(trajectory, path, db, machine, allow_unsandboxed)
    reply = there.ask(
        lambda rt, name: rt.executor.read_artifact(name, path, encoding="base64", include_sha256=True),
        f"read_file({path!r})",
    )
    if reply.truncated:
        text = f"{path} has {reply.file_size or 0:,} bytes, and {reply.bytes:,} can be had at once"
        raise Failure(f"{text}: get it in parts, made with perdure slots exec … -- split", Exit.USAGE)
    _give(base64.b64decode(reply.content), output, force=force)


@artifacts.command("archive", short_help="Get a folder of a workspace as a tar.gz.")
@click.argument("trajectory")
@click.argument("path", default=".")
@_output_options
@db_option
@machine_options
def archive(
    *, trajectory: str, path: str, output: Path | None, force: bool, db: Path, machine: str | None,
    allow_unsandboxed: bool,
) -> None:  # fmt: skip
    """Write a folder of TRAJECTORY's workspace as a tar.gz; all of it when PATH is left out. Its hash is recorded."""
    _check_output(output, db, force=force)
    if output is None and is_terminal(sys.stdout):
        raise Failure("an archive is nothing to read: -o FILE.tar.gz", Exit.USAGE)
    there = _Workspace(trajectory, path, db, machine, allow_unsandboxed)
    reply = there.ask(lambda rt, name: rt.executor.archive_artifacts(name, path), f"archive({path!r})")
    _give(base64.b64decode(reply.content), output, force=force)
    if reply.truncated:
        print_line(
            "the archive is not complete: too many files, files that changed meanwhile, or links out of the folder",
            "yellow", error=True,
        )  # fmt: skip


@artifacts.command("log", short_help="List files that went in and out, by hash.")
@click.argument("trajectory")
@db_option
@json_option
def log(*, trajectory: str, db: Path, as_json: bool) -> None:
    """List the files that were written into TRAJECTORY's workspace and read from it, by hash. It only reads the log.

    Recorded is what went through tools and these commands; what commands in the slot wrote themselves is not.
    """
    with LogReader.open(db) as reader:
        stream = find_trajectory(reader, trajectory).stream
        found = [
            (event, _decode(event.data or b"{}"))
            for event in events_of(reader, Query(stream=stream, types=("file-recorded",)))
        ]
    if as_json:
        for event, file in found:
            fields: dict[str, Any] = msgspec.to_builtins(file)
            print_json({"position": event.position, "at": iso(event.at), **fields})
    elif found:
        rows = [
            (clock_time(event.at), file.direction, file.kind, size(file.bytes), file.sha256, file.path)
            for event, file in found
        ]
        print_table(_LOG, rows)
    else:
        print_line("no file went in or out", error=True)


class _File(msgspec.Struct, frozen=True):
    direction: str = ""
    path: str = ""
    sha256: str = ""
    bytes: int = 0
    kind: str = "file"


def _decode(data: bytes | str) -> _File:
    try:
        return msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError:
        return _File()  # a newer version's


class _Workspace:
    """The workspace of one trajectory, to be asked for something once."""

    def __init__(self, trajectory: str, path: str, db: Path, machine: str | None, allow_unsandboxed: bool) -> None:  # noqa: FBT001 - from options
        self._path = path
        self._db = db
        with LogReader.open(db) as reader:
            stream = find_trajectory(reader, trajectory).stream
            self._name = stream[len(TRAJECTORY_PREFIX) :]
            _check_slot(reader, stream, self._name)
            self._backend = backend_of(reader, machine, allow_unsandboxed=allow_unsandboxed)

    def ask(self, call: Callable[[Runtime, str], Awaitable[R]], method: str) -> R:
        """Return the answer.

        Raises:
            Failure: there is none; says why.
        """
        how = f"await rt.trajectory({self._name!r}).{method}"
        reply = on_slots(self._db, self._backend, lambda rt: call(rt, self._name), else_ask=how)
        if not reply.success:
            raise Failure(f"{self._path}: {printable(reply.error)}", Exit.USAGE)
        return reply


def _check_slot(reader: LogReader, stream: StreamId, trajectory: str) -> None:
    """See to it that the trajectory has a slot; if not, say where its files are."""
    turn = newest(reader, stream, ("trajectory-slot-assigned", "trajectory-slot-left"))
    if turn is not None and turn.type == "trajectory-slot-assigned":
        return
    if turn is None:
        raise Failure(f"trajectory {trajectory} never had a slot: there are no files", Exit.USAGE)
    keeper = next((one.slot for one in read_slots(reader, only_open=True) if one.keeps_files_of == trajectory), None)
    gone = f"trajectory {trajectory} gave its slot back {clock_time(turn.at)}"
    if keeper is None:
        raise Failure(f"{gone}: its files are gone", Exit.USAGE)
    how = f"perdure slots exec {keeper} --as-holder -- cat PATH"
    raise Failure(f"{gone}; {keeper} keeps its files: {how}", Exit.USAGE)


# Writing


def _check_output(output: Path | None, db: Path, *, force: bool) -> None:
    """Refuse, before anything is done, a file that is there or is the log's own."""
    if output is None:
        return
    log = db.resolve()
    if output.resolve() in {log.with_name(log.name + end) for end in _LOGS_OWN}:
        raise Failure(f"{output} is the log's own: name another file", Exit.USAGE)
    if output.is_dir():
        raise Failure(f"{output} is a folder: name a file", Exit.USAGE)
    if not output.parent.is_dir():
        raise Failure(f"there is no folder {output.parent}", Exit.USAGE)
    if output.exists() and not force:
        raise Failure(f"{output} is there already: --force overwrites it", Exit.USAGE)


def _give(data: bytes, output: Path | None, *, force: bool) -> None:
    if output is None:
        print_bytes(data)
        return
    try:
        with output.open("wb" if force else "xb") as file:
            file.write(data)
    except OSError as error:
        raise Failure(f"{output} cannot be written: {error.strerror}", Exit.FAILED) from error
    print_line(f"{output}: {size(len(data))}, sha256 {hashlib.sha256(data).hexdigest()}", error=True)
