"""Files of a workspace as the wire format has them: read, listed, packed, and the two file tools."""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from perdure.runtime.sandbox.artifacts import ArtifactLimits, archive_artifacts, list_artifacts, read_artifact
from perdure.runtime.sandbox.filetools import read_file, write_file
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.packing import stays_inside
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)

OUTSIDE = {"success": False, "error": "Access denied: path outside workspace", "http_status": 403}


@pytest.fixture
def folder(tmp_path: Path) -> SlotFolder:
    made = SlotFolder(slot="slot_0", path=tmp_path / "slot_0")
    for path in (made.path, made.workspace, made.run, made.calls):
        path.mkdir()
    return made


def archive_of(reply: dict[str, object]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(base64.b64decode(str(reply["content"]))))


def names(reply: dict[str, object]) -> list[str]:
    with archive_of(reply) as archive:
        return archive.getnames()


def paths(reply: dict[str, list[dict[str, str]]]) -> list[str]:
    return [entry["path"] for entry in reply["entries"]]


@pytest.mark.row("A1-59")
def test_the_hash_of_a_cut_read_is_that_of_the_whole_file(folder: SlotFolder) -> None:
    (folder.workspace / "a.txt").write_bytes(b"abcdef")

    reply = read_artifact(folder, "a.txt", max_bytes=3, include_sha256=True)

    assert reply == {
        "success": True,
        "content": "abc",
        "error": "",
        "encoding": "text",
        "truncated": True,
        "bytes": 3,
        "file_size": 6,
        "path": "a.txt",
        "mime": "text/plain",
        "sha256": hashlib.sha256(b"abcdef").hexdigest(),
        "http_status": 200,
    }


def test_without_being_asked_no_hash_is_told(folder: SlotFolder) -> None:
    (folder.workspace / "a.txt").write_bytes(b"abcdef")

    reply = read_artifact(folder, "/workspace/a.txt")

    assert (reply["content"], reply["truncated"], reply["sha256"]) == ("abcdef", False, None)


def test_a_file_that_is_too_large_to_hash_is_read_without_one(folder: SlotFolder) -> None:
    with (folder.workspace / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    reply = read_artifact(folder, "sparse", encoding="base64", max_bytes=3, include_sha256=True)

    assert (reply["content"], reply["bytes"], reply["file_size"], reply["sha256"]) == ("AAAA", 3, 1 << 40, None)


@pytest.mark.parametrize(("most", "text", "used"), [(1, "", 0), (2, "é", 2), (3, "é", 2), (4, "éé", 4), (9, "éé", 4)])
def test_a_cut_never_splits_a_character(folder: SlotFolder, most: int, text: str, used: int) -> None:
    (folder.workspace / "a.txt").write_text("éé", encoding="utf-8")

    reply = read_artifact(folder, "a.txt", max_bytes=most)

    assert (reply["content"], reply["bytes"], reply["truncated"]) == (text, used, used < 4)


def test_what_is_no_utf8_is_replaced_in_text_and_exact_in_base64(folder: SlotFolder) -> None:
    (folder.workspace / "a.bin").write_bytes(b"a\xff\xc3")

    as_text = read_artifact(folder, "a.bin")
    as_base64 = read_artifact(folder, "a.bin", encoding="base64")

    assert (as_text["content"], as_text["bytes"], as_text["truncated"]) == ("a\ufffd\ufffd", 3, False)
    assert (as_base64["content"], as_base64["mime"]) == ("Yf/D", "application/octet-stream")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("../a", 403, "Access denied: path outside workspace"),
        ("/etc/passwd", 403, "Access denied: path outside workspace"),
        ("out", 403, "Access denied: path outside workspace"),
        ("none", 404, "Not found: none"),
        ("d", 400, "Not a file: d"),
    ],
)
@pytest.mark.row("A1-56")
def test_a_read_that_cannot_be_says_why(folder: SlotFolder, path: str, status: int, error: str) -> None:
    (folder.workspace / "d").mkdir()
    (folder.workspace / "out").symlink_to("/etc/passwd")

    reply = read_artifact(folder, path)

    assert reply == {"success": False, "error": error, "http_status": status}


