"""Loading an application's file by its path, and the input that the command line names.

The file is imported as `python FILE` would see it: its folder first on the path, one copy of it, whoever imports it.
Everything is read before a log is opened: while one is, no file of its may be opened here.
"""

import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, cast

import click
import msgspec

from perdure.actors.state.goal_model import Goal
from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import WorkflowDefinition
from perdure.actors.workflows.defined.registry import Workflows
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.queue import Queue
from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.settings import Settings
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.store.errors import PerdureError, UsageError

FACTORY: Final = "runtime"
"""The function of a file that makes its runtime itself: `def runtime(db: Path) -> Runtime`."""

_KINDS: Final[dict[type, str]] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class Application(msgspec.Struct, frozen=True):
    """What a file brings along."""

    path: Path
    tools: list[Tool[..., Any]]
    workflows: list[Workflow[..., Any]]
    """Functions, and definitions, which have been checked."""
    names: dict[str, Workflow[..., Any]]
    """The workflows by the names that the file gives them, and by those that the log knows."""
    agents: list[Agent] = []
    queues: list[Queue] = []
    functions: dict[str, Callable[..., Any]] = {}
    """What definitions may name as predicates and reducers: the file's functions by their names."""
    entry_points: list[EntryPoint] = []
    goals: list[Goal] = []
    webhooks: list[WebhookRoute] = []
    factory: Callable[[Path], Any] | None = None
    """What makes the runtime in place of Perdure, where the file says how."""

    def served(self, db: Path) -> Runtime:
        """Return the runtime that serves all that the file brings along; it is not open.

        Raises:
            UsageError, InvalidDefinitionError: as `Runtime`; or the file's own function returned something else.
        """
        if self.factory is None:
            settings = Settings(webhook_port=None)  # who serves it serves its webhooks too
            ways: dict[str, Any] = {**self.parts, "entry_points": self.entry_points, "webhooks": self.webhooks}
            return Runtime(db, settings=settings, **ways)
        made: object = self.factory(db)
        if not isinstance(made, Runtime):
            raise UsageError(f"{FACTORY}(db) in {self.path} returns a Runtime that is not open, not {made!r}")
        return made

    @property
    def parts(self) -> dict[str, Any]:
        """What a runtime is to have of it."""
        return {
            "tools": self.tools, "workflows": self.workflows, "agents": self.agents, "queues": self.queues,
            "predicates": self.functions, "reducers": self.functions, "goals": self.goals,
        }  # fmt: skip

    def workflow(self, name: str | None) -> Workflow[..., Any]:
        """Return the workflow of that name; without one, the only one.

        Raises:
            UsageError: there is none, or there are several to choose from.
        """
        there_are = ", ".join(sorted(workflow.name for workflow in self.workflows))
        if not there_are:
            how = "decorate an async function with @workflow, or write a WorkflowDefinition"
            raise UsageError(f"{self.path} has no workflow: {how}")
        if name is None and len(self.workflows) == 1:
            return self.workflows[0]
        if name is None:
            raise UsageError(f"{self.path} has several workflows, say which: {self.path}:NAME, with one of {there_are}")
        if name not in self.names:
            raise UsageError(f"{self.path} has no workflow {name!r}; there are: {there_are}")
        return self.names[name]


def split_target(target: str) -> tuple[Path, str | None]:
    """Return the file and the workflow's name in `FILE.py:workflow`."""
    path, colon, name = target.rpartition(":")
    if not colon or "/" in name or Path(target).is_file():
        return Path(target), None
    return Path(path), name or None


def load(path: Path) -> Application:
    """Import the file at *path* and return what is found in it.

    Tools, workflows, definitions, agents, queues, entry points, goals and webhook routes are found as values of its
    variables, also in lists; a predicate or a reducer that a definition names is the function of that name.

    Raises:
        Failure: there is no such file, its own code raised (the traceback begins in it), or a definition has faults.
    """
    if path.is_dir():
        raise Failure(f"{path.resolve()} is a folder: name a file in it, FILE.py", Exit.USAGE)
    if not path.is_file():
        raise Failure(f"there is no file {path}", Exit.USAGE)
    found = vars(_import(path.resolve()))
    tools: list[Tool[..., Any]] = _distinct(found, Tool)
    agents: list[Agent] = _distinct(found, Agent)
    functions = {name: value for name, value in found.items() if _may_be_named(value)}
    known = Known(
        agents={agent.name: agent for agent in agents},
        tools={tool.name: tool for tool in tools},
        predicates=functions,
        reducers=functions,
    )
    try:
        workflows = Workflows([*_distinct(found, Workflow), *_distinct(found, WorkflowDefinition)], known)
    except PerdureError as error:
        raise Failure(f"{path} cannot be loaded: {error}", Exit.USAGE) from error
    names = dict(workflows) | _by_variable(found, workflows)
    return Application(
        path,
        tools,
        list(workflows.values()),
        names,
        agents,
        queues=_distinct(found, Queue),
        functions=functions,
        entry_points=_distinct(found, EntryPoint),
        goals=_distinct(found, Goal),
        webhooks=_distinct(found, WebhookRoute),
        factory=functions.get(FACTORY),
    )


