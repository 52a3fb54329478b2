"""What a kill cannot show: that the disk has confirmed a commit before anybody hears of it.

A trace of the system calls shows for every acknowledgement a sync of the WAL that began after the write of the event
and ended before the acknowledgement. With `synchronous="normal"` it shows none: so this test can fail.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.acknowledge import BESIDE_ONE_ANOTHER, ROUNDS
from tests.crash.nursery import ROOT
from tests.crash.traces import Call, calls, promised, promised_too_early

PROMISES = 3 * ROUNDS * BESIDE_ONE_ANOTHER


@pytest.mark.crash
def test_the_wal_is_synced_before_every_acknowledgement_and_before_every_effect(tmp_path: Path) -> None:
    trace = traced(tmp_path, "full")

    assert len(promised(trace)) == PROMISES
    assert promised_too_early(trace) == []


@pytest.mark.crash
def test_with_synchronous_normal_nothing_is_synced_before_an_acknowledgement(tmp_path: Path) -> None:
    trace = traced(tmp_path, "normal")

    assert len(promised_too_early(trace)) == PROMISES


def traced(directory: Path, synchronous: str) -> list[Call]:
    if shutil.which("strace") is None:
        if "CI" in os.environ:
            pytest.fail("strace is missing: .ci/run installs it")
        pytest.skip("strace is not here: apt-get install strace")
    trace, database = directory / "trace", directory / "log.db"
    strace = ["strace", "-f", "-y", "-s", "70000", "-o", str(trace), "-e", "trace=fdatasync,fsync,write,pwrite64"]
    child = [sys.executable, "-m", "tests.crash.acknowledge", str(database), synchronous]
    ended = subprocess.run([*strace, *child], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if "ptrace" in ended.stderr and "CI" not in os.environ:
        pytest.skip(f"strace may not trace here: {ended.stderr.splitlines()[0]}")
    assert ended.returncode == 0, ended.stderr
    return calls(trace)
