"""The words of the kernel: commands, decisions, the moment. Frozen data, nothing else."""

from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import msgspec

from perdure.store.codec import Event
from perdure.store.records import Index

__all__ = ["Command", "Decision", "Effect", "Event", "Index", "Moment"]

R = TypeVar("R")


class Command(msgspec.Struct, frozen=True):
    """A message that asks an actor for something; it may be refused, and then nothing happened."""


class Effect(msgspec.Struct, frozen=True):
    """Something to be done outside the log, once the decision that asks for it is durable."""

    def placed(self, position: int) -> Self:
        """Return the effect, told the position of the last event of its unit; most do not care."""
        del position
        return self


class Moment(msgspec.Struct, frozen=True):
    """The time that a decision is made at, as data.

    `now` is the wall clock in microseconds since 1970 UTC. `steady` counts the same unit from the same origin, but
    never jumps while the process lives: durations are measured on it.
    """

    now: int
    steady: int


class Decision(msgspec.Struct, Generic[R], frozen=True):
    """What a command leads to: facts, an answer, things to do."""

    events: Sequence[Event]
    reply: R
    effects: Sequence[Effect] = ()
