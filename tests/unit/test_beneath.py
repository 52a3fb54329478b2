"""No path leaves a workspace: not by its text, not by links, not by what is swapped while it is opened."""

import base64
import ctypes
import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure.runtime.sandbox.artifacts import archive_artifacts, list_artifacts, read_artifact
from perdure.runtime.sandbox.beneath import (
    Beneath,
    MissingPathError,
    NotAFileError,
    OutsideWorkspaceError,
    UnusablePathError,
    closing,
)
from perdure.runtime.sandbox.filetools import read_file, write_file
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.openat import has_openat2

SECRET = "outside of every workspace"
ROUNDS = 2_000
AT_FDCWD = -100
RENAME_EXCHANGE = 2


@pytest.fixture
def folder(tmp_path: Path) -> SlotFolder:
    made = SlotFolder(slot="slot_0", path=tmp_path / "slot_0")
    for path in (made.path, made.workspace, made.run, made.calls):
        path.mkdir()
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.txt").write_text(SECRET)
    return made


@pytest.fixture(params=["openat2", "walk"])
def workspace(folder: SlotFolder, request: pytest.FixtureRequest) -> Iterator[Beneath]:
    if request.param == "openat2" and not has_openat2():
        pytest.skip("openat2 is not here: it needs Linux 5.6")
    with Beneath(folder, may_use_openat2=request.param == "openat2") as opened:
        yield opened


def text_of(workspace: Beneath, path: str) -> str:
    with closing(workspace.open_file(path)) as opened:
        return os.read(opened, 1_000).decode()


def put(workspace: Beneath, path: str, text: str) -> None:
    with closing(workspace.create_file(path)) as opened:
        os.write(opened, text.encode())


@pytest.mark.row("A1-56")
@pytest.mark.parametrize(
    "path",
    ["../secret", "..", "a/../../secret", "/etc/passwd", "/", "//etc/passwd", "/workspace/../secret", "/workspaces/a"],
)
def test_a_path_that_names_something_outside_is_refused(workspace: Beneath, path: str) -> None:
    for attempt in (workspace.open_file, workspace.create_file, workspace.open_folder, workspace.status):
        with pytest.raises(OutsideWorkspaceError, match=r"^Access denied: path outside workspace$"):
            attempt(path)


@pytest.mark.row("A1-56")
@pytest.mark.parametrize("text", ["../../secret", "../../outside", "/etc/passwd", "/", "..", "loop"])
def test_a_link_that_leaves_is_refused_wherever_it_stands_in_a_path(
    workspace: Beneath, folder: SlotFolder, tmp_path: Path, text: str
) -> None:
    (folder.workspace / "loop").symlink_to(text)

    for path in ("loop", "loop/a.txt", "loop/new/a.txt"):
        for attempt in (workspace.open_file, workspace.create_file, workspace.open_folder):
            with pytest.raises(OutsideWorkspaceError):
                attempt(path)

    assert (tmp_path / "secret").read_text() == SECRET
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["a.txt"]


@pytest.mark.row("A1-57")
@pytest.mark.parametrize(
    "path", ["/workspace/d/a.txt", "d/a.txt", "./d//a.txt", "x/../d/a.txt", "/workspace//d/./a.txt"]
)
def test_a_path_as_commands_see_it_means_the_file_of_the_workspace(
    workspace: Beneath, folder: SlotFolder, path: str
) -> None:
    put(workspace, path, "here")

    assert (folder.workspace / "d" / "a.txt").read_text() == "here"
    assert text_of(workspace, path) == "here"


def test_the_real_path_of_the_workspace_means_it_too(workspace: Beneath, folder: SlotFolder) -> None:
    put(workspace, str(folder.workspace / "a.txt"), "here")

    assert text_of(workspace, "a.txt") == "here"


def test_a_relative_link_inside_is_followed_by_openat2_and_refused_by_the_walk(
    folder: SlotFolder, workspace: Beneath
) -> None:
    put(workspace, "d/a.txt", "here")
    (folder.workspace / "link").symlink_to("d")

    with Beneath(folder, may_use_openat2=False) as walked, pytest.raises(OutsideWorkspaceError):
        text_of(walked, "link/a.txt")
    if has_openat2():
        with Beneath(folder) as opened:
            assert text_of(opened, "link/a.txt") == "here"


@pytest.mark.parametrize(
    ("path", "says"),
    [("a\0b", "NUL"), ("x" * 5_000, "too long"), ("x" * 300, "too long"), ("\ud800", "not valid text")],
)
def test_a_path_that_no_file_can_have_is_refused_clearly(workspace: Beneath, path: str, says: str) -> None:
    for attempt in (workspace.open_file, workspace.create_file):
        with pytest.raises(UnusablePathError, match=says):
            attempt(path)


