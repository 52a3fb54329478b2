"""Which runs are forks of one another: the children of one are no strangers to the others.

Read where it is needed, which is only where the id of a child is taken. Invariant: the runs of one chain, each of which
goes on as the next, are one member of a family.
"""

from typing import TYPE_CHECKING

from perdure.actors.workflows.links import Parent
from perdure.actors.workflows.state import RunState
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError

if TYPE_CHECKING:
    from perdure.actors.workflows.kin import Kin


async def is_of_a_fork(kin: "Kin", run: str, parent: Parent | None) -> bool:
    """Return whether *parent* is the run that *run* was forked from, a fork of it, or another fork of the same.

    Raises:
        LogWriteError, LogClosedError: the log failed.
    """
    if parent is None or parent.run == run:
        return False
    try:
        own, other = await _origins(kin, run), await _origins(kin, parent.run)
    except (LogWriteError, LogClosedError):
        raise
    except PerdureError:
        return False  # one of them cannot be read: then the id is a stranger's
    return own[0] != other[0] and own[-1] == other[-1]


async def _origins(kin: "Kin", run: str) -> list[str]:
    """Return the first run of a run's chain, of the chain that this was forked from, and so on to the oldest."""
    found: list[str] = []
    origin: str | None = run
    while origin is not None:
        state: RunState = (await kin.shell(origin)).state
        if state.chain is not None:
            state = (await kin.shell(state.chain.first)).state
        found.append(state.run)
        origin = None if state.forked_from is None else state.forked_from.run
    return found
