"""What a tool may know of the call that it is made for, and when that call is given up.

It says nothing of the tool. Invariant: what is here is data of one attempt, and no part of the tool's schema.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.kernel.logs import logger

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


class ToolContext(msgspec.Struct, frozen=True):
    """What a tool may know of the call: declare a parameter of this type to get it. Never part of the schema.

    As the first parameter it is no part of the call's type either, so that a checker knows what is left to give.
    """

    call_id: str
    tool: str
    idempotency_key: str
    """The same for every attempt of one call, before and after a crash."""
    attempt: int
    run_id: str | None = None
    trajectory: str | None = None
    """The calls that this one belongs with: the conversation if there is one, the run otherwise."""
    deadline: datetime | None = None
    """When the call is given up (UTC, on the runtime's clock): at its timeout, or when the run's time is up."""
    principal: str | None = None
    """Who asked for the run or the call, as they were named when they did."""

    @property
    def logger(self) -> "FilteringBoundLogger":
        """A structlog logger bound to the call."""
        bound = {
            "call_id": self.call_id,
            "tool": self.tool,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "trajectory": self.trajectory,
        }
        known = {name: value for name, value in bound.items() if value is not None}
        return logger("perdure.tool").bind(**known)


def call_deadline(now: int, timeout: timedelta | None, run_deadline: int | None = None) -> datetime | None:
    """Return when a call that begins *now* is given up, by its own limit or by its run's; None: never."""
    own = None if timeout is None else now + timeout // timedelta(microseconds=1)
    ends = [end for end in (own, run_deadline) if end is not None]
    return _EPOCH + timedelta(microseconds=min(*ends, _LAST)) if ends else None
