"""The table of endpoints, and which of them a request is for. Pure.

Invariant: no two lines fit one request; names in a path stand for one part of it each, whatever characters it has.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from perdure.runtime.web.api.endpoint import Endpoint
from perdure.runtime.web.api.entries import ENTRIES
from perdure.runtime.web.api.events import EVENTS
from perdure.runtime.web.api.looking import LOOKING
from perdure.runtime.web.api.questions import QUESTIONS
from perdure.runtime.web.api.runs import RUNS
from perdure.runtime.web.api.sharing import SHARING

TABLE: Final[tuple[Endpoint, ...]] = (*RUNS, *QUESTIONS, *ENTRIES, *SHARING, *EVENTS, *LOOKING)


class Found(msgspec.Struct, frozen=True):
    """The endpoint that a request is for, and the parts of its path that are names, as they were sent."""

    endpoint: Endpoint
    parts: tuple[str, ...]


class Routes:
    """Finds endpoints by method and path."""

    def __init__(self, endpoints: Iterable[Endpoint] = TABLE) -> None:
        self._lines = [(tuple(one.path.split("/")[1:]), one) for one in endpoints]

    def find(self, method: str, path: str) -> Found | tuple[str, ...]:
        """Return the endpoint for a method and a path as it was sent, percent-encoded.

        Where there is none: the methods that there are for that path, none for one that is not known.
        """
        parts = tuple(path.split("/")[1:])
        fitting = [(shape, one) for shape, one in self._lines if _fits(shape, parts)]
        exact = max((sum(not part.startswith("{") for part in shape) for shape, _ in fitting), default=0)
        methods: list[str] = []
        for shape, one in fitting:
            if sum(not part.startswith("{") for part in shape) < exact:
                continue  # `/v1/events/stream` is no name where it is a path of its own
            if one.method == method:
                names = tuple(given for part, given in zip(shape, parts, strict=True) if part.startswith("{"))
                return Found(one, names)
            methods.append(one.method)
        return tuple(methods)


def _fits(shape: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if len(shape) != len(parts):
        return False
    return all(part.startswith("{") or part == given for part, given in zip(shape, parts, strict=True)) and all(parts)
