"""A reader in another process that never finishes: it costs disk space while it lasts, and nothing else."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure import Runtime
from perdure.store import committer
from perdure.store.audit import verify
from tests.faults.programs import make_runtime, touch

READER = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM events").fetchone()[0], flush=True)
sys.stdin.readline()
print(connection.execute("SELECT count(*) FROM events").fetchone()[0], flush=True)
connection.execute("COMMIT")
connection.close()
"""
THRESHOLD = 64 * 1024


@pytest.mark.faults
def test_a_reader_that_never_finishes_stops_nobody_and_the_checkpoint_catches_up_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "CHECKPOINT_BYTES", THRESHOLD)
    monkeypatch.setattr(committer, "IDLE_SECONDS", 0.01)
    database = tmp_path / "log.db"

    async def scenario() -> tuple[str, str, int, int]:
        async with make_runtime(str(database)) as owner:
            await owner.call(touch, "before")
            await until_wal(owner, lambda size: size == 0)
            reader = await asyncio.create_subprocess_exec(
                sys.executable, "-c", READER, database, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert reader.stdout is not None
            first = (await reader.stdout.readline()).decode()
            for number in range(50):
                await owner.call(touch, f"during-{number}")
            await until_wal(owner, lambda size: size >= 4 * THRESHOLD)
            grown = (await owner.statistics()).log
            second = (await reader.communicate(b"\n"))[0].decode()
            await owner.call(touch, "after")
            await until_wal(owner, lambda size: size == 0)
            return first, second, grown.wal_bytes, grown.checkpoints

    first, second, grown, checkpoints = asyncio.run(scenario())

    assert first == second
    assert grown >= 4 * THRESHOLD
    assert checkpoints > 1
    assert rows(database) > int(first) + 50
    assert verify(database).findings == ()


async def until_wal(owner: Runtime, is_so: Callable[[int], bool]) -> None:
    """Wait until the WAL has such a size; the test's time limit ends a hope in vain."""
    while not is_so((await owner.statistics()).log.wal_bytes):  # noqa: ASYNC110 - from outside there is nothing to wait for
        await asyncio.sleep(0.005)


def rows(database: Path) -> int:
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        count: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    finally:
        connection.close()
    return count
