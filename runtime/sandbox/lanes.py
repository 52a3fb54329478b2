"""Which trajectories are in memory: those with calls, with a slot, or in somebody's hands. The others are rows.

Invariant: a trajectory has at most one lane as long as anybody uses it, so that its calls have one order.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from perdure.actors.kernel.system import ActorSystem
from perdure.runtime.sandbox.lane import Lane
from perdure.store.errors import UsageError
from perdure.store.records import stream_id

MAX_ID_LENGTH = 128


class Lanes:
    """The lanes of an executor."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._lanes: dict[str, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def find(self, trajectory: str) -> Lane | None:
        """Return the lane of a trajectory, if it is in memory."""
        return self._lanes.get(trajectory)

    @asynccontextmanager
    async def use(self, trajectory: str) -> AsyncGenerator[Lane]:
        """Give the lane of a trajectory, which stays in memory while the block runs.

        Raises:
            UsageError: no trajectory can be called so.
        """
        lane = await self._open(trajectory)
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            self.let_go(lane)

    async def _open(self, trajectory: str) -> Lane:
        lane = self._lanes.get(trajectory)
        if lane is None:
            _check_id(trajectory)
            shell = await self._system.directory.activate(stream_id(f"trajectory/{trajectory}"))
            lane = self._lanes.get(trajectory)
            if lane is None:
                lane = self._lanes[trajectory] = Lane(trajectory, shell)
                shell.pins += 1
        return lane

    def let_go(self, lane: Lane) -> None:
        """Drop a lane that nobody needs."""
        if not lane.is_needed and self._lanes.get(lane.trajectory) is lane:
            del self._lanes[lane.trajectory]
            lane.shell.pins -= 1

    def clear(self) -> None:
        """Drop every lane."""
        for lane in self._lanes.values():
            lane.shell.pins -= 1
        self._lanes.clear()


def _check_id(trajectory_id: Any) -> None:
    if not isinstance(trajectory_id, str):
        raise UsageError(f"a trajectory's id is a text, not {trajectory_id!r}")
    if not 0 < len(trajectory_id) <= MAX_ID_LENGTH or not all("!" <= c <= "~" for c in trajectory_id):
        detail = f"a trajectory's id is 1 to {MAX_ID_LENGTH} printable ASCII characters without a space"
        raise UsageError(f"{detail}, not {trajectory_id!r}")
