"""A disk that fails while an application works: everybody hears of it, and no promise is broken.

The faults are those of a real disk: a write or a sync that fails once and works afterwards (a shim in front of the C
library), no space (SQLite's own limit, and a file system that is really full).
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from perdure.store.errors import StoreError
from perdure.store.reader import LogReader
from tests.faults.reopened import check_promises
from tests.faults.victim import BEFORE, Account, Fault

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "a sync of the WAL fails": Fault(call="fdatasync", error=errno.EIO),
    "a later sync of the WAL fails": Fault(call="fdatasync", number=3, error=errno.EIO),
    "the first write to the WAL fails": Fault(call="pwrite", error=errno.EIO),
    "a write in the middle of a commit fails": Fault(call="pwrite", number=4, error=errno.EIO),
    "there is no space for the WAL": Fault(call="pwrite", number=2, error=errno.ENOSPC),
    "a page may not be added": Fault(max_pages=60),
    "a checkpoint cannot write": Fault(call="pwrite", suffix="log.db", error=errno.EIO, checkpoint=True),
    "a checkpoint has no space": Fault(call="pwrite", suffix="log.db", error=errno.ENOSPC, checkpoint=True),
    "a checkpoint cannot sync": Fault(call="fdatasync", suffix="log.db", error=errno.EIO, checkpoint=True),
}


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_disk_that_fails_closes_the_log_for_writing_and_breaks_no_promise(
    fault: Fault, shim: Path, tmp_path: Path
) -> None:
    account = suffered(tmp_path / "log.db", fault, shim)

    check_account(account)
    check_promises(tmp_path / "log.db", account)


@pytest.mark.faults
def test_a_disk_that_is_really_full_closes_the_log_for_writing_and_breaks_no_promise(
    small_disk: Path, shim: Path
) -> None:
    account = suffered(small_disk / "log.db", Fault(fill=True), shim)

    check_account(account)
    with LogReader.open(small_disk / "log.db") as reader:
        assert reader.last_position() > BEFORE
    try:
        check_promises(small_disk / "log.db", account)
    except StoreError:
        subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        check_promises(small_disk / "log.db", account)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "perdure-test", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode != 0:
        pytest.skip("only root may mount a small file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def suffered(database: Path, fault: Fault, shim: Path) -> Account:
    """Return what an application hears to which *fault* happens."""
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.faults.victim",
            str(database),
            msgspec.json.encode(fault).decode(),
        ],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Account)


def check_account(account: Account) -> None:
    assert len(account.promised) == BEFORE
    assert {"result of a run", "result of a sleeper", "direct call", "tail"} <= account.heard.keys()
    assert set(account.heard.values()) == {"LogWriteError"}
    assert set(account.afterwards.values()) == {"LogWriteError"}
    assert sorted(account.cancelled) == ["direct", "long"]
    assert account.closed == "LogWriteError"
