"""The tools of a runtime by name, and which of them may be offered now.

It calls no tool. A tool is available when the variables that it needs are set, and its own check and its toolset's
agree; a check that raises does not agree. Invariant: a name means one tool, unless it was replaced on purpose.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from perdure.actors.kernel.logs import logger
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.errors import UnknownToolError
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

Check: TypeAlias = Callable[[], object]
"""Truthy when a tool or a toolset can be used now; must not block for long."""

_log = logger("perdure.tools")


class Unavailable(msgspec.Struct, frozen=True):
    """A toolset that cannot be used now, and what it lacks."""

    name: str
    missing_env: tuple[str, ...]
    tools: tuple[str, ...]


class Toolset(msgspec.Struct, frozen=True):
    """A named group of tools."""

    name: str
    is_available: bool
    tools: tuple[str, ...]
    description: str
    requires_env: tuple[str, ...]


class _Group(msgspec.Struct, frozen=True):
    description: str = ""
    check: Check | None = None
    requires_env: tuple[str, ...] = ()


@checked_but("register")
class Registry(Mapping[str, Tool[..., Any]]):
    """Tools by name, in the order of their names."""

    def __init__(self, tools: Iterable[Tool[..., Any]] = (), *, environ: Mapping[str, str] = os.environ) -> None:
        self._tools: dict[str, Tool[..., Any]] = {}
        self._groups: dict[str, _Group] = {}
        self._environ = environ
        for tool in tools:
            self.register(tool)

    def __getitem__(self, name: str) -> Tool[..., Any]:
        try:
            return self._tools[name]
        except KeyError:
            raise UnknownToolError(tool=name, known=", ".join(sorted(self._tools)) or "none") from None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a tool by name; asked often, and Mapping's own way is by an exception."""
        return self._tools.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tools))

    def __len__(self) -> int:
        return len(self._tools)

    def register(self, tool: Tool[..., Any], *, replace: bool = False) -> None:
        """Add a tool; the same tool again changes nothing.

        Raises:
            UsageError: another tool has the name and *replace* is not set, or it is not a tool.
        """
        if not isinstance(tool, Tool):  # pyright: ignore[reportUnnecessaryIsInstance] # callers without a checker
            raise UsageError(f"{tool!r} is not a tool: decorate it with @tool")
        known = self._tools.setdefault(tool.name, tool)
        if known is tool:
            return
        if not replace:
            raise UsageError(
                f"two tools are called {tool.name!r}: give one of them another name, @tool(name=…), or say replace=True"
            )
        self._tools[tool.name] = tool

    def in_order(self) -> list[Tool[..., Any]]:
        """Return the tools in the order of their registration."""
        return list(self._tools.values())

    def holds(self, tool: Tool[..., Any]) -> bool:
        """Return whether exactly this tool is registered."""
        return self._tools.get(tool.name) is tool

    def describe_toolset(
        self, name: str, description: str = "", *, check: Check | None = None, requires_env: Iterable[str] = ()
    ) -> None:
        """Say what a toolset is for, and when it can be used; tools join it with `@tool(toolset=…)`.

        Raises:
            UsageError: it was described before.
        """
        if name in self._groups:
            raise UsageError(f"the toolset {name!r} was described before")
        self._groups[name] = _Group(description, check, tuple(requires_env))

    def is_available(self, name: str) -> bool:
        """Return whether a tool can be used now.

        Raises:
            UnknownToolError: there is no tool of that name.
        """
        tool = self[name]
        return self._agrees(name, tool.offer.check, tool.offer.requires_env) and (
            tool.toolset is None or self.is_toolset_available(tool.toolset)
        )

    def is_toolset_available(self, name: str) -> bool:
        """Return whether a toolset can be used now; one that was not described can."""
        group = self._groups.get(name, _Group())
        return self._agrees(name, group.check, group.requires_env)

    def definitions(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return the available tools among *names* (all when left out), sorted, in the OpenAI function form.

        Names that nobody registered are passed over.
        """
        wanted = set(self._tools) if names is None else set(names) & self._tools.keys()
        return [self._tools[name].schema for name in sorted(wanted) if self.is_available(name)]

    def mcp_definitions(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return the same in the form of the Model Context Protocol, with its hints."""
        wanted = set(self._tools) if names is None else set(names) & self._tools.keys()
        return [self._tools[name].mcp_schema for name in sorted(wanted) if self.is_available(name)]

    def toolsets(self) -> dict[str, Toolset]:
        """Return the toolsets by name."""
        return {name: self._toolset(name) for name in self._toolset_names()}

    def availability(self) -> tuple[list[str], list[Unavailable]]:
        """Return the names of the toolsets that can be used now, and what the others lack."""
        sets = self.toolsets()
        lacking = [
            Unavailable(s.name, tuple(v for v in s.requires_env if not self._environ.get(v)), s.tools)
            for s in sets.values()
            if not s.is_available
        ]
        return [s.name for s in sets.values() if s.is_available], lacking

    def _toolset(self, name: str) -> Toolset:
        group = self._groups.get(name, _Group())
        members = tuple(n for n in self if self._tools[n].toolset == name)
        needs = dict.fromkeys(group.requires_env)
        for member in members:
            needs.update(dict.fromkeys(self._tools[member].offer.requires_env))
        usable = self.is_toolset_available(name) and (not members or any(self.is_available(m) for m in members))
        return Toolset(name, usable, members, group.description, tuple(needs))

    def _toolset_names(self) -> list[str]:
        named = {tool.toolset for tool in self._tools.values() if tool.toolset is not None}
        return sorted(named | self._groups.keys())

    def _agrees(self, name: str, check: Check | None, requires_env: Iterable[str]) -> bool:
        if any(not self._environ.get(variable) for variable in requires_env):
            return False
        try:
            return check is None or bool(check())
        except Exception as error:  # noqa: BLE001 - whatever a check raises, it does not agree
            _log.warning("an availability check raised", name=name, error=f"{type(error).__name__}: {error}")
            return False