def test_requests_that_cannot_be_are_refused(folder: SlotFolder) -> None:
    (folder.workspace / "a.txt").write_bytes(b"abcdef")

    assert read_artifact(folder, "a.txt", encoding="utf-16")["http_status"] == 400
    assert read_artifact(folder, "a.txt", max_bytes=-1)["http_status"] == 400
    assert list_artifacts(folder, max_entries=-1)["http_status"] == 400


@pytest.mark.parametrize(
    ("name", "mime"),
    [("a.tar.gz", "application/gzip"), ("a.TGZ", "application/gzip"), ("a.gz", "application/octet-stream")],
)
def test_the_media_type_follows_the_whole_end_of_a_name(folder: SlotFolder, name: str, mime: str) -> None:
    (folder.workspace / name).touch()

    assert read_artifact(folder, name)["mime"] == mime


@pytest.mark.row("A1-60")
@pytest.mark.parametrize(("most", "told", "truncated"), [(4, 4, False), (3, 3, True), (9, 4, False), (0, 0, True)])
def test_a_list_is_truncated_only_when_there_is_more(
    folder: SlotFolder, most: int, told: int, *, truncated: bool
) -> None:
    for name in ("a", "b", "d/c"):
        write_file(folder, {"path": name, "content": "x"})

    reply = list_artifacts(folder, recursive=True, max_entries=most)

    assert (len(reply["entries"]), reply["truncated"]) == (told, truncated)


def test_a_list_is_sorted_and_tells_folders_from_files(folder: SlotFolder) -> None:
    write_file(folder, {"path": "d/c", "content": "xyz"})
    os.utime(folder.workspace / "d" / "c", (5, 7.5))

    flat, deep = list_artifacts(folder), list_artifacts(folder, recursive=True)

    assert (paths(flat), flat["entries"][0]["is_dir"]) == (["d"], True)
    assert deep["entries"][1] == {"path": "d/c", "is_dir": False, "size": 3, "mtime": 7.5}
    assert list_artifacts(folder, "d/c")["entries"] == [deep["entries"][1]]


def test_links_are_listed_as_themselves(folder: SlotFolder) -> None:
    (folder.workspace / "d").mkdir()
    for name, text in (("in", "d"), ("out", "/etc"), ("gone", "nowhere")):
        (folder.workspace / name).symlink_to(text)

    reply = list_artifacts(folder, recursive=True)

    assert [(entry["path"], entry["is_dir"]) for entry in reply["entries"]] == [
        ("d", True),
        ("gone", False),
        ("in", False),
        ("out", False),
    ]


@pytest.mark.row("A1-56")
@pytest.mark.parametrize("path", ["..", "/", "out", "out/d"])
def test_no_folder_outside_is_listed_or_packed(folder: SlotFolder, path: str) -> None:
    (folder.workspace / "out").symlink_to("/")

    assert list_artifacts(folder, path) == OUTSIDE
    assert archive_artifacts(folder, path) == OUTSIDE


