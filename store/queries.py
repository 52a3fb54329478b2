"""The SQL of `queries.sql`, by name."""

import functools
import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

_NAMED = re.compile(r"^-- name: (\w+)\n(?:--[^\n]*\n)+(.*?);$", re.DOTALL | re.MULTILINE)


@functools.cache
def queries() -> Mapping[str, str]:
    """Return every statement by its name; the file is read once."""
    return MappingProxyType({name: sql.strip() for name, sql in _NAMED.findall(script("queries"))})


def script(name: str) -> str:
    """Return the text of the SQL file *name* of this package."""
    return resources.files("perdure.store").joinpath(f"{name}.sql").read_text(encoding="utf-8")
