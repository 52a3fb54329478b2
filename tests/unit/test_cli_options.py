"""Times as people write them, and the exit codes of errors."""

from datetime import UTC, datetime

import click
import pytest

from perdure.actors.tools.errors import InvalidArgumentsError
from perdure.actors.workflows.errors import RunBlockedError, RunConflictError, RunFailedError, UnknownRunError
from perdure.runtime.cli.exits import EXPLAINED, Exit, code_of
from perdure.runtime.cli.options import Moment
from perdure.store.errors import (
    CorruptLogError,
    LogNotFoundError,
    LogWriteError,
    NotALogError,
    PerdureError,
    StoreLockedError,
    UsageError,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def moment(text: str) -> int:
    return Moment(lambda: NOON).convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("10min", 600), ("1.5h", 5400), ("3d", 259_200), ("1w", 604_800)]
)
def test_how_long_ago_is_counted_from_now(text: str, seconds: int) -> None:
    assert moment(text) == int(NOON.timestamp() - seconds) * 1_000_000


def test_a_time_with_an_offset_is_that_time() -> None:
    assert moment("2026-11-21T13:00:00.000005+01:00") == int(NOON.timestamp()) * 1_000_000 + 5


def test_a_time_without_an_offset_is_local() -> None:
    local = NOON.astimezone().replace(tzinfo=None).isoformat()

    assert moment(local) == int(NOON.timestamp()) * 1_000_000


@pytest.mark.parametrize("text", ["yesterday", "10", "2026-13-01", ""])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2026-11-21T08:15:02"):
        moment(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreLockedError(path="a", owner="b", pid=1), Exit.OWNED),
        (UsageError("no"), Exit.USAGE),
        (LogNotFoundError(path="a"), Exit.USAGE),
        (NotALogError(path="a", detail=""), Exit.USAGE),
        (UnknownRunError(run="x"), Exit.USAGE),
        (InvalidArgumentsError(tool="t", reason=""), Exit.USAGE),
        (RunConflictError(run="x", workflow="w", difference=""), Exit.USAGE),
        (RunFailedError(run="x", error_type="", error=""), Exit.RUN),
        (RunBlockedError(run="x", kind="", account=""), Exit.RUN),
        (CorruptLogError(path="a", position=1, detail=""), Exit.FAILED),
        (LogWriteError(detail=""), Exit.FAILED),
    ],
)
def test_an_error_has_the_exit_code_of_what_its_caller_does_next(error: PerdureError, code: Exit) -> None:
    assert code_of(error) is code


def test_every_exit_code_but_that_of_sigterm_has_a_line_of_its_own_in_the_help() -> None:
    assert set(Exit) - set(EXPLAINED) == {Exit.TERMINATED}
    assert "143" in EXPLAINED[Exit.INTERRUPTED]
