"""docs/cli.md names every command, option and exit code, docs/log.md every event and each of its fields."""

from pathlib import Path
from typing import Any

import click
import pytest

from perdure.actors.slots.slot import SlotBehavior
from perdure.actors.slots.trajectory import TrajectoryBehavior
from perdure.actors.state.conversation import ConversationBehavior
from perdure.actors.state.goal import GoalBehavior
from perdure.actors.state.shared_state import SharedStateBehavior
from perdure.actors.tools.tool import ToolBehavior
from perdure.actors.triggers.entry_point import EntryPointBehavior
from perdure.actors.triggers.listing import ListingBehavior
from perdure.actors.triggers.schedule import ScheduleBehavior
from perdure.actors.triggers.subscription import SubscriptionBehavior
from perdure.actors.triggers.topic import TopicBehavior
from perdure.actors.workflows.events import RUN_EVENTS
from perdure.runtime.cli import perdure
from perdure.runtime.cli.artifacts import artifacts
from perdure.runtime.cli.breakers import breakers
from perdure.runtime.cli.commands import COMMANDS
from perdure.runtime.cli.exits import Exit
from perdure.runtime.cli.schedules import schedules
from perdure.runtime.cli.slots import slots
from perdure.runtime.web.api.table import TABLE

REFERENCE = Path(__file__).parent.parent / "docs" / "cli.md"
LOG_REFERENCE = REFERENCE.with_name("log.md")


def command_of(name: str) -> click.Command:
    """The command as it is when somebody calls it."""
    found = perdure.get_command(click.Context(perdure), name)
    assert found is not None
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_and_each_of_its_options_stands_in_the_reference(command: str) -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    options = {name for option in command_of(command).params for name in option.opts if name.startswith("--")}

    _, found, text = reference.partition(f"\n## {command}\n")
    section = text.partition("\n## ")[0]

    assert found
    assert sorted(name for name in options - {"--db"} if name not in section) == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_list_of_commands_says_of_each_what_it_says_itself(command: str) -> None:
    found = command_of(command)

    assert (found.name, found.short_help) == (command, COMMANDS[command][1])


def test_every_exit_code_stands_in_the_reference() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")

    assert [code for code in Exit if f"\n| {code.value} | " not in reference] == []


GROUPS = (breakers, schedules, slots, artifacts)


@pytest.mark.parametrize(
    ("group", "command"), [(group.name or "", name) for group in GROUPS for name in sorted(group.commands)]
)
def test_every_subcommand_and_each_of_its_options_stands_in_the_reference(group: str, command: str) -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    section = reference.partition(f"\n## {group}\n")[2].partition("\n## ")[0]
    found = next(each for each in GROUPS if each.name == group).commands[command]
    options = {name for option in found.params for name in option.opts if name.startswith("--")}

    assert f"{group} {command}" in section or f"|{command}" in section
    assert sorted(name for name in options - {"--db"} if name not in section) == []


EVENTS = [
    *ConversationBehavior.events,
    *TopicBehavior.events,
    *SubscriptionBehavior.events,
    *ListingBehavior.events,
    *ScheduleBehavior.events,
    *ToolBehavior.events,
    *RUN_EVENTS,
    *SlotBehavior.events,
    *TrajectoryBehavior.events,
    *SharedStateBehavior.events,
    *GoalBehavior.events,
    *EntryPointBehavior.events,
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_and_each_of_its_fields_stands_in_the_reference(event: Any) -> None:
    reference = LOG_REFERENCE.read_text(encoding="utf-8")
    tag = event.__struct_config__.tag

    (row,) = [line for line in reference.splitlines() if line.startswith(f"| `{tag}` |")]

    assert [field for field in event.__struct_fields__ if f"`{field}`" not in row.split("|")[2]] == []


def test_every_endpoint_of_the_http_api_stands_in_its_reference_with_its_role() -> None:
    reference = (Path(__file__).resolve().parent.parent / "docs" / "http-api.md").read_text(encoding="utf-8")

    assert [one.id for one in TABLE if f"| `{one.method} {one.path}` | {one.role} | " not in reference] == []