def _distinct(found: dict[str, Any], kind: type[Any]) -> list[Any]:
    """Return the values of a kind, once each, in the order of the file."""
    return list({id(value): value for value in _values(found) if isinstance(value, kind)}.values())


def _values(found: dict[str, Any]) -> Iterator[Any]:
    for value in found.values():
        yield value
        if isinstance(value, (list, tuple)):
            yield from cast("Sequence[Any]", value)


def _may_be_named(value: Any) -> bool:
    return isinstance(value, FunctionType) and not inspect.iscoroutinefunction(value)


def _by_variable(found: dict[str, Any], workflows: Workflows) -> dict[str, Workflow[..., Any]]:
    """Return the workflows by the variables of the file."""
    by_variable: dict[str, Workflow[..., Any]] = {}
    for name, value in found.items():
        if isinstance(value, (Workflow, WorkflowDefinition)):
            known_as = value.id if isinstance(value, WorkflowDefinition) else value.name
            by_variable[name] = workflows[known_as]
    return by_variable


def _import(path: Path) -> ModuleType:
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Failure(f"{path} is not a Python file: its name ends with .py", Exit.USAGE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PerdureError as error:
        raise Failure(f"{path} cannot be loaded: {error}", Exit.USAGE) from error
    except SyntaxError as error:
        raise Failure(f"{error.filename}:{error.lineno}: {error.msg}", Exit.USAGE) from error
    except Exception as error:
        click.echo("".join(_own_frames(error, path)), err=True, nl=False)
        raise Failure(f"{path} cannot be loaded: {type(error).__name__}: {error}", Exit.FAILED) from error
    return module


def _module_name(path: Path) -> str:
    """Return the name under which other files of the application import this one, so that there is one copy of it."""
    name = path.stem
    return name if name.isidentifier() and name not in sys.modules else f"perdure_file_{name}"


def _own_frames(error: BaseException, path: Path) -> list[str]:
    """Return the traceback of *error* from the file on: what imported it is no business of its author."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(path):
        frames = frames.tb_next
    return traceback.format_exception(type(error), error, frames)


def read_input(given: str | None, db: Path) -> dict[str, Any]:
    """Return a workflow's arguments by name from JSON, from `@FILE`, or from stdin (`@-`).

    Raises:
        Failure: the file is not there; the JSON is none, with the place; or it is no object.
    """
    if given is None:
        return {}
    text, source = _read(given, db)
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{source} is not JSON: {_place(text, error)}", Exit.USAGE) from error
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "a number")
        raise Failure(f'{source} is {kind}: write an object with the arguments by name, {{"name": …}}', Exit.USAGE)
    return cast("dict[str, Any]", value)  # JSON has no other keys


def read_json(given: str, option: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        Failure: it is none, with the place.
    """
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError as error:
        what = "the value" if option == "JSON" else option
        hint = "; a text stands in quotes of its own: '\"text\"'" if given.isidentifier() else ""
        raise Failure(f"{what} is not JSON: {_place(given, error)}{hint}", Exit.USAGE) from error


def _read(given: str, db: Path) -> tuple[str | bytes, str]:
    if not given.startswith("@"):
        return given, "--input"
    if given == "@-":
        return sys.stdin.buffer.read(), "the input on stdin"
    path = Path(given[1:])
    if path.resolve() == db.resolve():
        raise Failure(f"{path} is the log itself: name a file with JSON", Exit.USAGE)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from error


def _place(text: str | bytes, error: Exception) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as found:
        return f"{found.msg} at line {found.lineno}, column {found.colno}"
    except (UnicodeDecodeError, RecursionError):
        pass
    return str(error)
