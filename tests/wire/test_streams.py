"""The command line with streams as shells hand them over: closed, full, without a reader, of a narrow encoding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import BlockingRuntime, Context, workflow

WORDS = "größer ↵ 日本"


@workflow
async def say(ctx: Context, words: str) -> str:
    del ctx
    return words


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with a run whose result is no ASCII."""
    found = tmp_path_factory.mktemp("streams") / "a.db"
    with BlockingRuntime(found, workflows=[say]) as rt:
        rt.start_as("r1", say, WORDS).result()
    return found


def ended(line: str, db: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a shell does, with `{}` for it in *line*, and without the terminal's own settings."""
    command = f'"{sys.executable}" -m perdure "$@"'
    return subprocess.run(
        ["bash", "-c", line.format(command), "bash", *arguments, "--db", str(db)],
        capture_output=True, check=False, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_stdout_that_is_closed_is_written_to_in_vain(db: Path) -> None:
    found = ended("{} >&-", db, "log")

    assert (found.returncode, found.stderr) == (0, b"")


def test_a_stderr_that_is_closed_keeps_the_exit_code(db: Path) -> None:
    assert ended("{} 2>&-", db.with_name("missing.db"), "ps").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line(db: Path) -> None:
    found = ended("{} >/dev/full", db, "log")

    assert found.returncode == 1
    assert found.stderr == b"error: stdout cannot be written to: No space left on device\n"


def test_a_reader_that_leaves_is_no_fault_and_has_a_code_of_its_own(db: Path) -> None:
    # Its reader has ended before the first line is written.
    found = ended("set -o pipefail; {{ sleep 0.2; {}; }} | true", db, "log")

    assert (found.returncode, found.stderr) == (141, b"")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_letters_that_the_encoding_lacks_are_written_all_the_same(db: Path, environment: dict[str, str]) -> None:
    found = ended("{}", db, "show", "r1", **environment)

    assert (found.returncode, found.stderr) == (0, b"")
    assert b"\\u65e5\\u672c" in found.stdout or WORDS.encode() in found.stdout


def test_an_argument_that_is_no_text_is_refused_in_one_line(db: Path) -> None:
    found = ended('r=$(printf \'r\\xff\'); set -- show "$r" "${{@:2}}"; {}', db, "show")

    assert found.returncode == 2
    assert found.stderr == b"error: what stands on the command line is no text: it has bytes that are no UTF-8\n"
