"""Logs as JSON, where whatever is logged is one line and no error; and for people, whose terminal it leaves alone."""

import contextlib
import json
import logging
from collections.abc import Callable, Generator
from typing import Any

import pytest
import structlog

from perdure.runtime.cli.hosting import log_to_stderr
from perdure.runtime.cli.json_lines import log_as_json


class Silent:
    def __repr__(self) -> str:
        raise ValueError("it says nothing")


@contextlib.contextmanager
def logging_by(begin: Callable[[], None]) -> Generator[None]:
    root = logging.getLogger()
    former, root.handlers = root.handlers, []
    structlog.reset_defaults()
    begin()
    try:
        yield
    finally:
        root.handlers = former
        structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.split("\n") if line]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("\x1b[2J\r\nx\u2028", "\x1b[2J\r\nx\u2028"),
        ("half \ud800", "'half \\ud800'"),
        (2**70, 2**70),
        ({"\udfff": 1}, "{'\\udfff': 1}"),
        (Silent(), "<Silent>"),
        (ValueError("x"), "x"),
    ],
)
def test_whatever_is_logged_is_one_line(capsys: pytest.CaptureFixture[str], value: Any, told: Any) -> None:
    with logging_by(log_as_json):
        structlog.get_logger("x").info("said", value=value, other=1)

    (line,) = lines(capsys)
    assert (line["event"], line["value"], line["other"]) == ("said", told, 1)


def test_what_libraries_log_is_told_with_the_error_and_whatever_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_by(log_as_json):
        logging.getLogger("library").log(35, "between two levels")
        try:
            int("why")
        except ValueError:
            logging.getLogger("library").exception("it failed")

    between, failed = lines(capsys)
    assert (between["event"], between["level"], between["logger"]) == ("between two levels", "warning", "library")
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: invalid literal for int() with base 10: 'why'")


def test_what_came_from_outside_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_by(log_to_stderr):
        structlog.get_logger("x").error(
            "it failed", reason="\x1b[2J", exception="Traceback\nValueError: \x1b]0;me\x07\r"
        )

    told = capsys.readouterr().err
    assert "Traceback\nValueError: " in told
    assert not {*told} & {"\x1b", "\x07", "\r"}


def test_an_error_that_is_told_to_people_has_no_value_of_a_variable(capsys: pytest.CaptureFixture[str]) -> None:
    def let_in(password: str) -> int:
        return len(password) // 0

    with logging_by(log_to_stderr):
        try:
            let_in("hunter" + "2")
        except ZeroDivisionError:
            structlog.get_logger("x").exception("it failed")

    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "hunter2" not in told