def test_a_tree_deeper_than_any_path_is_listed_as_far_as_it_goes(folder: SlotFolder) -> None:
    here = os.open(folder.workspace, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    reply = list_artifacts(folder, recursive=True)

    assert (len(reply["entries"]), reply["truncated"]) == (21, True)
    assert archive_artifacts(folder)["truncated"] is True


def test_names_that_are_no_text_can_be_sent(folder: SlotFolder) -> None:
    (folder.workspace / os.fsdecode(b"a\xff")).touch()

    reply = list_artifacts(folder)

    assert paths(reply) == ["a\ufffd"]
    assert msgspec.json.encode(reply)
    assert archive_artifacts(folder)["entry_count"] == 1


@pytest.mark.row("A1-61")
def test_an_archive_that_lacks_entries_says_so(folder: SlotFolder) -> None:
    for name in ("a", "b", "c"):
        write_file(folder, {"path": name, "content": name})

    whole, part = archive_artifacts(folder), archive_artifacts(folder, archive_format="tgz", max_entries=1)

    assert (whole["entry_count"], whole["truncated"], names(whole)) == (3, False, ["a", "b", "c"])
    assert (part["entry_count"], part["truncated"], part["format"]) == (1, True, "tar.gz")


@pytest.mark.row("A1-61")
def test_an_archive_that_is_too_large_or_of_another_format_is_refused(folder: SlotFolder) -> None:
    write_file(folder, {"path": "a", "content": "x"})

    too_large, other = archive_artifacts(folder, max_bytes=1), archive_artifacts(folder, archive_format="zip")

    size = too_large["bytes"]
    assert too_large == {
        "success": False,
        "error": f"Archive too large: {size} bytes (max 1)",
        "http_status": 413,
        "bytes": size,
    }
    assert other["http_status"] == 400


def test_zeros_that_would_shrink_to_nothing_are_not_read(folder: SlotFolder) -> None:
    with (folder.workspace / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    reply = archive_artifacts(folder)

    assert (reply["success"], reply["http_status"]) == (False, 413)


def test_an_archive_of_random_bytes_stops_at_its_bound(folder: SlotFolder) -> None:
    (folder.workspace / "noise").write_bytes(os.urandom(300_000))

    reply = archive_artifacts(folder, max_bytes=100_000)

    assert reply["http_status"] == 413
    assert 100_000 < reply["bytes"] < 200_000


def test_an_archive_tells_no_owners_and_no_special_bits(folder: SlotFolder) -> None:
    write_file(folder, {"path": "d/run.sh", "content": "x"})
    (folder.workspace / "d" / "run.sh").chmod(0o4755)

    reply = archive_artifacts(folder, "d")

    with archive_of(reply) as archive:
        (member,) = archive.getmembers()
    assert (member.name, member.mode, member.uid, member.gid, member.uname) == ("run.sh", 0o755, 0, 0, "")


def test_only_links_that_cannot_leave_are_packed(folder: SlotFolder, tmp_path: Path) -> None:
    write_file(folder, {"path": "d/e/a.txt", "content": "here"})
    links = {
        "d/up": "../d/e/a.txt",
        "d/out": "../../secret",
        "abs": "/etc/passwd",
        "trick": "d/e/../../../x",
        "in": "d",
    }
    for name, text in links.items():
        (folder.workspace / name).symlink_to(text)
    os.mkfifo(folder.workspace / "pipe")

    reply = archive_artifacts(folder)

    assert (names(reply), reply["truncated"]) == (["d", "d/e", "d/e/a.txt", "d/up", "in"], True)
    with archive_of(reply) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
        archive.extractall(tmp_path / "unpacked")  # noqa: S202 - with that filter, or to prove that it needs none
    assert (tmp_path / "unpacked" / "in" / "up").read_text() == "here"


@pytest.mark.parametrize(
    ("name", "text", "stays"),
    [
        ("a", "b", True),
        ("d/a", "../b", True),
        ("a", "../b", False),
        ("d/a", "../../b", False),
        ("a", "/b", False),
        ("a", "d/../b", False),  # d may be a link by then
        ("a", "./b//c", True),
        ("a", "", False),
        ("a", "..", False),
        ("d/a", "..", True),
    ],
)
def test_a_link_stays_inside_whatever_lies_beside_it(name: str, text: str, *, stays: bool) -> None:
    assert stays_inside(name, text) is stays


def test_replies_are_what_the_wire_format_has(folder: SlotFolder) -> None:
    write_file(folder, {"path": "a", "content": "x"})
    replies = (
        (read_artifact(folder, "a", include_sha256=True), ArtifactReadResponsePayload),
        (read_artifact(folder, "b"), ArtifactReadResponsePayload),
        (list_artifacts(folder), ArtifactListResponsePayload),
        (list_artifacts(folder, "b"), ArtifactListResponsePayload),
        (archive_artifacts(folder), ArtifactArchiveResponsePayload),
        (archive_artifacts(folder, max_bytes=1), ArtifactArchiveResponsePayload),
    )

    converted = [msgspec.convert(reply, kind) for reply, kind in replies]

    assert [msgspec.to_builtins(reply)["success"] for reply in converted] == [True, False, True, False, True, False]


def test_a_file_that_was_written_reads_back(folder: SlotFolder) -> None:
    wrote = write_file(folder, {"path": "/workspace/d/a.txt", "content": "é\n"})
    read = read_file(folder, {"path": "d/a.txt"})

    metadata = {"path": "d/a.txt", "size": 3, "sha256": hashlib.sha256("é\n".encode()).hexdigest()}
    assert (wrote.success, wrote.output, wrote.metadata) == (True, "Wrote 3 bytes to d/a.txt", metadata)
    assert read == (True, "é\n", "", metadata)


def test_a_shorter_text_leaves_nothing_of_the_longer_and_the_mode_as_it_was(folder: SlotFolder) -> None:
    write_file(folder, {"path": "a.sh", "content": "long text"})
    (folder.workspace / "a.sh").chmod(0o755)

    write_file(folder, {"path": "a.sh", "content": "short"})

    assert (folder.workspace / "a.sh").read_text() == "short"
    assert (folder.workspace / "a.sh").stat().st_mode & 0o777 == 0o755


@pytest.mark.row("A1-58")
def test_the_size_of_a_text_is_counted_in_bytes(folder: SlotFolder) -> None:
    too_large = write_file(folder, {"path": "a.txt", "content": "é" * 100_000})
    fits = write_file(folder, {"path": "b.txt", "content": "é" * 50_000})

    assert (too_large.success, too_large.error) == (False, "Content too large: 200000 bytes (max 100000)")
    assert not (folder.workspace / "a.txt").exists()
    assert fits.success
    assert read_file(folder, {"path": "b.txt"}).success


def test_a_file_over_the_limit_is_not_read(folder: SlotFolder) -> None:
    (folder.workspace / "a.txt").write_bytes(b"x" * 11)

    reply = read_file(folder, {"path": "a.txt"}, limits=ArtifactLimits(max_file_size=10))

    assert (reply.success, reply.error) == (False, "File too large: 11 bytes (max 10)")


@pytest.mark.row("A1-56")
@pytest.mark.parametrize("path", ["../x", "/etc/x", "out", "out/x"])
def test_the_file_tools_leave_the_workspace_by_no_path(folder: SlotFolder, tmp_path: Path, path: str) -> None:
    (folder.workspace / "out").symlink_to(tmp_path)

    for reply in (read_file(folder, {"path": path}), write_file(folder, {"path": path, "content": "x"})):
        assert reply == (False, "", "Access denied: path outside workspace", {})

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["slot_0"]


def test_the_file_tools_say_what_is_wrong(folder: SlotFolder) -> None:
    (folder.workspace / "d").mkdir()

    assert read_file(folder, {"path": "a"}).error == "File not found: a"
    assert read_file(folder, {"path": "d"}).error == "Not a file: d"
    assert write_file(folder, {"path": "d", "content": ""}).error == "Not a file: d"
    assert "needs `path`" in read_file(folder, {}).error
    assert "needs `path` and `content`" in write_file(folder, {"path": "a", "content": 5}).error
    assert "surrogate" in write_file(folder, {"path": "a", "content": "\ud800"}).error


def test_no_reply_names_a_place_on_the_machine(folder: SlotFolder) -> None:
    write_file(folder, {"path": "d/a", "content": "x"})
    replies = [
        *(read_artifact(folder, path) for path in ("d/a", "d", "b", "../b")),
        *(list_artifacts(folder, path) for path in (".", "d/a", "b")),
        *(read_file(folder, {"path": path}) for path in ("d/a", "d", "b")),
        write_file(folder, {"path": "c", "content": "x"}),
    ]

    assert str(folder.path) not in repr(replies)
