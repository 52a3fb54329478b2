"""The calls of one trajectory: strictly one after another, in the order they were made. In memory only.

What is durable of them is in the trajectory's stream. Invariant: at most one piece of work of a lane is under way.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from perdure.actors.kernel.shell import Shell
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.trajectory import TrajectoryState
from perdure.actors.tools.definition import EffectClass

Where = Literal["slot", "server", "here"]
"""A slot, the tool server, or this process."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it will be dispatched."""

    uniq_id: str
    tool: str
    arguments: dict[str, Any]
    encoded: msgspec.Raw
    where: Where
    effect: EffectClass
    timeout_seconds: float
    attempt: int = 1
    principal: str | None = None
    """Who asked for it, where its caller said so."""


def execution_id(trajectory: str, uniq_id: str, attempt: int) -> str:
    """Return what a machine knows a call by: unique over trajectories, another for another attempt.

    A trajectory's id has no space in it, so that no two calls share one.
    """
    return f"{trajectory} {attempt} {uniq_id}"


class Pending:
    """A call on its way to a result."""

    __slots__ = ("abort", "began_at", "cancelled", "done", "is_begun", "is_ended", "slot", "waiters", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.done: asyncio.Future[ToolResult] = asyncio.get_running_loop().create_future()
        self.waiters = 0
        self.is_begun = False
        """Whether its intent was handed to the log: from then on it can only be ended, not withdrawn."""
        self.is_ended = False
        """Whether its outcome was."""
        self.cancelled: str | None = None
        """Why it is to be ended, if it is."""
        self.began_at = 0
        self.slot: str | None = None
        """Where it was sent."""
        self.abort: Callable[[], None] | None = None
        """Ends it, where it runs on a server or in this process."""


class Errand:
    """What is no call, and done once every call before it has ended: giving the slot back, taking a certain one."""

    __slots__ = ("done", "perform")

    def __init__(self, perform: Callable[[], Awaitable[None]]) -> None:
        self.perform = perform
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """How a slot is to be given back."""

    reset: bool
    because: str
    lease: int | None = None
    """Only this one; None: whichever is held by then."""
    principal: str | None = None


class Lane:
    """One trajectory in memory."""

    def __init__(self, trajectory: str, shell: Shell) -> None:
        self.trajectory = trajectory
        self.shell = shell
        self.queue: deque[Pending | Errand] = deque()
        self.by_id: dict[str, Pending] = {}
        """Calls that wait or run, or whose outcome is not durable yet."""
        self.under_way: list[Pending] = []
        """Those that were taken out last; some of them may have ended."""
        self.is_busy = False
        self.users = 0
        """Who has it in hand: it stays in memory as long as there is one."""
        self.lease_micros: int | None = None
        """How long a lease holds that its holder does not renew; None: its holder lives in this process."""

    @property
    def state(self) -> TrajectoryState:
        """What the log knows of the trajectory."""
        state: TrajectoryState = self.shell.state
        return state

    @property
    def is_needed(self) -> bool:
        """Whether there is something in it that is not in the log, or more calls are likely."""
        return bool(self.users or self.is_busy or self.queue or self.by_id) or self.state.slot is not None

    def calls(self) -> list[Pending]:
        """Return the calls that have not ended, in their order."""
        both = (*self.under_way, *self.queue)
        return [one for one in both if isinstance(one, Pending) and not one.is_ended and not one.done.done()]

    def ready(self, most: int) -> list[Pending]:
        """Take the calls out that may go together now: those for the slot up to the first that is not."""
        taken: list[Pending] = []
        while self.queue and len(taken) < most and isinstance(head := self.queue[0], Pending):
            if taken and (head.work.where != "slot" or taken[0].work.where != "slot"):
                break
            self.queue.popleft()
            taken.append(head)
        self.under_way = taken
        return taken

    def withdraw(self, pending: Pending) -> bool:
        """Take a call out that has not been taken; False when it has."""
        if pending not in self.queue:
            return False
        self.queue.remove(pending)
        self.by_id.pop(pending.work.uniq_id, None)
        return True
