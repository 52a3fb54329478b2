"""Whether an application's code fits the runs that are open: each is played against its recording, and nothing changes.

Not here: how a run is played (`actors/workflows/rehearsal.py`). Invariant: the log is only read, beside its owner or
without one, and no tool is called; the code of workflows runs, up to where each run stands.
"""

from collections.abc import AsyncIterator

import msgspec

from perdure.actors.workflows.agents.errors import UnknownAgentError
from perdure.actors.workflows.defined.errors import UnknownNameError
from perdure.actors.workflows.engine import Engine
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.actors.workflows.rehearsal import Rehearsal, Rehearsed, Verdict
from perdure.store.errors import PerdureError
from perdure.store.protocols import EventLog
from perdure.store.records import OpenStream, StreamId

PAGE = 200
"""Runs looked up with one query."""


class CheckedRun(msgspec.Struct, frozen=True):
    """What was found of one open run."""

    run: str
    workflow: str
    verdict: Verdict
    """`fits`; `differs` at `step`: it would be parked as a mismatch; `needs an upcaster`: what is recorded cannot be
    read any more; `has no code`: its workflow, or what its definition names, is not registered, and it would wait."""
    step: str = ""
    account: str = ""
    """What is recorded beside what the code does now."""


async def check_runs(engine: Engine, log: EventLog) -> list[CheckedRun]:
    """Return what a resume of each open run would find, in the order of their ids."""
    return [await _check(engine, row.stream) async for row in _open_runs(log)]


async def _open_runs(log: EventLog) -> AsyncIterator[OpenStream]:
    after = ""
    while page := await log.open_streams("run/", after=after, limit=PAGE):
        for row in page:
            yield row
        after = page[-1].stream


async def _check(engine: Engine, stream: StreamId) -> CheckedRun:
    run = stream.partition("/")[2]
    prepared = await engine.resumer.read(stream)
    if prepared is None:
        return CheckedRun(run, "", "fits", account="it has ended, and others are still to be told")
    if isinstance(prepared, (UnknownWorkflowError, UnknownAgentError, UnknownNameError)):
        name = prepared.workflow if isinstance(prepared, UnknownWorkflowError) else ""
        return CheckedRun(run, name, "has no code", account=str(prepared))
    if isinstance(prepared, PerdureError):
        return CheckedRun(run, "", "needs an upcaster", account=str(prepared))
    shell = prepared.shell
    workflow = engine.workflow(shell.state.workflow)
    rehearsal = Rehearsal(engine, shell, workflow, prepared.given, prepared.recording, prepared.principal)
    found: Rehearsed = await rehearsal.rehearse()
    engine.system.directory.passivate(shell)
    return CheckedRun(run, workflow.name, found.verdict, found.step, found.account)
