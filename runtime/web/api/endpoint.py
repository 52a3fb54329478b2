"""One line of the table of endpoints, and what its function is given. It decides nothing about who may ask.

Invariant: whatever is known of an endpoint stands here once; the routes, the checks of what comes in and the
description of the API are all made from it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from perdure.runtime.web.api.limits import ApiLimits
from perdure.runtime.web.api.roles import Caller, Role

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.web.api.waiting import Waiting

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
BYTES: Final = "application/octet-stream"

RunName: TypeAlias = Annotated[
    str, Meta(pattern="^[!-~]{1,128}$", description="1 to 128 printable ASCII characters without a space")
]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
"""Of whatever else a path or a body names."""

PATH_TYPES: Final[dict[str, Any]] = {
    "run": RunName,
    "conversation": Annotated[str, Meta(pattern="^[!-~]{1,60}$")],
    "question": Annotated[str, Meta(min_length=1, max_length=1200)],
    "sha256": Annotated[str, Meta(pattern="^[0-9a-f]{64}$")],
}
"""The types of the names in paths; `Name` where it is not here. A `/` in one is written `%2F`."""


class Call(msgspec.Struct, frozen=True, eq=False):
    """A request that was let in, with everything that it says read and checked."""

    rt: "Runtime"
    caller: Caller
    request: Request
    waiting: "Waiting"
    limits: ApiLimits
    path: dict[str, str]
    query: Any = None
    body: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What an endpoint answers: a value that is encoded as its table line says."""

    value: Any
    status: int = 200
    headers: dict[str, str] = {}


Does: TypeAlias = Callable[[Call], Awaitable[Answer | Response]]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table."""

    method: str
    path: str
    """With names in braces: `/v1/runs/{run}`."""
    id: str
    """The operation's id in the description, for ever: generated clients name their methods by it."""
    does: Does
    summary: str
    role: Role
    answers: dict[int, Any]
    """The type of the body by status."""
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    refusals: tuple[int, ...] = ()
    """Statuses of problems that this endpoint has beside those that all have."""
    media_type: str = JSON
    headers: dict[str, str] = {}
    """Headers of a request that it reads, each with what it says."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the path, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
