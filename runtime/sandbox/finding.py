"""What became of a call: from the log, from memory while it runs, or nobody knows.

It changes nothing. Invariant: what is returned is durable.
"""

from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.errors import ExecutionInDoubtError
from perdure.actors.slots.trajectory import TrajectoryState
from perdure.runtime.sandbox.lane import Lane, Pending
from perdure.runtime.sandbox.lanes import Lanes
from perdure.runtime.sandbox.results import recorded_result
from perdure.store.errors import UnencodableError


async def known_result(system: ActorSystem, lane: Lane, uniq_id: str) -> ToolResult | None:
    """Return the result of a call that ended before, or that it is in doubt; None: it may be dispatched or is now.

    Raises:
        StoreError: the log could not be read.
    """
    state = lane.state
    if uniq_id in state.in_doubt:
        return ToolResult(success=False, error=f"in doubt: {state.in_doubt[uniq_id]}", metadata={"in_doubt": True})
    version = state.ended.get(uniq_id)
    if version is None:
        return None
    try:
        return await recorded_result(system, lane.shell.stream, version)
    except UnencodableError as error:
        return ToolResult(success=False, error=f"this call ended before, and its result cannot be had: {error}")


async def find_call(system: ActorSystem, lanes: Lanes, uniq_id: str) -> "tuple[Lane, Pending] | ToolResult | None":
    """Look a call up in the open trajectories: it runs or waits there, it ended, or it never began.

    Raises:
        ExecutionInDoubtError: it was begun, and nobody knows how it ended.
    """
    after = ""
    while page := await system.log.open_streams("trajectory/", after=after):
        for shell in await system.directory.activate_many([row.stream for row in page]):
            if not isinstance(shell, Shell):
                continue  # it cannot be read, which `start` has told
            lane = lanes.find(shell.stream.partition("/")[2])
            if lane is not None and (pending := lane.by_id.get(uniq_id)) is not None:
                return lane, pending
            state: TrajectoryState = shell.state
            if uniq_id in state.in_doubt:
                reason = state.in_doubt[uniq_id]
                raise ExecutionInDoubtError(trajectory=state.trajectory, uniq_id=uniq_id, reason=reason)
            version = state.ended.get(uniq_id)
            if version is not None:
                return await recorded_result(system, shell.stream, version)
        after = page[-1].stream
    return None
