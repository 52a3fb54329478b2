"""Opens a log again whose disk failed, and checks that every promise was kept. No test."""

import asyncio
from pathlib import Path

from perdure import RunCancelledError, Runtime
from perdure.store.audit import verify
from tests.faults.victim import TOOLS, WORKFLOWS, Account, short


def check_promises(database: Path, account: Account) -> None:
    """Check that all that *account* tells was promised is there, and that the log goes on."""
    assert verify(database).findings == ()
    asyncio.run(_reopened(database, account))
    assert verify(database).findings == ()


async def _reopened(database: Path, account: Account) -> None:
    async with Runtime(database, tools=TOOLS, workflows=WORKFLOWS) as runtime:
        for run, result in account.promised.items():
            assert await runtime.run(run).result() == result
        for run in account.started:
            assert (await runtime.run(run).status()).status in ("running", "waiting")
        assert await (await runtime.start(short, "again")).result() == "again"
        await runtime.run("long").cancel("the test is over")
        try:
            await runtime.run("long").result()
        except RunCancelledError:
            return
        raise AssertionError("the run was cancelled and has a result")
