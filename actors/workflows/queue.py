"""A queue of runs: how many may be at work, how many may begin in a while, and the tokens taken so far. The pure core.

Not here: who waits and who is next (`queues.py`). Invariant: a token taken is an event, so a restart finds the rate
where it was.
"""

import re
from typing import Any

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Event, Index, Moment
from perdure.actors.tools.limits import RateLimit, take
from perdure.store.errors import InternalError, UsageError
from perdure.store.expected import check_fields
from perdure.store.records import StreamId, stream_id

QUEUE_NAME = re.compile(r"[!-~]{1,60}")
"""What a queue may be called: it is part of a stream's name."""

WAITS_IN = "queue:"
"""What a run waits on that is in a queue begins with this; the queue's name follows."""


def is_queued(waits_on: str | None) -> bool:
    """Return whether a run that waits on this waits for its turn in a queue."""
    return waits_on is not None and waits_on.startswith(WAITS_IN)


class Queue(msgspec.Struct, frozen=True):
    """Where runs wait for their turn: larger priorities first, then in the order of starting.

    A run holds its place while its code is in memory. One that leaves memory to wait for long (for a person, a time)
    leaves its place to others; woken or cancelled, it runs no code before it has one again, and is then next for one.
    """

    name: str
    concurrency: int | None = None
    """Runs at work at a time; None for any number."""
    partition_concurrency: int | None = None
    """Of them, runs of one partition, such as one customer's; None for any number."""
    rate: RateLimit | None = None
    """How many runs may begin in a while; `max_wait` is not looked at: whoever is in a queue waits."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not QUEUE_NAME.fullmatch(self.name):
            raise UsageError(f"a queue's name is 1 to 60 printable ASCII characters without a space, not {self.name!r}")
        if any(bound is not None and bound < 1 for bound in (self.concurrency, self.partition_concurrency)):
            raise UsageError(f"queue {self.name} lets at least 1 run work at a time, or any number with None")

    @property
    def stream(self) -> StreamId:
        """Where its tokens are recorded."""
        return stream_id(f"queue/{self.name}")


class QueueTokenTaken(Event, frozen=True, tag="queue-token-taken"):
    """A run may begin; the bucket is full again at `full_at` (steady microseconds)."""

    run: str
    full_at: int


class TakeQueueToken(Command, frozen=True, tag="take-queue-token"):
    """Take a token for a run; answered with 0, or with the microseconds until there is one to take."""

    run: str
    limit: RateLimit


class QueueState(msgspec.Struct, frozen=True):
    """How full the bucket of a queue is."""

    full_at: int = 0


class QueueBehavior:
    """The rules of a queue's actor."""

    kind = "queue"
    state_type = QueueState
    state_version = 1
    events = (QueueTokenTaken,)

    def initial(self, stream: StreamId) -> QueueState:
        """Return the state of a queue that nobody has left yet."""
        del stream
        return QueueState()

    def decide(self, state: QueueState, command: Command, moment: Moment) -> Decision[Any]:
        """Return what *command* leads to."""
        match command:
            case TakeQueueToken(run=run, limit=limit):
                full_at, wait = take(state.full_at, limit, moment.steady)
                return Decision((), wait) if wait else Decision((QueueTokenTaken(run, full_at),), 0)
            case _:
                raise InternalError(detail=f"a queue does not understand {type(command).__name__}")

    def evolve(self, state: QueueState, event: Event) -> QueueState:
        """Return the state after *event*."""
        return QueueState(event.full_at) if isinstance(event, QueueTokenTaken) else state

    def index(self, state: QueueState) -> Index:
        """Return that a queue is never open work: its runs are."""
        del state
        return Index(is_open=False)
