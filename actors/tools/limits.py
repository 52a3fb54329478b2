"""How many calls of a tool may run, and how many may start in a while.

The rate is a token bucket, kept as one number per key: the time at which the bucket would be full again if nothing
were taken (the generic cell rate algorithm, ITU-T I.371). Every token taken is an event, so a restart finds the bucket
as full as it was. The gate counts calls in flight; those die with the process, so it is in memory only, and not pure.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from datetime import timedelta

import msgspec

from perdure.store.codec import Event
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

KEYS_KEPT = 1_000
"""Keys whose buckets are remembered; full ones are forgotten first, then those that fill up soonest."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """So many calls in a period, on average; up to *burst* at once."""

    calls: int
    per: timedelta = timedelta(seconds=1)
    burst: int | None = None
    """Calls that may start at once after a pause; as many as `calls` when left out."""
    max_wait: timedelta = timedelta(seconds=60)
    """A call that would have to wait longer for its token is refused; shorter ones are waited out in turn."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.calls < 1 or self.per <= timedelta(0) or (self.burst is not None and self.burst < 1):
            raise UsageError("a rate limit has at least one call, a period over zero and a burst of at least 1")
        if self.max_wait < timedelta(0):
            raise UsageError("max_wait is not negative")

    @property
    def spacing(self) -> int:
        """Microseconds in which one token comes back."""
        return max(1, (self.per // timedelta(microseconds=1)) // self.calls)

    @property
    def tolerance(self) -> int:
        """Microseconds that a full bucket is worth beyond the first token."""
        return self.spacing * ((self.burst or self.calls) - 1)


class TokenTaken(Event, frozen=True, tag="token-taken"):
    """A call took a token; the bucket of `key` is full again at `full_at` (steady microseconds)."""

    call: str
    key: str
    full_at: int


def take(full_at: int, limit: RateLimit, now: int) -> tuple[int, int]:
    """Take a token: return when the bucket is full again, and how long the call has to wait for its token.

    The token of a call that waits is spoken for: those that come later wait behind it.
    """
    start = max(full_at, now)
    return start + limit.spacing, max(0, start - limit.tolerance - now)


def tokens_left(full_at: int, limit: RateLimit, now: int) -> float:
    """Return how many tokens are in the bucket, with the part of the next one."""
    missing = max(0, full_at - now) / limit.spacing
    return max(0.0, (limit.burst or limit.calls) - missing)


def after_token(buckets: dict[str, int], event: TokenTaken) -> dict[str, int]:
    """Return the buckets after a token was taken; at most a thousand keys are kept."""
    changed = {**buckets, event.key: event.full_at}
    if len(changed) > KEYS_KEPT:
        soonest = min(changed, key=lambda key: (changed[key], key))
        del changed[soonest]
    return changed


class Gate:
    """Who is at a tool now, in memory only: at most so many calls run and so many wait, in the order of asking.

    Also where calls that the circuit refused are told that it moved. Not durable: calls in flight die with the process.
    """

    def __init__(self, concurrency: int | None, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        """Those who had a place and gave it up while they waited for a token: they asked before all who wait."""
        self._watchers: set[Callable[[], None]] = set()

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting) + len(self._returning)

    @property
    def is_full(self) -> bool:
        """Whether the next call would be refused."""
        if self.concurrency is None:
            return False
        return self.running >= self.concurrency and self.waiting >= self.queue

    @property
    def is_idle(self) -> bool:
        """Whether nobody stands here."""
        return not self.running and not self.waiting and not self._watchers

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a place and take it; check `is_full` before. Cancelled, it takes none.

        *again* is for who has been let in before and left to wait for a token: those go before all others, in order.
        """
        if self.concurrency is None or (self.running < self.concurrency and not self.waiting):
            self.running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._returning if again else self._waiting
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with contextlib.suppress(ValueError):  # somebody who left in the same turn has passed it over already
                    queue.remove(place)
            else:
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back: it goes to who waits longest."""
        while queue := self._returning or self._waiting:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Have *moved* called when the circuit changes; return how to stop that."""
        self._watchers.add(moved)
        return lambda: self._watchers.discard(moved)

    def circuit_moved(self) -> None:
        """Tell those whom the circuit refused that it has moved."""
        for moved in list(self._watchers):
            moved()
