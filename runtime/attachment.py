"""The port of what works beside the runs of a runtime: subscriptions, schedules, servers. No behaviour.

Invariant: whatever is opened is closed, in the opposite order, while the log still takes events.
"""

from typing import Protocol


class Attachment(Protocol):
    """Something that lives as long as the runtime is open."""

    async def open(self) -> None:
        """Begin; the log, the actors and the runs are there. What it raises closes the runtime again.

        `close` is called after it whether it raised or not.
        """
        ...

    async def close(self) -> None:
        """Take nothing new, end what goes on, leave no task behind. Idempotent."""
        ...

    async def abandon(self) -> None:
        """End as `kill -9` would: at once, recording nothing."""
        ...

    def log_failed(self) -> None:
        """Take note that nothing can be recorded any more; `close` comes later. Must not raise."""
        ...
