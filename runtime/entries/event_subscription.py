"""What an application has of a subscription: its handle, and the rules of what it may be called.

Not here: the subscriptions of a runtime (`events.py`), and their work (`deliveries.py`).
"""

from typing import Any, Final, Protocol, cast

from perdure.actors.tools.retry import Retry
from perdure.actors.triggers.kinds import After
from perdure.actors.triggers.matching import EventFilter
from perdure.actors.triggers.subscription import LIVE, subscription_stream
from perdure.runtime.entries.delivering import SubscriptionStatistics
from perdure.runtime.entries.handling import EventHandler
from perdure.store.errors import UsageError

NAME_LENGTH: Final = 100


class Home(Protocol):
    """Where a subscription belongs: the events of its runtime."""

    def has(self, subscription: "EventSubscription") -> bool:
        """Return whether it has not ended."""
        ...

    def unsubscribe(self, subscription: "EventSubscription | str") -> bool:
        """End it."""
        ...

    async def opened(self, subscription: "EventSubscription") -> None:
        """Return once it is in the log."""
        ...

    def figures_of(self, subscription: "EventSubscription") -> SubscriptionStatistics:
        """Return its figures."""
        ...


class EventSubscription:
    """What `subscribe` returns."""

    __slots__ = ("_home", "handler", "id", "name", "retry", "since", "wanted")

    def __init__(
        self,
        home: "Home",
        *,
        id: str,
        name: str | None,
        handler: EventHandler,
        wanted: EventFilter,
        retry: Retry,
        since: After,
    ) -> None:
        self._home = home
        self.id = id
        """What it is called: its name, or `sub_1`, `sub_2`, …"""
        self.name = name
        self.handler = handler
        self.wanted = wanted
        """What it asks for."""
        self.retry = retry
        self.since: After = since

    def __repr__(self) -> str:
        return f"<EventSubscription {self.id} {', '.join(self.wanted.tags)}>"

    @property
    def is_active(self) -> bool:
        """Whether its handler is given events, or will be once the runtime is open."""
        return self._home.has(self)

    def unsubscribe(self) -> bool:
        """Give the handler no further event; False when it was taken off before. See `Events.unsubscribe`."""
        return self._home.unsubscribe(self)

    async def opened(self) -> "EventSubscription":
        """Return once it is in the log: from here on a crash makes it miss nothing.

        Raises:
            LogWriteError, BacklogFullError: the log refused.
            UsageError: the runtime is not open.
        """
        await self._home.opened(self)
        return self

    @property
    def statistics(self) -> SubscriptionStatistics:
        """Its figures, since this process subscribed."""
        return self._home.figures_of(self)


def check_after(after: After) -> None:
    """Check from where on somebody asks.

    Raises:
        UsageError: it is no place.
    """
    if after not in ("now", "start") and (type(after) is not int or after < 0):
        raise UsageError(f"after is 'now', 'start' or a position of the log, not {after!r}")


def check_name(name: str) -> None:
    """Check what a subscription is to be called.

    Raises:
        UsageError: it cannot be.
    """
    given = cast("Any", name)  # not every caller is checked
    is_name = isinstance(given, str) and 0 < len(given) <= NAME_LENGTH and all("!" <= c <= "~" for c in given)
    if not is_name or name == LIVE or name.startswith(("sub_", "wait_")):
        shape = f"1 to {NAME_LENGTH} printable ASCII characters without a space, not '-', and does not begin with sub_"
        raise UsageError(f"a subscription's name is {shape}, not {name!r}")
    subscription_stream(name)
