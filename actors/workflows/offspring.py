"""The children that the code of one run awaits while it is in memory, and the run's place in memory meanwhile.

Not here: what the code does to start and to await a child (`child_steps.py`). Invariant: the end of a child is handed
out once.
"""

import asyncio
from typing import TYPE_CHECKING

from perdure.actors.kernel.clock import Timer
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.children import CHILD
from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.links import ChildEnded

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver


class Offspring:
    """The children that the code of one run awaits while it is in memory."""

    __slots__ = ("_driver", "_ended", "_news_at", "_timer", "_waiting")

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver
        self._ended: dict[str, ChildEnded] = {}
        self._waiting = 0
        """Branches that wait for a child."""
        self._news_at = 0
        """When a child was last started or heard of."""
        self._timer: Timer | None = None

    def reported(self, ended: ChildEnded) -> None:
        """Hand the end of a child to the branch that awaits it."""
        self._ended[ended.step] = ended
        self._news_at = self._driver.engine.clock.moment().now
        self._driver.wake(ended.step)

    def end(self, step: str) -> ChildEnded | None:
        """Return how the child of *step* ended, once, if that is known and durable."""
        return self._ended.pop(step, None)

    def is_open(self, step: str) -> bool:
        """Return whether the child of *step* has not ended."""
        return step in self._driver.shell.state.children.awaited

    async def wait(self, branch: Branch, step: str) -> None:
        """Wait until there may be news of the child of *step*.

        Raises:
            CancelledError: the branch is cancelled.
            Parked: the run leaves memory.
        """
        self._waiting += 1
        self._news_at = self._driver.engine.clock.moment().now
        try:
            await self._driver.wait(branch, None, step, CHILD)
        except asyncio.CancelledError:
            if self._driver.ending is not None and not self._driver.engine.is_loop_ending:
                raise Parked from None
            raise
        finally:
            self._waiting -= 1

    def lend_place(self) -> None:
        """Lend the run's place in memory to its children, when all that it does is to wait and a child is among it."""
        if self._waiting:
            kin = self._driver.engine.kin
            kin.lenders.add(self._driver.run_id)
            self._driver.engine.resumer.fill_places()

    def take_back_place(self) -> None:
        """Note that the run works again."""
        self._driver.engine.kin.lenders.discard(self._driver.run_id)
        self._driver.engine.kin.expecting.discard(self._driver.run_id)

    def is_expecting(self) -> bool:
        """Return whether the run is to stay in memory, since a child may end soon; it is asked again when that is over.

        To leave and to come back is to read all that it did: that is worth it only for a long wait, or where many wait.
        """
        engine = self._driver.engine
        if engine.is_stopping or not self._waiting or len(engine.kin.lenders) > engine.places:
            return False
        until = self._news_at + engine.park_after
        if until <= engine.clock.moment().now:
            return False
        if self._timer is None:
            self._timer = engine.clock.call_at(until, self._look_again)
        engine.kin.expecting.add(self._driver.run_id)
        return True

    @property
    def are_open(self) -> bool:
        """Whether no child that is waited for has ended, as the run's actor knows it."""
        return not self._ended and len(self._driver.shell.state.children.awaited) >= self._waiting

    def _look_again(self) -> None:
        self._timer = None
        self._driver.consider_parking()

    def close(self) -> None:
        """Let go of what the run held while it was in memory."""
        self.take_back_place()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