def test_what_is_no_file_is_refused_without_waiting_for_it(workspace: Beneath, folder: SlotFolder) -> None:
    (folder.workspace / "folder").mkdir()
    os.mkfifo(folder.workspace / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(folder.workspace)  # the path of a socket is short
            listener.bind("socket")
        finally:
            os.fchdir(here)
            os.close(here)

        for path in ("folder", "pipe", "socket", "."):
            with pytest.raises(NotAFileError, match=r"^Not a file: "):
                workspace.open_file(path)
            with pytest.raises(NotAFileError):
                workspace.create_file(path)


def test_a_pipe_with_a_reader_is_not_written_to(workspace: Beneath, folder: SlotFolder) -> None:
    os.mkfifo(folder.workspace / "pipe")
    reader = os.open(folder.workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    with closing(reader), pytest.raises(NotAFileError):
        workspace.create_file("pipe")


def test_what_is_not_there_is_missing(workspace: Beneath) -> None:
    put(workspace, "a.txt", "here")

    for path in ("b.txt", "no/b.txt", "a.txt/b.txt"):
        with pytest.raises(MissingPathError, match=r"^File not found: "):
            workspace.open_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_slot(folder: SlotFolder) -> None:
    slot = SlotFolder(slot="slot_0", path=folder.path, uid=54_321)

    with Beneath(slot) as workspace:
        put(workspace, "d/e/a.txt", "here")

    owners = {path.stat().st_uid for path in slot.workspace.rglob("*")}
    assert owners == {54_321}


def test_no_descriptor_is_left_behind(workspace: Beneath, folder: SlotFolder) -> None:
    (folder.workspace / "out").symlink_to("../../secret")
    os.mkfifo(folder.workspace / "pipe")
    before = len(list(Path("/dev/fd").iterdir()))

    for path in ("out", "pipe", "no", "d/e/f", "out/x", "../x"):
        for attempt in (workspace.open_file, workspace.create_file, workspace.open_folder):
            try:
                os.close(attempt(path))
            except (OutsideWorkspaceError, NotAFileError, MissingPathError):
                continue

    assert len(list(Path("/dev/fd").iterdir())) == before


@contextmanager
def swapping(folder: SlotFolder, swap: Callable[[Path], None]) -> Generator[None]:
    """Swap in another thread, again and again."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            swap(folder.workspace)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def swap_folder(workspace: Path) -> None:
    """Make `d`, a folder, a link to outside and back, without any instant in which it is not there."""
    for _ in range(2):
        exchanged = ctypes.CDLL(None, use_errno=True).renameat2(
            AT_FDCWD, os.fsencode(workspace / "d"), AT_FDCWD, os.fsencode(workspace / "link"), RENAME_EXCHANGE
        )
        assert exchanged == 0, os.strerror(ctypes.get_errno())


def swap_file(workspace: Path) -> None:
    """Make `d/a.txt`, a file, a link to outside for a moment, without any instant in which it is not there."""
    (workspace / "next").symlink_to("../../outside/a.txt")
    (workspace / "next").rename(workspace / "d" / "a.txt")
    (workspace / "next").write_text("inside")
    (workspace / "next").rename(workspace / "d" / "a.txt")


@pytest.mark.row("A1-56")
@pytest.mark.parametrize("swap", [swap_folder, swap_file])
@pytest.mark.parametrize(
    "attempt",
    [
        lambda folder: read_artifact(folder, "d/a.txt", include_sha256=True),
        lambda folder: list_artifacts(folder, "d", recursive=True),
        lambda folder: archive_artifacts(folder, "."),
        lambda folder: read_file(folder, {"path": "d/a.txt"}),
        lambda folder: write_file(folder, {"path": "d/a.txt", "content": "inside"}),
    ],
    ids=["read", "list", "archive", "read_file", "write_file"],
)
def test_nothing_of_outside_is_reached_while_a_link_is_swapped_in(
    folder: SlotFolder, tmp_path: Path, swap: Callable[[Path], None], attempt: Callable[[SlotFolder], Any]
) -> None:
    (folder.workspace / "d").mkdir()
    (folder.workspace / "d" / "a.txt").write_text("inside")
    (folder.workspace / "link").symlink_to("../../outside")
    (tmp_path / "outside" / "only-outside").write_text(SECRET)
    told: set[str] = set()

    with swapping(folder, swap):
        for _ in range(ROUNDS):
            told.add(without_noise(attempt(folder)))
    told.add(without_noise(attempt(folder)))

    assert not any(SECRET in each or "only-outside" in each for each in told)
    assert any("inside" in each or "'d'" in each or "d/a.txt" in each for each in told)
    assert (tmp_path / "outside" / "a.txt").read_text() == SECRET
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["a.txt", "only-outside"]


def without_noise(reply: Any) -> str:
    """What was told, with an archive unpacked and without times."""
    if isinstance(reply, tuple):
        return repr(reply)
    if "entry_count" in reply:
        return repr(unpacked(reply["content"]))
    if "entries" in reply:
        return repr([entry["path"] for entry in reply["entries"]])
    return repr(reply)


def unpacked(content: str) -> list[tuple[str, str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(content))) as archive:
        return [
            (member.name, member.linkname, archive.extractfile(member).read() if member.isfile() else b"")  # type: ignore[union-attr]
            for member in archive
        ]
