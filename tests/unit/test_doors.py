"""The doors to a runtime: docs/doors.md says of every public word where it is, and it is there, facet by facet."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from perdure import (
    Agents,
    BlockingRuntime,
    Connection,
    Conversation,
    Conversations,
    EntryPoints,
    Events,
    Goals,
    Runtime,
    Schedules,
    SharedState,
    connect,
)
from perdure.runtime import blocking_facets as blocking
from perdure.runtime import blocking_runs
from perdure.runtime.cli import perdure as command_line
from perdure.runtime.control import facets, meanings, words
from perdure.runtime.control.entries import OwnersEntryPoints
from perdure.runtime.control.request import Word
from perdure.runtime.control.schedules import OwnersSchedules
from perdure.runtime.control.state import OwnersState
from perdure.runtime.options import Options
from perdure.runtime.sagas import Sagas
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.runtime.web.api.table import TABLE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "doors.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in re.findall(r"^\| `.*", PAGE, re.MULTILINE)
    for cells in [[cell.strip() for cell in line.strip("| ").split(" | ")]]
}
PLUMBING = set(re.findall(r"`(\w+)`", PAGE.partition("Not in the table")[2]))
MACHINERY = {"abandon", "close", "interpreters", "log_failed", "open", "book", "has", "opened", "figures_of"}
"""What a facet has for the runtime that it is part of, not for those who ask."""
FOR_ANOTHER_DOOR = {"changed", "held", "looked", "recent_changes_json", "through", "check"}


def words_of(kind: Any) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_word_of_a_runtime_is_in_the_table_or_named_as_plumbing(tmp_path: Path) -> None:
    public = words_of(Runtime(tmp_path / "x.db"))

    assert ROWS.keys() | PLUMBING == public
    assert ROWS.keys() & PLUMBING == set()


@pytest.mark.parametrize(("column", "door"), [(0, BlockingRuntime("x.db")), (1, connect("x.db"))])
def test_the_table_says_of_each_word_whether_the_door_has_it(column: int, door: Any) -> None:
    there = words_of(door)
    said = {name for name, cells in ROWS.items() if cells[column].startswith(("yes", "to look"))}

    assert said == there & ROWS.keys()
    assert [name for name, cells in ROWS.items() if not cells[column]] == []


def test_what_the_table_says_of_http_and_of_the_command_line_is_there() -> None:
    operations, commands = {one.id for one in TABLE}, set(command_line.commands)
    known = operations | words_of(Runtime) | {"/ready", "perdure executor-server"}
    said_http = {name for cells in ROWS.values() for name in re.findall(r"`([^`]+)`", cells[2])}
    said_commands = {name for cells in ROWS.values() for name in re.findall(r"`([^`]+)`", cells[3])}

    assert said_http - known == set()
    assert said_commands - commands - {"call", "subscribe", "--db"} == set()
    assert [name for name, cells in ROWS.items() if len(cells) != 4 or not all(cells)] == []


@pytest.mark.parametrize(
    ("facet", "front", "exceptions"),
    [
        (SharedState, blocking.BlockingState, set[str]()),
        (Conversation, blocking.BlockingConversation, set()),
        (Conversations, blocking.BlockingConversations, set()),
        (Goals, blocking.BlockingGoals, set()),
        (Events, blocking.BlockingEvents, set()),
        (EntryPoints, blocking.BlockingEntryPoints, {"fire", "queues", "shared"}),  # the runtime's own
        (Schedules, blocking.BlockingSchedules, set()),
        (Agents, blocking.BlockingAgents, {"items", "keys", "values", "get", "process"}),  # they hold code of the loop
        (Sagas, blocking.BlockingSagas, set()),
        (Trajectory, blocking_runs.BlockingTrajectory, set()),
        (Options, blocking_runs.BlockingOptions, {"values"}),  # what was said
    ],
)
def test_a_facet_blocks_with_every_word_that_it_has(facet: Any, front: Any, exceptions: set[str]) -> None:
    assert words_of(facet) - MACHINERY - FOR_ANOTHER_DOOR - exceptions - words_of(front) == set()
    assert words_of(front) - words_of(facet) - {"id"} == set()


@pytest.mark.parametrize(
    ("facet", "there", "exceptions"),
    [
        (SharedState, OwnersState, set[str]()),
        (Goals, facets.OwnersGoals, {"only"}),  # it returns at once: `only_goal`
        (Events, facets.OwnersEvents, {"list", "position", "subscribe", "unsubscribe"}),  # handlers are of one process
        (EntryPoints, OwnersEntryPoints, {"fire", "queues", "shared", "register", "unregister"}),  # before it is open
        (Schedules, OwnersSchedules, set()),
        (Agents, facets.OwnersAgents, {"items", "keys", "values", "get", "process", "register"}),  # they are code
        (Sagas, facets.OwnersSagas, set()),
    ],
)
def test_a_facet_is_asked_from_another_process_with_every_word_that_it_has(
    facet: Any, there: Any, exceptions: set[str]
) -> None:
    assert words_of(facet) - MACHINERY - FOR_ANOTHER_DOOR - exceptions - words_of(there) == set()
    assert words_of(there) - words_of(facet) - {"request", "encode"} == set()


def test_every_word_of_the_socket_has_one_meaning_and_the_arguments_of_its_method(tmp_path: Path) -> None:
    kinds = set(Word.__subclasses__())
    rt = Runtime(tmp_path / "x.db")

    assert kinds == set(get_args(words.AnyWord)) == meanings.MEANINGS.keys()
    for kind, meaning in meanings.MEANINGS.items():
        first, _, rest = meaning.method.partition(".")
        of = {"executor": "ToolExecutor"}.get(first)
        found: Any = getattr(facets, of) if of else getattr(rt, first)
        method = getattr(found, rest) if rest else found
        taken = inspect.signature(method).parameters
        assert set(kind.__struct_fields__) ^ taken.keys() <= {"self"}, meaning.method


def test_a_connection_and_a_blocking_runtime_take_what_a_runtime_takes() -> None:
    def offered(kind: Any) -> dict[str, list[str]]:
        methods = {name: one for name, one in inspect.getmembers(kind) if name[0] != "_" and inspect.isfunction(one)}
        return {name: list(inspect.signature(one).parameters) for name, one in methods.items()}

    here = offered(Runtime)

    for kind, more in ((Connection, set[str]()), (BlockingRuntime, {"execute"})):  # with an id where there is no loop
        there = offered(kind)
        assert [name for name in there.keys() & here.keys() - more if here[name] != there[name]] == []
