"""One life of a process that saves a conversation, version after version, until it is killed. No test.

`live` runs in a child of `nursery.py`. A line in the file `acks` is written after the runtime said that a version was
saved; it has the version and the size of the write-ahead log at that time.
"""

import asyncio
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from perdure import Context, Runtime, workflow
from perdure.store.committer import SqliteCommitter
from tests.crash.workload import append_line


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one life is to do."""

    directory: str
    saves: int = 10_000
    """Versions that it saves, unless it is killed before."""
    kill_at: int | None = None
    """The version at whose save it dies: once that is on the disk, and before anybody was told."""


def document(version: int) -> dict[str, Any]:
    """What is saved as a version: some pages, so that a save is no matter of one write."""
    pages = [hashlib.sha512(b"%d/%d" % (version, page)).hexdigest() * 40 for page in range(8)]
    return {"version": version, "pages": pages}


@workflow
async def note(ctx: Context, version: int) -> int:
    """A run of the conversation that notes the version in what the runs share."""
    await ctx.state.write("noted", version, scope="conversation")
    return version


def runtime_on(directory: Path) -> Runtime:
    """Return a runtime on the log of a life."""
    return Runtime(directory / "log.db", workflows=[note])


async def _live(order: Order) -> None:
    directory = Path(order.directory)
    async with runtime_on(directory) as rt:
        conversation = rt.conversation("c")
        known = {one.name for one in await conversation.artifacts()}
        begin = 1 + ((await conversation.artifact("document"))["version"] if "document" in known else 0)
        for version in range(begin, begin + order.saves):
            if version == order.kill_at:
                _die_once_committed()
            await conversation.keep("document", document(version))
            wal = (directory / "log.db-wal").stat().st_size
            append_line(directory / "acks", msgspec.json.encode([version, wal]))
            if version % 5 == 0:
                run = await conversation.with_options(id=f"note-{version}").start(note, version)
                await run.result()


def live(order: Order) -> None:
    """Live one life to its end, or to its kill."""
    asyncio.run(_live(order))


def _die_once_committed() -> None:
    original: Any = SqliteCommitter.commit

    async def commit(self: SqliteCommitter, batch: Any) -> None:
        await original(self, batch)
        os.kill(os.getpid(), signal.SIGKILL)

    SqliteCommitter.commit = commit  # type: ignore[method-assign]
