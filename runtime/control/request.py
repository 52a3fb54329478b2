"""What every request between a connection and the owner is: a tagged struct, and for most of them a method's name.

Not here: the requests themselves (`messages.py`, `words.py`). Invariant: a tag is for ever, and a method is named by
the owner's own table, never by whoever sends.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

Names: TypeAlias = str | list[str]
"""One name, or several."""


class Request(msgspec.Struct, frozen=True, tag_field="verb"):
    """Base of the requests; a tag is for ever."""


class Word(Request, frozen=True):
    """Base of those that stand for one method: their fields are its arguments."""


class Meaning(msgspec.Struct, frozen=True, eq=False):
    """Which method of the runtime a word stands for, and what comes back."""

    method: str
    """Its name on the runtime: `waiting`, or of a facet `goals.list`."""
    answer: Any
    """The type of the answer."""
    told: Callable[[Any], Any] | None = None
    """What is told of the answer, where it is code that stays with the owner."""
