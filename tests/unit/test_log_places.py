"""Paths that can be no log are refused in words, and nothing is made beside them."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure import LogReader, NotALogError, PerdureError, Runtime, UsageError, connect
from perdure.runtime.cli import main
from perdure.store.errors import LogNotFoundError, LogUnavailableError
from perdure.store.location import to_write


def folder(at: Path) -> None:
    at.mkdir()


def text(at: Path) -> None:
    at.write_text("just text, and more of it than the header of a database has: " * 4, encoding="utf-8")


def pipe(at: Path) -> None:
    os.mkfifo(at)


def dangling(at: Path) -> None:
    at.symlink_to(at.with_name("nowhere"))


def circle(at: Path) -> None:
    at.symlink_to(at)


def foreign(at: Path) -> None:
    with closing(sqlite3.connect(at)) as connection:
        connection.execute("CREATE TABLE their_own (a)")
        connection.commit()


SAID: dict[Callable[[Path], None], str] = {
    folder: "it is a folder; name a file, such as",
    text: "not an SQLite database",
    pipe: "it is a pipe",
    dangling: "it is a link to .*nowhere, and nothing is there",
    circle: "it is a link to",
    foreign: "an SQLite database of another application",
}
"""What may be at the path of a log, and what is said of it."""


def open_runtime(at: Path) -> None:
    async def scenario() -> None:
        async with Runtime(at):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize("make", SAID)
def test_a_runtime_refuses_what_can_be_no_log_and_leaves_nothing_beside_it(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "a.db")

    with pytest.raises((NotALogError, LogUnavailableError), match=SAID[make]):
        open_runtime(tmp_path / "a.db")

    assert [found.name for found in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("make", SAID)
def test_a_reader_refuses_it_too(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.db")

    with pytest.raises((NotALogError, LogUnavailableError), match=SAID[make]):
        LogReader.open(tmp_path / "a.db")

    assert [found.name for found in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("make", [folder, pipe, dangling, circle])
def test_nobody_connects_to_it_either(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.db")

    async def scenario() -> None:
        async with connect(tmp_path / "a.db"):
            pass

    with pytest.raises((NotALogError, LogUnavailableError), match=SAID[make]):
        asyncio.run(scenario())


@pytest.mark.parametrize("make", [folder, pipe, dangling, circle])
@pytest.mark.parametrize(
    "line", ["ps", "tail", "log", "verify", "serve app.py", "run app.py", "resume app.py", "slots"]
)
def test_every_command_refuses_it_in_one_line(
    make: Callable[[Path], None], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a.db")

    with pytest.raises(SystemExit) as ended:
        main([*line.split(), "--db", str(tmp_path / "a.db")])

    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert [found.name for found in tmp_path.iterdir()] == ["a.db"]


def test_an_empty_path_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ps", "--db", ""])

    assert ended.value.code == 2
    assert "this one is empty" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["", "a\0b", 5, None, b"a.db"])
def test_what_is_no_path_is_refused_when_a_runtime_is_made(path: Any) -> None:
    for make in (Runtime, connect, LogReader.open):
        with pytest.raises(UsageError, match="path"):
            make(path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError, match=r"there is no folder .*missing: make it first"):
        open_runtime(tmp_path / "missing" / "a.db")

    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_written_is_named_before_a_lock_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denies(path: Any, mode: int, *, effective_ids: bool) -> bool:  # the tests may run as root, who may all
        return not (Path(path) == tmp_path and mode & os.W_OK)

    monkeypatch.setattr(os, "access", denies)

    with pytest.raises(LogUnavailableError, match="may not be written; check its owner"):
        open_runtime(tmp_path / "a.db")

    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_an_error_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="too long"):
        open_runtime(tmp_path / ("a" * 300))


def test_something_in_the_place_of_the_lock_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.db.lock")

    with pytest.raises(LogUnavailableError, match="something is in its place"):
        open_runtime(tmp_path / "a.db")

    with pytest.raises(LogNotFoundError):
        LogReader.open(tmp_path / "a.db")


def test_a_link_to_a_log_is_that_log_and_an_empty_file_can_become_one(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    (tmp_path / "b.db").symlink_to("a.db")

    open_runtime(tmp_path / "b.db")
    open_runtime(tmp_path / "a.db")

    assert to_write(tmp_path / "b.db") == (tmp_path / "a.db").resolve()
    assert not (tmp_path / "b.db.lock").exists()
    assert not (tmp_path / "a.db-shm").exists()
