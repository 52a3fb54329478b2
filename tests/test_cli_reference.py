"""docs/cli.md names every command, every option and every exit code."""

from pathlib import Path

import pytest

from perdure.runtime.cli import perdure
from perdure.runtime.cli.exits import Exit

REFERENCE = Path(__file__).parent.parent / "docs" / "cli.md"


@pytest.mark.parametrize("command", sorted(perdure.commands))
def test_every_command_and_each_of_its_options_stands_in_the_reference(command: str) -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    options = {name for option in perdure.commands[command].params for name in option.opts if name.startswith("--")}

    _, found, text = reference.partition(f"\n## {command}\n")
    section = text.partition("\n## ")[0]

    assert found
    assert sorted(name for name in options - {"--db"} if name not in section) == []


def test_every_exit_code_stands_in_the_reference() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")

    assert [code for code in Exit if f"\n| {code.value} | " not in reference] == []
