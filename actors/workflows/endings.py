"""Why the code of a run is being taken down, and what a branch waits for. Data only; the driver acts on it."""

import asyncio
from typing import TypeAlias

import msgspec

from perdure.actors.workflows.events import StepCompleted, StepFailed, StepNotDone


class Suspending(msgspec.Struct, frozen=True):
    """The runtime stops in good order."""


class Pausing(Suspending, frozen=True):
    """An operator stops the run: what is in flight ends, as when the runtime stops."""


class Parking(msgspec.Struct, frozen=True):
    """Every branch waits for long."""

    wake_at: int | None
    waits_on: str | None
    mail_for: tuple[str, ...] = ()
    """The steps that wait for a signal or an answer."""
    children_of: tuple[str, ...] = ()
    """The steps that wait for a child."""
    doubts: tuple[str, ...] = ()
    """The steps that wait for a person's verdict."""
    is_cancelled: bool = False
    """Whether the code knows that it is to be cancelled, and waits all the same."""


class Blocking(msgspec.Struct, frozen=True):
    """The code does not fit the recording."""

    kind: str
    account: str
    step: str
    arguments: bytes = b""


class Abandoned(msgspec.Struct, frozen=True):
    """The log failed: nothing more can be recorded."""


Ending: TypeAlias = Suspending | Pausing | Parking | Blocking | Abandoned
Verdict: TypeAlias = StepCompleted | StepFailed | StepNotDone


class Wait(msgspec.Struct, eq=False):
    """A branch that waits for a time, or for somebody."""

    woken: "asyncio.Future[None]"
    due: int | None
    step: str
    on: str | None
    """What it waits on, when it is not only a time."""
    others: tuple[str, ...] = ()
    """Steps that it waits for as well."""
