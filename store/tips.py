"""What the journal keeps in memory of each loaded stream: its tip.

An append is checked against the tip alone, so it needs no read. The invariant: a tip is never older than the log; a
load that raced a `forget` is told to read again instead of bringing an old tip back.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from perdure.store.errors import ConcurrencyError, UsageError
from perdure.store.records import StreamId
from perdure.store.ticket import Ticket


class Tip:
    """The newest state of one stream, durable or not."""

    __slots__ = ("digest", "id", "is_open", "ticket", "version", "waits_on", "wake_at")

    def __init__(
        self,
        *,
        id: int = 0,
        version: int = 0,
        digest: bytes = b"",
        is_open: bool = True,
        wake_at: int | None = None,
        waits_on: str | None = None,
    ) -> None:
        self.id = id
        """0 while the stream does not exist."""
        self.version = version
        self.digest = digest
        """Of the last event, or the genesis of the stream."""
        self.is_open = is_open
        self.wake_at = wake_at
        self.waits_on = waits_on
        self.ticket: Ticket | None = None
        """Of the last append since the stream was loaded."""


class Loading:
    """A load that is under way, so that a `forget` in its middle is noticed."""

    __slots__ = ("is_stale", "names")

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.is_stale = False


class Tips:
    """The tips of the streams that may be appended to."""

    def __init__(self) -> None:
        self._tips: dict[str, Tip] = {}
        self._loads: set[Loading] = set()
        self._forgotten: Ticket | None = None

    def __len__(self) -> int:
        return len(self._tips)

    def expect(self, stream: StreamId, expected: int) -> Tip:
        """Return the tip of *stream*, which must be at version *expected*.

        Raises:
            UsageError: the stream was not loaded.
            ConcurrencyError: it is at another version.
        """
        tip = self._tips.get(stream)
        if tip is None:
            raise UsageError(f"stream {stream} was not loaded: call `await log.load([(stream, schema)])` before")
        if tip.version != expected:
            raise ConcurrencyError(stream=stream, expected=expected, actual=tip.version)
        return tip

    def waiting(self, names: Iterable[str]) -> list[Ticket]:
        """Return the tickets on which a load of *names* must wait, to see what was appended before it."""
        known = [tip.ticket for name in names if (tip := self._tips.get(name)) is not None]
        return [ticket for ticket in {*known, self._forgotten} if ticket is not None and not ticket.is_settled]

    @contextmanager
    def loading(self, names: Iterable[str]) -> Generator[Loading]:
        """Watch for a `forget` of one of *names* while the block runs."""
        loading = Loading(frozenset(names))
        self._loads.add(loading)
        try:
            yield loading
        finally:
            self._loads.discard(loading)

    def adopt(self, stream: StreamId, tip: Tip) -> None:
        """Keep *tip* as it was read, unless the stream has one: that one is as new or newer."""
        self._tips.setdefault(stream, tip)

    def forget(self, names: Iterable[str]) -> None:
        """Drop the tips of *names*."""
        names = frozenset(names)
        for loading in self._loads:
            loading.is_stale = loading.is_stale or not loading.names.isdisjoint(names)
        dropped = [tip for name in names if (tip := self._tips.pop(name, None)) is not None]
        waiting = [tip.ticket for tip in dropped if tip.ticket is not None and not tip.ticket.is_settled]
        if self._forgotten is not None:
            waiting.append(self._forgotten)
        # Tickets settle in the order of positions: the newest stands for all.
        self._forgotten = max(waiting, key=lambda ticket: ticket.position, default=None)
