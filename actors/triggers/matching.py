"""Which events of the log somebody wants: names, equal values of a few fields, conditions on the data. Pure.

Not here: what a run waits for, which is recorded with it (`wanted.py`). Invariant: what fits is decided by the event
alone, so that looking back finds what a subscription would have been given.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from perdure.actors.triggers.event_names import all_tags
from perdure.actors.triggers.kinds import several
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.topic import check_type
from perdure.actors.triggers.wanted import Where, checked_where, holds
from perdure.store.errors import UsageError

ANY: Final = "*"
"""Every event."""
KEYS: Final = ("run", "correlation", "node", "stream")
"""Fields that must be equal, the most telling one first."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What fits: one of the tags, every field that is not None equal, and the conditions."""

    tags: tuple[str, ...]
    """As in the log; of published events, their type; `("*",)` is any."""
    stream: str | None = None
    node: str | None = None
    run: str | None = None
    correlation: str | None = None
    where: Where | None = None
    not_stream: str | None = None
    """Whose events do not fit: those of an entry point that would start itself."""

    @classmethod
    def of(
        cls,
        types: str | Iterable[str],
        *,
        stream: str | None = None,
        node: str | None = None,
        run: str | None = None,
        correlation: str | None = None,
        where: Where | None = None,
        not_stream: str | None = None,
    ) -> "EventFilter":
        """Return what a caller wants, checked; an empty text asks for nothing, as None does.

        Raises:
            UsageError: no types, or something that is no type; conditions with faults.
        """
        tags = all_tags(checked_types(types))
        if where is not None:
            checked_where(where, "the events")
        return cls(
            tags=(ANY,) if ANY in tags else tags,
            stream=stream or None,
            node=node or None,
            run=run or None,
            correlation=correlation or None,
            where=where or None,
            not_stream=not_stream or None,
        )

    def fits(self, event: LogEvent) -> bool:
        """Return whether *event* is wanted."""
        return (
            (event.type in self.tags or self.tags[0] == ANY)
            and self.run in (None, event.run)
            and self.correlation in (None, event.correlation)
            and self.node in (None, event.node)
            and self.stream in (None, event.stream)
            and (self.not_stream is None or event.stream != self.not_stream or _is_from_outside(event))
            and (self.where is None or holds((self.where,), event.data))
        )

    @property
    def key(self) -> tuple[str, Any]:
        """The field that must be equal to something, and that value, by which the filter is found; ("", None): none."""
        return next(((name, value) for name in KEYS if (value := getattr(self, name)) is not None), ("", None))


def _is_from_outside(event: LogEvent) -> bool:
    # A webhook's source may be called as an entry point is: what no run published is not the entry point's own.
    return event.is_published and event.run is None


def checked_types(types: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names that a caller gave, `"order.paid"` or a sequence of them.

    Raises:
        UsageError: there is none, or something else.
    """
    named = several(types)  # whatever they are: not every caller is checked
    if not named or not all(isinstance(one, str) and one for one in named):
        raise UsageError(f"say which events: 'order.paid', ('order.paid', 'run-completed'), or '*', not {types!r}")
    for one in named:
        if one != ANY:
            check_type(one)
    return named
