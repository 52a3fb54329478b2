"""How slots come to be, become clean again, are looked after and given up. It grants none.

Whatever goes wrong at a slot quarantines that slot. Invariant: a slot is offered again only after what was done to it
has ended and is recorded.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.kernel.logs import logger
from perdure.actors.slots.commands import BeginReset, CreateSlot, QuarantineSlot, ResetSlot, RetireSlot
from perdure.actors.slots.errors import ResetFailedError
from perdure.runtime.sandbox.shelf import Purpose, Shelf, durable, slot_stream
from perdure.store.errors import PerdureError
from perdure.store.protocols import Ticket

_log = logger("perdure.slots")


class Upkeep:
    """Makes, empties, checks and deletes slots."""

    def __init__(self, shelf: Shelf, changed: Callable[[], None]) -> None:
        self._shelf = shelf
        self._changed = changed
        """Told when a slot may have become free, or room for one."""
        self._work: set[asyncio.Task[None]] = set()
        self._health: Timer | None = None
        self._idle: dict[str, Timer] = {}
        self.on_lost: Callable[[str, str], None] = lambda _slot, _trajectory: None
        """Told the slot and the trajectory that lost it."""

    async def close(self) -> None:
        """Begin nothing any more, and wait for what was begun."""
        if self._health is not None:
            self._health.cancel()
        for timer in self._idle.values():
            timer.cancel()
        self._idle.clear()
        while self._work:
            await asyncio.wait(self._work)

    # Making ready

    def prepare(self, wanted: int) -> None:
        """Begin to make so many slots ready: used ones that nobody wants back are emptied, then new ones made."""
        shelf = self._shelf
        for _ in range(wanted):
            used = next((view for view in shelf.free() if view.keeps_files_of is not None), None)
            if used is not None:
                self._start(used.slot, "emptied", self._reset(used.slot, used.lease))
            elif (number := shelf.next_number()) is not None:
                self._start(shelf.backend.slot_name(number), "made ready", self._create(number))
            else:
                return

    def keep_warm(self) -> None:
        """See to it that as many empty slots are ready as the application wants."""
        shelf = self._shelf
        if shelf.config.warm_slots and shelf.is_open:
            empty = sum(view.keeps_files_of is None for view in shelf.free())
            self.prepare(shelf.config.warm_slots - empty - shelf.coming)

    async def create(self, number: int) -> None:
        """Add the slot with this number, and return when it can be granted."""
        with self._shelf.working_at(self._shelf.backend.slot_name(number), "made ready"):
            await self._create(number)

    async def _create(self, number: int) -> None:
        shelf = self._shelf
        slot = shelf.backend.slot_name(number)
        shelf.put(await shelf.system.directory.activate(slot_stream(slot)))
        try:
            shelf.record(slot, CreateSlot(number, shelf.backend.address))
        except PerdureError:
            shelf.take_off(slot)
            raise
        self.rest(slot)

    async def reset(self, slot: str, *, principal: str | None = None) -> None:
        """Empty a slot that nobody holds; the way out of quarantine.

        Raises:
            ResetFailedError: it could not be emptied, and is quarantined.
            SlotTransitionError: somebody holds it, or it is being emptied or deleted.
        """
        shelf = self._shelf
        shell = shelf.shell(slot)
        view = shelf.view(shell)
        if view.state not in ("available", "error"):
            shelf.system.transact(((shell, ResetSlot()),))  # refuses, and says why
        with shelf.working_at(slot, "emptied"):
            await self._reset(slot, view.lease, principal)
        self._changed()

    async def _reset(self, slot: str, lease: int, principal: str | None = None) -> None:
        await durable(self._shelf.record(slot, BeginReset(), principal=principal))
        await self.empty(slot, lease)
        await durable(self._shelf.record(slot, ResetSlot(), principal=principal))
        self.rest(slot)

    async def empty(self, slot: str, lease: int) -> None:
        """Empty the workspace of a slot.

        Raises:
            ResetFailedError: it could not be emptied, and is quarantined.
        """
        try:
            await self._shelf.backend.reset(slot, lease)
        except Exception as error:
            self.quarantine(slot, f"reset failed: {error}")
            if isinstance(error, PerdureError):
                raise
            raise ResetFailedError(slot=slot, reason=str(error) or type(error).__name__) from error

    def quarantine(self, slot: str, reason: str, *, principal: str | None = None) -> Ticket | None:
        """Give a slot to nobody until it was reset; its holder, if there is one, has lost it."""
        _log.warning("a slot is quarantined", slot=slot, reason=reason)
        holder = self._shelf.view(self._shelf.shell(slot)).trajectory
        ticket = self._shelf.record(slot, QuarantineSlot(reason), principal=principal)
        if holder is not None:
            self.on_lost(slot, holder)
        return ticket

    # Giving up

    def rest(self, slot: str) -> None:
        """Note that a slot is free from now on: if nobody takes it for long, it is given up."""
        shelf = self._shelf
        if (timer := self._idle.pop(slot, None)) is not None:
            timer.cancel()
        if shelf.is_open:
            version = shelf.slots[slot].version
            due = shelf.clock.moment().now + int(shelf.config.idle_seconds * SECOND)
            self._idle[slot] = shelf.clock.call_at(due, lambda: self._rested(slot, version))

    def _rested(self, slot: str, version: int) -> None:
        shelf = self._shelf
        self._idle.pop(slot, None)
        if not shelf.is_open or not shelf.is_free(slot) or shelf.slots[slot].version != version:
            return
        if len(shelf.slots) > shelf.config.min_slots and len(shelf.free()) > shelf.config.warm_slots:
            self._start(slot, "deleted", self._retire(slot))
        else:
            self.rest(slot)

    async def _retire(self, slot: str) -> None:
        shelf = self._shelf
        try:
            await shelf.backend.remove(slot)
        except Exception as error:  # noqa: BLE001 - whatever the machine says, the slot stays and is not given away
            self.quarantine(slot, f"could not be deleted: {error}")
            return
        await durable(shelf.record(slot, RetireSlot()))
        shelf.take_off(slot)

    # Health

    def look_later(self) -> None:
        """Look after the health of the slots from now on."""
        clock = self._shelf.clock
        due = clock.moment().now + int(self._shelf.config.health_seconds * SECOND)
        self._health = clock.call_at(due, lambda: self._spawn(self._look()))

    async def _look(self) -> None:
        try:
            slots = [view.slot for view in self._shelf.views() if view.state != "error"]
            await asyncio.gather(*(self._look_at(slot) for slot in slots))
        finally:
            if self._shelf.is_open:
                self.look_later()

    async def _look_at(self, slot: str) -> None:
        """Quarantine a slot that is not well, unless somebody holds it: it is never taken from its holder."""
        try:
            reason = await self._shelf.backend.health(slot)
        except Exception as error:  # noqa: BLE001 - a machine that cannot be asked is not well
            reason = f"{type(error).__name__}: {error}"
        if reason is None:
            return
        if self._shelf.is_free(slot):
            self.quarantine(slot, f"health check failed: {reason}")
        elif slot in self._shelf.slots:
            _log.warning("a slot in use is not well; its holder keeps it", slot=slot, reason=reason)

    # Inside

    def _start(self, slot: str, purpose: Purpose, work: Coroutine[Any, Any, None]) -> None:
        """Begin to work at a slot, which from now on is not free."""
        self._shelf.begin(slot, purpose)

        async def run() -> None:
            try:
                await work
            except PerdureError as error:
                _log.error("a slot could not be " + purpose, slot=slot, reason=str(error))
                if purpose == "made ready":
                    return  # who waits is told when the time is over: to try again at once would be without end
            finally:
                self._shelf.end(slot)
            self._changed()

        self._spawn(run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._shelf.system.loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("work on a slot failed", error=f"{type(error).__name__}: {error}")
