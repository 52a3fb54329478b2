"""Who gets a slot, in the order of asking, and how it is given back.

The state of each slot is its actor's; making and emptying them is the upkeep's. A slot with somebody else's files is
emptied before it is given away. Invariant: nobody is granted a slot while somebody waited longer.
"""

import asyncio
import contextlib
from collections import deque

import msgspec

from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.commands import AcquireSlot, AssignSlot, BeginRelease, FinishRelease, LeaveSlot, SlotView
from perdure.actors.slots.errors import NoSlotError, ResetFailedError, SlotError, SlotTransitionError
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.lane import Leaving
from perdure.runtime.sandbox.leases import Leases
from perdure.runtime.sandbox.shelf import Shelf, durable
from perdure.runtime.sandbox.upkeep import Upkeep
from perdure.store.errors import PerdureError
from perdure.store.protocols import Ticket

_log = logger("perdure.slots")


class Held(msgspec.Struct, frozen=True):
    """A slot that a trajectory has."""

    slot: str
    lease: int
    ticket: Ticket | None
    """Durable before visible: the machine hears of a new lease once this is settled; None: it knows it."""


class NotWantedError(SlotError):
    """Nobody wants the slot any more that was waited for."""

    message = "nobody wants it any more"


class _Waiting:
    """A trajectory that wants a slot."""

    __slots__ = ("granted", "lease_micros", "trajectory")

    def __init__(self, trajectory: Shell, lease_micros: int | None) -> None:
        self.trajectory = trajectory
        self.lease_micros = lease_micros
        self.granted: asyncio.Future[Held] = asyncio.get_running_loop().create_future()

    def refuse(self, error: PerdureError) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)
            self.granted.exception()


