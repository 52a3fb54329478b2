"""Brings an agent's handler into memory: imports it, makes an instance, lets it get ready and, in the end, shut down.

It does not decide when. Modules stay imported when an agent is unloaded: a class that was deleted and imported again
would be another class, and `isinstance` would fail.
"""

import importlib
import inspect
from collections.abc import Callable
from contextvars import copy_context
from functools import partial, reduce
from typing import Any, cast

from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.invoke import Threads
from perdure.actors.workflows.agents.agent import Agent, check_class, check_handle, parameters_of
from perdure.actors.workflows.agents.errors import AgentLoadError, UnknownActionError
from perdure.actors.workflows.agents.messages import AgentMessage
from perdure.actors.workflows.definition import Workflow
from perdure.store.errors import UsageError


class Loaded:
    """An agent in memory."""

    __slots__ = ("_agent", "_handle", "_shutdown", "_threads")

    def __init__(
        self, agent: Agent, threads: Threads, handle: Callable[..., Any] | None, shutdown: Callable[[], Any] | None
    ) -> None:
        self._agent = agent
        self._threads = threads
        self._handle = handle
        self._shutdown = shutdown

    async def handle(self, message: AgentMessage, context: ToolContext) -> Any:
        """Return what the handler of the message's action answers.

        Raises:
            UnknownActionError: there is none for it.
            Whatever the handler raises.
        """
        handle = self._agent.actions.get(message.type) or self._handle
        if handle is None:
            known = ", ".join(sorted(self._agent.actions))
            raise UnknownActionError(agent=self._agent.name, action=message.type, known=known)
        given = (message, context) if parameters_of(handle) > 1 else (message,)
        return await perform(self._threads, partial(handle, *given))

    async def shut_down(self) -> None:
        """Let the instance end, if it wants to. Raises whatever it raises."""
        if self._shutdown is not None:
            await perform(self._threads, self._shutdown)


async def perform(threads: Threads, call: Callable[[], Any]) -> Any:
    """Call something that may be async: what is not declared so runs on a worker thread, where it may block."""
    if _is_async(call):
        return await call()
    answer = await threads.run(partial(copy_context().run, call))  # a copy, so that Secret.reveal works there too
    return await answer if inspect.isawaitable(answer) else answer


def _is_async(call: Any) -> bool:
    while isinstance(call, partial):
        call = call.func  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] # whatever was wrapped
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004 - not whether it has one


async def load(agent: Agent, threads: Threads) -> Loaded:
    """Bring *agent* into memory.

    Raises:
        AgentLoadError: there is nothing at its import path, or what is there cannot be an agent.
        Whatever the class, or its `initialize`, raises.
    """
    found = agent.handler
    if isinstance(found, str):
        found = await threads.run(partial(_found_at, agent.name, found))
    if not isinstance(found, type):
        return Loaded(agent, threads, found, None)
    made: Any = found()
    if callable(initialize := getattr(made, "initialize", None)):
        await perform(threads, initialize)
    shutdown = getattr(made, "shutdown", None)
    return Loaded(agent, threads, made.process, shutdown if callable(shutdown) else None)


def _found_at(agent: str, path: str) -> Any:
    """Return what an import path leads to, checked; on a worker thread, since an import may take long."""
    module_name, _, inner = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise AgentLoadError(agent=agent, path=path, reason=reason) from error
    try:
        found: Any = reduce(getattr, inner.split("."), module)
    except AttributeError as error:
        reason = f"{module_name} has no {inner}"
        raise AgentLoadError(agent=agent, path=path, reason=reason) from error
    if isinstance(found, (Workflow, Agent)):
        kind = type(cast("object", found)).__name__
        reason = f"it is a {kind}, which is passed itself and not by its path"
        raise AgentLoadError(agent=agent, path=path, reason=reason)
    try:
        (check_class if isinstance(found, type) else check_handle)(agent, found)
    except UsageError as error:
        raise AgentLoadError(agent=agent, path=path, reason=str(error)) from error
    return found
