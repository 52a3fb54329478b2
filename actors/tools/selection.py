"""Choosing among those who can do something: by capabilities, avoiding open circuits. Pure."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """Somebody who might be chosen, in the order of registration."""

    name: str
    capabilities: frozenset[str]
    is_available: bool = True
    """Whether a call would be let through now."""


def find(candidates: Iterable[Candidate], required: AbstractSet[str], *, partial: bool = False) -> list[Candidate]:
    """Return those who have all that is *required*, or with *partial* any of it; the better match comes first."""
    matches = [(len(required & c.capabilities), c) for c in candidates]
    least = 1 if partial else len(required)
    fit = [(hits, c) for hits, c in matches if hits >= least]
    return [c for _, c in sorted(fit, key=lambda match: -match[0])]


def select_best(candidates: Sequence[Candidate], required: AbstractSet[str], *, partial: bool = False) -> str | None:
    """Return the name of the best match, or None.

    One whose circuit is open is chosen only if there is no other. On ties the first one registered is.
    """
    found = find(candidates, required, partial=partial)
    usable = [c for c in found if c.is_available] or found
    return usable[0].name if usable else None
