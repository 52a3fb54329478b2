"""An actor is asked for while it is brought back in another way: there is one actor, and it knows the newest state."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Context, Runtime, RunView, Settings, workflow
from perdure.store.sqlite import SqliteEventLog


@workflow
async def nap(ctx: Context) -> str:
    await ctx.sleep(0)
    await ctx.sleep(0.001)
    return "awake"


def test_a_run_that_came_and_went_while_it_was_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SqliteEventLog.blobs
    release = asyncio.Event()
    is_first = True

    async def blobs(self: SqliteEventLog, hashes: Iterable[str]) -> Mapping[str, bytes]:
        nonlocal is_first
        waits, is_first = is_first, False
        found = await original(self, hashes)
        if waits:
            await release.wait()
        return found

    def runtime(*, park_after: float = 60.0) -> Runtime:
        settings = Settings(park_after=timedelta(seconds=park_after))
        return Runtime(tmp_path / "log.db", workflows=[nap], settings=settings, resume=False)

    async def first_life() -> None:
        async with runtime(park_after=0.0) as opened:
            run = await opened.with_options(id="nap").start(nap)
            while (await run.status()).status != "waiting":  # noqa: ASYNC110 - nobody tells when it is parked
                await asyncio.sleep(0)

    async def second_life() -> RunView:
        async with runtime() as opened:
            directory, run = opened._system.directory, opened.run("nap", nap)
            monkeypatch.setattr(SqliteEventLog, "blobs", blobs)
            asked = asyncio.create_task(run.status())
            while is_first:  # noqa: ASYNC110 - until the read is under way
                await asyncio.sleep(0)
            await opened.resume()
            while opened._engine.has("nap") or directory.active(run._stream):  # noqa: ASYNC110 - until it has ended and left
                await asyncio.sleep(0)
            release.set()
            await asked
            assert directory._loading is not None
            await directory._loading
            return await run.status()

    asyncio.run(first_life())

    assert asyncio.run(second_life()).status == "completed"
