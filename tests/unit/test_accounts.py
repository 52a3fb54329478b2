"""Where an error came from, as the log tells it: the application's own line, whatever libraries lie beneath it."""

import json
from collections.abc import Callable

import pytest

from perdure.actors.kernel.accounts import place_of
from perdure.store.errors import UsageError
from perdure.store.records import Query


def raised_by(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whatever it raises is looked at
        return error
    pytest.fail("it raised nothing")


def divide() -> float:
    return 1 / 0


def test_the_innermost_line_of_the_application_is_told_by_the_name_of_its_file() -> None:
    line = divide.__code__.co_firstlineno + 1

    assert place_of(raised_by(divide)) == f"test_accounts.py:{line} in divide"


def test_lines_of_the_standard_library_and_of_perdure_are_passed_over() -> None:
    for function, kind in ((lambda: json.loads("{"), ValueError), (lambda: Query(limit="x"), UsageError)):  # type: ignore[arg-type] # it is refused
        error = raised_by(function)

        assert isinstance(error, kind)
        assert place_of(error).endswith(f"in {function.__code__.co_qualname}")


def test_an_error_that_no_line_of_the_application_raised_has_no_place() -> None:
    assert place_of(ValueError("never raised")) == ""