class SlotPool:
    """Grants slots to trajectories and takes them back."""

    def __init__(self, system: ActorSystem, backend: Backend, clock: Clock, config: ExecutorConfig) -> None:
        self._system = system
        self._backend = backend
        self._clock = clock
        self._config = config
        self.shelf = Shelf(system, backend, clock, config)
        self.upkeep = Upkeep(self.shelf, self._pump)
        self.leases = Leases(self.shelf)
        self._queue: deque[_Waiting] = deque()

    # Opening and closing

    async def open(self) -> list[SlotView]:
        """Bring back the slots of the log; return those that somebody holds, or was leaving."""
        after = ""
        self.shelf.is_open = True
        while page := await self._system.log.open_streams("slot/", after=after):
            for shell in await self._system.directory.activate_many([row.stream for row in page]):
                if not isinstance(shell, Shell):
                    _log.error("a slot cannot be read", reason=str(shell))
                elif (view := self.shelf.put(shell)).state == "available":
                    self.upkeep.rest(view.slot)
            after = page[-1].stream
        return [view for view in self.views() if view.state in ("acquired", "executing", "releasing")]

    async def make_ready(self) -> None:
        """Make the slots that there are to be at least; look after the health of all from now on."""
        while len(self.shelf.slots) < self._config.min_slots and (number := self.shelf.next_number()) is not None:
            await self.upkeep.create(number)
        self.upkeep.keep_warm()
        self.upkeep.look_later()
        self._pump()

    async def close(self) -> None:
        """Grant nothing any more; whoever waits is told. Idempotent."""
        self.shelf.is_open = False
        self.leases.close()
        for waiting in self._queue:
            waiting.refuse(NoSlotError(timeout_seconds=0.0, detail="the executor was closed"))
        self._queue.clear()
        await self.upkeep.close()
        self.shelf.clear()

    # Looking

    def view(self, shell: Shell) -> SlotView:
        """Return the state of a slot."""
        return self.shelf.view(shell)

    def views(self) -> list[SlotView]:
        """Return the slots by number."""
        return self.shelf.views()

    def shell(self, slot: str) -> Shell:
        """Return the actor of a slot of this pool.

        Raises:
            SlotError: there is none of that name.
        """
        return self.shelf.shell(slot)

    def holds(self, slot: str, lease: int) -> bool:
        """Return whether this lease of a slot is in force, and its holder is not leaving."""
        shell = self.shelf.slots.get(slot)
        if shell is None:
            return False
        view = self.view(shell)
        return view.lease == lease and view.state in ("acquired", "executing")

    @property
    def waiting(self) -> int:
        """How many trajectories wait for a slot."""
        return len(self._queue)

    # Granting

    def try_take(self, trajectory: Shell, lease_micros: int | None) -> Held | None:
        """Grant a slot that is ready now, unless somebody waits already."""
        if self._queue:
            return None
        slot = self._ready_for(_name(trajectory))
        return None if slot is None else self._grant(slot, trajectory, lease_micros)

    def take_this(self, slot: str, trajectory: Shell, lease_micros: int | None) -> Held:
        """Grant this very slot, out of turn: for operators.

        Raises:
            SlotTransitionError: it is not free, or keeps the files of another trajectory, or the trajectory has a slot.
            SlotError: there is none of that name.
        """
        view = self.view(self.shell(slot))
        if view.state == "available" and not self.shelf.is_free(slot):
            raise SlotTransitionError(slot=slot, verb="acquire", state=view.state, because=", and is worked at")
        return self._grant(slot, trajectory, lease_micros)  # refuses whatever else there is

    def growth(self) -> int:
        """Return how many slots could be made at once, with nobody waiting and none to be emptied first."""
        return 0 if self._queue or self.shelf.free() else self.shelf.room

    async def take(self, trajectory: Shell, lease_micros: int | None) -> Held:
        """Grant a slot, making one ready or waiting for one.

        Raises:
            NoSlotError: none became free in time.
            NotWantedError: `forgo` was called.
        """
        if not self.shelf.is_open:
            raise NoSlotError(timeout_seconds=0.0, detail="the executor was closed")
        waiting = _Waiting(trajectory, lease_micros)
        self._queue.append(waiting)
        seconds = self._config.acquire_timeout_seconds
        timer = self._clock.call_after(int(seconds * SECOND), lambda: waiting.refuse(self._none_free()))
        self._pump()
        try:
            return await waiting.granted
        finally:
            # Cancelled in the very turn that it was granted, the trajectory simply has the slot.
            timer.cancel()
            with contextlib.suppress(ValueError):
                self._queue.remove(waiting)

    def forgo(self, trajectory: Shell) -> None:
        """Let a trajectory wait for a slot no longer."""
        for waiting in self._queue:
            if waiting.trajectory is trajectory:
                waiting.refuse(NotWantedError())

    def _none_free(self) -> NoSlotError:
        views = self.views()
        broken = sum(view.state == "error" for view in views)
        detail = f"{len(views)} slots, {broken} of them quarantined, at most {self.shelf.bound}"
        return NoSlotError(timeout_seconds=self._config.acquire_timeout_seconds, detail=detail)

    def _grant(self, slot: str, trajectory: Shell, lease_micros: int | None) -> Held:
        shell = self.shell(slot)
        lease = self.view(shell).lease + 1
        name = _name(trajectory)
        moves: tuple[tuple[Shell, Command], ...] = (
            (shell, AcquireSlot(name, lease_micros)),
            (trajectory, AssignSlot(slot, lease)),
        )
        done = self._system.transact(moves, correlation=name)
        self.leases.watch(slot)
        self.upkeep.keep_warm()
        return Held(slot, lease, done.ticket)

    def _ready_for(self, trajectory: str) -> str | None:
        """Return a free slot that has this trajectory's files, else one that has nobody's."""
        empty: str | None = None
        for view in self.shelf.free():
            if view.keeps_files_of == trajectory:
                return view.slot
            if view.keeps_files_of is None and empty is None:
                empty = view.slot
        return empty

    def _pump(self) -> None:
        """Grant what can be granted, and make ready what those who wait need."""
        while self._queue:
            first = self._queue[0]
            slot = None
            if not first.granted.done() and (slot := self._ready_for(_name(first.trajectory))) is None:
                break
            self._queue.popleft()
            if slot is None:
                continue
            try:
                held = self._grant(slot, first.trajectory, first.lease_micros)
            except PerdureError as error:
                first.refuse(error)
            else:
                first.granted.set_result(held)
        if self.shelf.is_open:
            self.upkeep.prepare(len(self._queue) - self.shelf.coming)

    # Taking back

    async def begin_release(self, held: Held, trajectory: Shell, leaving: Leaving) -> None:
        """Record that the holder leaves; nobody else gets the slot yet. Durable on return.

        Raises:
            StaleLeaseError: somebody else holds it since.
            SlotTransitionError: it is quarantined.
        """
        slot, lease, because = held.slot, held.lease, leaving.because
        moves: tuple[tuple[Shell, Command], ...] = (
            (self.shell(slot), BeginRelease(lease, because, leaving.reset)),
            (trajectory, LeaveSlot(slot, lease, because)),
        )
        name = _name(trajectory)
        done = self._system.transact(moves, correlation=name, principal=leaving.principal, is_refusable=False)
        await durable(done.ticket)

    async def finish_release(self, slot: str, lease: int, *, reset: bool) -> None:
        """End what is left of the holder's processes, empty the workspace where asked to, and offer the slot again.

        Raises:
            ResetFailedError: it could not be emptied, and is quarantined.
        """
        if reset:
            await self.upkeep.empty(slot, lease)
        else:
            await self._end_processes(slot, lease)
        await durable(self.shelf.record(slot, FinishRelease(lease, reset)))
        self.upkeep.rest(slot)
        self._pump()
        self.upkeep.keep_warm()

    async def _end_processes(self, slot: str, lease: int) -> None:
        try:
            await self._backend.release(slot, lease)
        except Exception as error:
            self.quarantine(slot, f"release failed: {error}")
            if isinstance(error, PerdureError):
                raise
            raise ResetFailedError(slot=slot, reason=str(error) or type(error).__name__) from error

    async def reset(self, slot: str, *, principal: str | None = None) -> None:
        """Empty a slot that nobody holds; the way out of quarantine. Durable on return.

        Raises:
            ResetFailedError: it could not be emptied, and is quarantined.
            SlotTransitionError: somebody holds it, or it is being emptied or deleted.
            SlotError: there is none of that name.
        """
        await self.upkeep.reset(slot, principal=principal)

    def quarantine(self, slot: str, reason: str, *, principal: str | None = None) -> Ticket | None:
        """Give a slot to nobody until it was reset; its holder, if there is one, has lost it.

        What the holder runs in it is ended.

        Raises:
            SlotError: there is none of that name.
        """
        return self.upkeep.quarantine(slot, reason, principal=principal)

    def give_up(self, held: Held, trajectory: Shell, because: str) -> None:
        """Quarantine a slot that was just granted, and take it from its holder."""
        self.quarantine(held.slot, because)
        leave = LeaveSlot(held.slot, held.lease, because)
        self._system.transact(((trajectory, leave),), correlation=_name(trajectory), is_refusable=False)


def _name(trajectory: Shell) -> str:
    return trajectory.stream.partition("/")[2]
