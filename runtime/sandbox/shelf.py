"""The slots of a runtime as they stand: their actors, which of them are free, how many more there may be.

It waits for nothing and changes nothing but what is in memory. Invariant: a slot that is busy, because somebody makes
it, empties it or deletes it, is never among the free ones.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from perdure.actors.kernel.clock import Clock
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.commands import SlotView, ViewSlot
from perdure.actors.slots.errors import SlotError, SlotTransitionError
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.store.protocols import Ticket
from perdure.store.records import StreamId, stream_id

Purpose = Literal["made ready", "emptied", "deleted"]


class Shelf:
    """The slots in memory; all parts of a pool share one."""

    def __init__(self, system: ActorSystem, backend: Backend, clock: Clock, config: ExecutorConfig) -> None:
        self.system = system
        self.backend = backend
        self.clock = clock
        self.config = config
        self.slots: dict[str, Shell] = {}
        self.is_open = False
        self._busy: dict[str, Purpose] = {}

    def put(self, shell: Shell) -> SlotView:
        """Add a slot; it stays in memory until it is taken off."""
        shell.pins += 1
        view = self.view(shell)
        self.slots[view.slot] = shell
        return view

    def take_off(self, slot: str) -> None:
        """Take a slot off."""
        self.slots.pop(slot).pins -= 1

    def clear(self) -> None:
        """Take every slot off."""
        for slot in list(self.slots):
            self.take_off(slot)

    def shell(self, slot: str) -> Shell:
        """Return the actor of a slot.

        Raises:
            SlotError: there is none of that name.
        """
        try:
            return self.slots[slot]
        except KeyError:
            raise SlotError(detail=f"no slot {slot!r}; there are {', '.join(self.slots) or 'none'}") from None

    def view(self, shell: Shell) -> SlotView:
        """Return the state of a slot."""
        view: SlotView = shell.core.behavior.decide(shell.state, ViewSlot(), self.clock.moment()).reply
        return view

    def views(self) -> list[SlotView]:
        """Return the slots by number."""
        return sorted((self.view(shell) for shell in self.slots.values()), key=lambda view: view.number)

    def free(self) -> list[SlotView]:
        """Return the slots that nobody holds and nobody works at, by number."""
        return [view for view in self.views() if view.state == "available" and view.slot not in self._busy]

    def is_free(self, slot: str) -> bool:
        """Return whether a slot is one of these."""
        shell = self.slots.get(slot)
        return shell is not None and slot not in self._busy and self.view(shell).state == "available"

    # Being worked at

    def begin(self, slot: str, purpose: Purpose) -> None:
        """Keep a slot from being granted until `end`.

        Raises:
            SlotTransitionError: somebody works at it already.
        """
        if slot in self._busy:
            raise SlotTransitionError(slot=slot, verb="empty", state="busy", because=f", being {self._busy[slot]}")
        self._busy[slot] = purpose

    def end(self, slot: str) -> None:
        """Let a slot be granted again."""
        del self._busy[slot]

    @contextmanager
    def working_at(self, slot: str, purpose: Purpose) -> Generator[None]:
        """Keep a slot from being granted while the block runs.

        Raises:
            SlotTransitionError: somebody works at it already.
        """
        self.begin(slot, purpose)
        try:
            yield
        finally:
            self.end(slot)

    @property
    def coming(self) -> int:
        """How many slots will be free in a moment: those that are made or emptied."""
        return sum(purpose != "deleted" for purpose in self._busy.values())

    # Growing

    @property
    def bound(self) -> int:
        """How many slots there may be."""
        most = self.backend.max_slots
        return self.config.max_slots if most is None else min(most, self.config.max_slots)

    @property
    def room(self) -> int:
        """How many slots more there may be."""
        return self.bound - len(self.slots) - sum(slot not in self.slots for slot in self._busy)

    def next_number(self) -> int | None:
        """Return the lowest number that no slot has, or None when there may not be more slots."""
        if self.room <= 0:
            return None
        names = (self.backend.slot_name(number) for number in range(self.bound))
        return next((n for n, name in enumerate(names) if name not in self.slots and name not in self._busy), None)

    # Recording

    def record(self, slot: str, command: Command, *, principal: str | None = None) -> Ticket | None:
        """Record a fact of a slot.

        Raises:
            SlotError: it is not in a state in which that can be.
        """
        moves = ((self.shell(slot), command),)
        return self.system.transact(moves, principal=principal, is_refusable=False).ticket


async def durable(ticket: Ticket | None) -> None:
    """Wait until what a ticket stands for is on disk."""
    if ticket is not None:
        await ticket


def slot_stream(slot: str) -> StreamId:
    """Return the stream of a slot."""
    return stream_id(f"slot/{slot}")
