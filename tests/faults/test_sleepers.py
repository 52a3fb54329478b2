"""A disk that cannot be read for a moment, just when sleepers are due: nobody is left asleep."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Context, Runtime, Settings, workflow
from perdure.runtime import recovery
from perdure.store.errors import LogUnavailableError
from perdure.store.records import OpenStream
from perdure.store.sqlite import SqliteEventLog


@workflow
async def nap(ctx: Context) -> str:
    await ctx.sleep(0.05)
    return "awake"


@pytest.mark.faults
def test_a_look_at_sleepers_that_fails_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_AGAIN", 10_000)
    original, failed = SqliteEventLog.open_streams, 0

    async def open_streams(self: SqliteEventLog, prefix: str = "", **options: int | str | None) -> list[OpenStream]:
        nonlocal failed
        if options.get("wake_before") is not None and failed < 2:
            failed += 1
            raise LogUnavailableError(path=str(self.path), detail="it cannot be read just now")
        return await original(self, prefix, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(SqliteEventLog, "open_streams", open_streams)

    async def scenario() -> str:
        settings = Settings(park_after=timedelta(0))
        async with Runtime(tmp_path / "log.db", workflows=[nap], settings=settings) as runtime:
            return await (await runtime.start(nap)).result()

    assert asyncio.run(scenario()) == "awake"
    assert failed == 2
