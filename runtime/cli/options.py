"""Options that several commands share, and the values they take."""

import getpass
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from perdure.actors.kernel.clock import micros_of
from perdure.runtime.cli.exits import Exit, Failure
from perdure.store.errors import StoreError, UsageError
from perdure.store.location import check_file, checked_path

F = TypeVar("F", bound=Callable[..., Any])

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d|w)")
_MOST: Final = 2**63 - 1
_LONGEST: Final = 10**17
"""Some three thousand years in microseconds: longer ago than any log."""
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


class Moment(click.ParamType[int]):
    """A time: `2026-11-21T08:15:02`, local or with an offset, a date, or how long ago: `90s`, `10m`, `2h`, `3d`."""

    name = "time"

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        self._now = now

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time in microseconds since 1970 UTC."""
        if isinstance(value, int):
            return value
        if ago := _AGO.fullmatch(value):
            length = min(int(float(ago[1]) * _SECONDS[ago[2]] * 1_000_000), _LONGEST)
            return micros_of(self._now().astimezone()) - length
        try:
            return micros_of(datetime.fromisoformat(value).astimezone())
        except (ValueError, OverflowError):
            how = "write 2026-11-21T08:15:02, or how long ago: 90s, 10m, 2h, 3d"
            self.fail(f"{value!r} is not a time: {how}", param, ctx)


class LogFile(click.Path):
    """The path of a log, existing or to be made; one that cannot be a log is refused before anything is done."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        try:
            check_file(checked_path(value))
        except (StoreError, UsageError) as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


class Number(click.IntRange):
    """A whole number; one that is larger than any position, or any count, stands for the largest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, which fits what SQLite takes."""
        return min(super().convert(value, param, ctx), _MOST)


def db_option(function: F) -> F:
    """Add `--db`, which must be given."""
    return click.option(
        "--db", type=LogFile(), required=True, envvar="PERDURE_DB", show_envvar=True,
        metavar="FILE", help="The log.",
    )(function)  # fmt: skip


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")(function)


def who_option(function: F) -> F:
    """Add `--who`."""
    return click.option("--who", default=login, show_default="the login name", metavar="NAME", help="Who says so.")(
        function
    )


def login() -> str:
    """Return the login name.

    Raises:
        Failure: there is none.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise Failure("nobody is logged in under a name: say who, --who NAME", Exit.USAGE) from error
