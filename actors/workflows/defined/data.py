"""The data of a workflow: dotted paths into them, mappings to and from steps. Pure: what is given is never changed.

A path is keys with dots between them; a number is a place in a list; `.` alone is the whole; a dot or a backslash in a
key is written with a backslash before it. Invariant: what comes out shares no object with what went in.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec

from perdure.actors.workflows.defined.errors import DataPathError
from perdure.actors.workflows.defined.wording import kind_of

WHOLE = "."

MISSING = msgspec.UNSET
"""What is found where nothing is."""

LONGEST_PATH = 200
"""Characters of a path: far more than people write."""


@lru_cache(maxsize=1024)
def segments(path: str) -> tuple[str, ...]:
    """Return the keys on a path.

    Raises:
        ValueError: a key is empty, or the path is too long; says which.
    """
    if path == WHOLE:
        return ()
    if len(path) > LONGEST_PATH:
        raise ValueError(f"a path has at most {LONGEST_PATH} characters")
    key, characters = "", iter(path)
    keys: list[str] = []
    for character in characters:
        if character == "\\":
            key += next(characters, "\\")
        elif character == ".":
            keys.append(key)
            key = ""
        else:
            key += character
    keys.append(key)
    if not all(keys):
        raise ValueError(f"{path!r} has an empty key: write `a.b`, or `.` for the whole")
    return tuple(keys)


def look_up(data: Any, path: str) -> Any:
    """Return what is at *path* in *data* (not a copy of it), or `MISSING`.

    Raises:
        ValueError: it is no path.
    """
    found = data
    for key in segments(path):
        if isinstance(found, dict):
            found = cast("dict[str, Any]", found).get(key, MISSING)
        elif isinstance(found, list):
            items = cast("Sequence[Any]", found)
            number = _place(key)
            found = items[number] if number is not None and number < len(items) else MISSING
        else:
            return MISSING
        if found is MISSING:
            return MISSING
    return found


def _place(key: str) -> int | None:
    return int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else None  # noqa: PLR2004 - no list is longer


def copied(value: Any) -> Any:
    """Return a copy of JSON data that shares nothing that can be changed with them."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [copied(each) for each in cast("Sequence[Any]", value)]
    return value


def taken(mapping: Mapping[str, str], data: Any) -> dict[str, Any]:
    """Return what a mapping (key ← path) takes from *data*; what is not there is left out, so it may be empty.

    Raises:
        ValueError: a path is none.
    """
    found = {key: look_up(data, path) for key, path in mapping.items()}
    return {key: copied(value) for key, value in found.items() if value is not MISSING}


def sent(mapping: Mapping[str, str], constants: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return what a step sends: its constants, and over them what its mapping takes, or all *data* without one.

    A mapping whose keys are all missing takes nothing; it never falls back to all data.
    """
    return {**copied(dict(constants)), **(taken(mapping, data) if mapping else copied(data))}


def with_results(data: dict[str, Any], mapping: Mapping[str, str], result: Any) -> dict[str, Any]:
    """Return *data* with what a mapping (path in the result → path in the data) takes from *result*.

    What is not in the result changes nothing. Objects on the way are made where there are none.

    Raises:
        DataPathError: there is something on the way that is neither an object nor a list, or a place that a list has
            not.
        ValueError: a path is none.
    """
    changed: Any = data
    for source, target in mapping.items():
        value = look_up(result, source)
        if value is not MISSING:
            changed = _put(changed, segments(target), copied(value), target)
    if not isinstance(changed, dict):
        raise DataPathError(path=WHOLE, reason=f"the data would be {kind_of(changed)}, and not an object")
    return cast("dict[str, Any]", copied(changed) if changed is data else changed)


def _put(data: Any, keys: tuple[str, ...], value: Any, path: str) -> Any:
    """Return a copy of *data* with *value* at the end of *keys*."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if data is MISSING or isinstance(data, dict):
        there: dict[str, Any] = {} if data is MISSING else cast("dict[str, Any]", data)
        kept = {name: copied(each) for name, each in there.items() if name != key}
        put = _put(there.get(key, MISSING), rest, value, path)
        # Where it was before if it was there, so that the order of keys does not change with the value.
        return {name: put if name == key else kept[name] for name in there} if key in there else {**kept, key: put}
    if isinstance(data, list):
        items, number = cast("Sequence[Any]", data), _place(key)
        if number is None or number >= len(items):
            raise DataPathError(path=path, reason=f"the list there has {len(items)} items, and none at {key!r}")
        return [_put(each, rest, value, path) if n == number else copied(each) for n, each in enumerate(items)]
    raise DataPathError(path=path, reason=f"{kind_of(data)} is before {key!r}")
