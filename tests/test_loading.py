"""What is loaded when: no time is measured, since what is not loaded costs none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
from perdure.runtime.cli.commands import COMMANDS

FACADE = Path(__file__).parent.parent / "runtime" / "facade" / "__init__.py"

ALL_OF_IT = ("perdure.runtime.app", "perdure.actors.workflows.context", "perdure.runtime.sandbox.executor")
"""What runs workflows, in slots or not."""
SLOW = ("structlog", "rich", "tarfile", "ssl", "asyncio", "aiosqlite", "pykka", "cronsim", "starlette", "uvicorn")
"""Packages of others that take long to load, or bring much along."""


def loaded_by(program: str) -> set[str]:
    """The modules that *program* leaves loaded in a Python of its own."""
    shown = f"{program}\nimport sys\nprint('\\n'.join(sys.modules), file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def command(*arguments: str) -> str:
    return f"from perdure.runtime.cli import main\ntry:\n    main({list(arguments)})\nexcept SystemExit:\n    pass"


def test_the_package_alone_loads_nothing_of_itself() -> None:
    loaded = loaded_by("import perdure")

    assert {name for name in loaded if name.startswith("perdure.")} == set()
    assert loaded.isdisjoint({*SLOW, "msgspec"})


def test_a_runtime_loads_neither_what_shows_things_nor_what_serves_them() -> None:
    loaded = loaded_by("from perdure import Context, Runtime, tool, workflow")

    assert loaded.isdisjoint({"structlog", "rich", "click", "tarfile", "cronsim", "starlette", "uvicorn", "httpx2"})
    assert loaded.isdisjoint({"perdure.runtime.sandbox.local", "perdure.runtime.web.api.application"})


@pytest.mark.parametrize("arguments", [("--help",), ("log", "--db", "none.db"), ("ps", "--db", "none.db")], ids=str)
def test_a_command_that_only_looks_loads_no_runtime(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(command(*arguments))

    assert loaded.isdisjoint({*ALL_OF_IT, *SLOW} - {"rich", "asyncio", "ssl"})


def test_help_loads_no_command() -> None:
    loaded = loaded_by(command("--help"))

    assert loaded.isdisjoint({f"perdure.runtime.cli.{module}" for module, _ in COMMANDS.values()})


def test_every_public_name_is_found_where_checkers_are_told_that_it_is() -> None:
    (types,) = (
        node
        for node in ast.parse(FACADE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    told = {a.name: node.module for node in types.body if isinstance(node, ast.ImportFrom) for a in node.names}

    assert told == dict(perdure._HOME)
    assert sorted(told) == sorted(perdure.__all__)
    assert [name for name in perdure.__all__ if getattr(perdure, name, None) is None] == []


def test_a_prompt_completes_names_that_are_not_loaded_yet() -> None:
    assert set(dir(perdure)) >= set(perdure.__all__)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'perdure' has no attribute 'Runtim'"):
        _ = perdure.Runtim  # type: ignore[attr-defined] # that is what is tried
