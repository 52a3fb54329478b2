"""The facts by which a run knows others: children and their ends, runs that go on as new ones, its entry point.

Data only; the rules are in `children.py`. Invariant: a fact that concerns two runs is in one unit with its counterpart
in the other's stream, or is owed to it and told again until it is there.
"""

from typing import Literal, TypeAlias

import msgspec

from perdure.store.codec import Event

ChildStatus: TypeAlias = Literal["completed", "failed", "cancelled"]


class Parent(msgspec.Struct, frozen=True):
    """The run, and its step, that started a run; `is_awaited` says whether it is told of the end."""

    run: str
    step: str
    is_awaited: bool


class Chain(msgspec.Struct, frozen=True):
    """What a run goes on for: the first run of all, the one before it, and the how-many-th it is."""

    first: str
    before: str
    number: int


class ChildStarted(Event, frozen=True, tag="child-started"):
    """A child run was started, in one unit with its `run-started`; one not awaited may have been there already."""

    step: str
    branch: str
    run: str
    workflow: str
    digest: str
    is_awaited: bool
    past_pivot: bool = False
    """Whether a saga has passed its pivot: then a person is asked should the child fail."""

    @property
    def ends_a_step(self) -> bool:
        """Whether its step is over with it: nobody waits for the child."""
        return not self.is_awaited


class ChildRefused(Event, frozen=True, tag="child-refused"):
    """The child could not be started under the id that the code gives it; the workflow was told."""

    step: str
    branch: str
    run: str
    workflow: str
    digest: str
    is_awaited: bool
    error: str


class ChildEnded(Event, frozen=True, tag="child-ended"):
    """An awaited child has ended; `run` is the last of its chain, and `error` is empty where it completed."""

    step: str
    run: str
    status: ChildStatus
    result: msgspec.Raw
    error_type: str = ""
    error: str = ""

    @property
    def ends_a_step(self) -> bool:
        """Whether its step is over with it."""
        return True


class ChildCancelRequested(Event, frozen=True, tag="child-cancel-requested"):
    """The wait for the child was cancelled: it is told to cancel, and waited for; its end counts no more."""

    step: str
    run: str


class ParentTold(Event, frozen=True, tag="parent-told"):
    """The run that awaits this one was told how it ended."""

    run: str
    step: str


class RunContinued(Event, frozen=True, tag="run-continued"):
    """The workflow goes on as a new run, which started in the same unit and got the signals that nobody had taken."""

    run: str


class EntryTold(Event, frozen=True, tag="entry-told"):
    """The entry point that started this run was told how it ended, in one unit with its `entry-run-ended`."""

    entry: str
    status: ChildStatus
    number: int
    """The how-many-th end of all runs of the entry point: so many newest results are kept."""
    at: int
    """When it ended, in microseconds: results are kept for a while."""
    retries: int = 0
    """How often the run had been tried again by then."""


LINK_EVENTS: tuple[type[Event], ...] = (
    ChildStarted, ChildRefused, ChildEnded, ChildCancelRequested, ParentTold, RunContinued, EntryTold,
)  # fmt: skip
