"""An agent: a named handler with capabilities, and the tool through which it is called.

It holds no instance: which agents are in memory is a runtime's matter (`residents.py`), so that one agent may serve two
runtimes. Invariant: every call of an agent goes through its tool, and so through its circuit breaker and the log.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol, TypeAlias, cast

from perdure.actors.tools.breaker import AGENT_POLICY, BreakerPolicy
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.definition import QUEUE, EffectClass, Offer, Reconcile, Tool
from perdure.actors.tools.limits import RateLimit
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse, as_told
from perdure.actors.workflows.definition import Workflow
from perdure.store.errors import UsageError
from perdure.store.expected import checked, checked_function

Handle: TypeAlias = Callable[..., Any]
"""Takes the message, and the `ToolContext` if it has a second parameter; async, or run on a worker thread."""

Handler: TypeAlias = Handle | type[Any] | str | Workflow[..., Any]
"""A function, a class with `process`, an import path of either (`package.module:Name`), or a workflow."""

NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

PREFIX = "agent:"
"""What the names of agents begin with among those of tools: in the log, and for `perdure breakers`."""


class Processes(Protocol):
    """Where agents live."""

    async def process(self, agent: "Agent", message: AgentMessage, context: ToolContext) -> AgentResponse:
        """Have *agent* handle a message, bringing it into memory first if need be."""
        ...


HOME: ContextVar[Processes] = ContextVar("perdure_agents")
"""The agents of the runtime that makes the call."""


@checked
class Agent:
    """Somebody who can be asked to do something: by steps of workflows, or by `ctx.call(agent.tool, message)`."""

    def __init__(  # noqa: PLR0913 - the options of a decorator, all by keyword
        self,
        name: str,
        handler: Handler | None = None,
        *,
        actions: Mapping[str, Handle] | None = None,
        capabilities: Iterable[str] = (),
        description: str | None = None,
        priority: int = 0,
        preload: bool = False,
        effect: EffectClass = "idempotent",
        breaker: BreakerPolicy = AGENT_POLICY,
        retry: Retry = NO_RETRY,
        timeout: float | None = None,
        reconcile: Reconcile | None = None,
        rate: RateLimit | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Describe an agent; nothing is imported or made before its first call.

        Args:
            name: how it is called in definitions, and with `agent:` before it in the log; for ever.
            handler: a function `(message)` or `(message, context)`; a class with such a `process`, and with
                `initialize` and `shutdown` if it needs them, made without arguments; an import path of one of these,
                `"package.module:Name"`; or a workflow, which then runs as a child of the run that calls it.
            actions: handlers of single actions. With them and without a handler, other actions are refused, and a
                definition that asks for one is not registered.
            capabilities: what it can do; those of the class where it has them and none are given here.
            description: for people; the handler's docstring when left out.
            priority: among those who fit equally well, the highest is chosen.
            preload: in memory from the start, and never unloaded.
            effect: what a crash means for a call without an outcome; a step of a definition may say otherwise.
            breaker: by default 5 failures in a row open the circuit for 60 seconds, and 3 successes close it again.
            retry: how failed calls of runs are tried again, unless a step says otherwise.
            timeout: seconds that one attempt may take, unless a step says otherwise.
            reconcile: for `irreversible`: given the idempotency key of a call, finds out whether it happened.
            rate: how many calls may start in a while.
            concurrency: how many calls may run at the same time.

        Raises:
            UsageError: the name or the handler is not one, or an option makes no sense.
        """
        self.name = name
        self.handler = handler
        self.actions = dict(actions or {})
        self.description = _description(handler) if description is None else description
        self.priority = priority
        self.preload = preload
        self._check()
        given = [capabilities] if isinstance(capabilities, str) else list(capabilities)
        self.capabilities = frozenset(given or _declared(handler))
        self._options: dict[str, Any] = {
            "effect": effect,
            "breaker": breaker,
            "retry": retry,
            "timeout": None if timeout is None else timedelta(seconds=timeout),
            "reconcile": reconcile,
            "rate": rate,
            "concurrency": concurrency,
        }
        self.tool: Tool[[AgentMessage], AgentResponse] = _AgentTool(self, **self._options)
        """How it is called: `await ctx.call(agent.tool, AgentMessage(type="greet", data={…}))`."""

    def __repr__(self) -> str:
        return f"<Agent {self.name}>"

    @property
    def workflow(self) -> Workflow[..., Any] | None:
        """The workflow that it is, if it is one."""
        handler: object = self.handler
        return cast("Workflow[..., Any]", handler) if isinstance(handler, Workflow) else None

    @property
    def is_loaded_lazily(self) -> bool:
        """Whether it has to be brought into memory: a class, or an import path."""
        return isinstance(self.handler, (str, type))

    @cached_property
    def known_actions(self) -> frozenset[str] | None:
        """The only actions that it takes; None: whatever it is asked."""
        return None if self.handler is not None else frozenset(self.actions)

    def _check(self) -> None:
        name, handler = self.name, self.handler
        if not NAME.fullmatch(str(name)):
            raise UsageError(f"an agent's name is 1 to 100 letters, digits and the characters _ . -, not {name!r}")
        if handler is None and not self.actions:
            raise UsageError(f"agent {name} has neither a handler nor actions: Agent({name!r}, handle)")
        if isinstance(handler, str):
            if not _PATH.fullmatch(handler):
                raise UsageError(f"the handler of agent {name} is 'package.module:Name', not {handler!r}")
        elif isinstance(handler, Workflow):
            if self.actions:
                raise UsageError(f"agent {name} is a workflow, which takes every action: leave out actions=…")
        elif isinstance(handler, type):
            check_class(name, handler)
        elif handler is not None:
            check_handle(name, handler)
        for action, handle in self.actions.items():
            check_handle(f"{name}, action {action!r},", handle)


class _AgentTool(Tool[[AgentMessage], AgentResponse]):
    """The tool of an agent; models are not offered it."""

    def __init__(self, agent: Agent, **options: Any) -> None:
        async def process(context: ToolContext, message: AgentMessage) -> AgentResponse:
            try:
                home = HOME.get()
            except LookupError:
                detail = f"agent {agent.name} is called outside of a runtime: write `await ctx.call(agent.tool, …)`"
                raise UsageError(detail) from None
            return await home.process(agent, as_told(message, context.run_id), context)

        process.__doc__ = agent.description
        name, offer = f"{PREFIX}{agent.name}", Offer(check=_never)
        super().__init__(process, name=name, queue=QUEUE, offer=offer, **options)  # type: ignore[arg-type] # the context is filled in
        self.agent = agent


def _never() -> bool:
    return False


def check_class(agent: str, found: type[Any]) -> None:
    """Check that a class can be an agent.

    Raises:
        UsageError: it lacks a `process` that takes a message, or is not made without arguments.
    """
    process = getattr(found, "process", None)
    if not callable(process):
        raise UsageError(f"{found.__name__} has no method process(self, message), so it cannot be agent {agent}")
    if inspect.isabstract(found):
        raise UsageError(f"{found.__name__} is abstract, so it cannot be agent {agent}")
    check_handle(f"{agent}, {found.__name__}.process,", process, bound=1)
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise UsageError(f"agent {agent}: {found.__name__}() is made without arguments, but {error}") from None
    except ValueError:  # a class of C, which says nothing of its parameters
        pass


def check_handle(agent: str, handle: Any, *, bound: int = 0) -> None:
    """Check that a function takes a message, or a message and a context.

    Raises:
        UsageError: it does not.
    """
    if not callable(handle):
        raise UsageError(f"the handler of agent {agent} is a function, a class or an import path, not {handle!r}")
    if parameters_of(handle, bound) == 0:
        raise UsageError(f"the handler of agent {agent} takes (message) or (message, context)")


def parameters_of(handle: Any, bound: int = 0) -> int:
    """Return whether *handle* can be called with a message (1), with a context too (2), or with neither (0)."""
    try:
        signature = inspect.signature(handle)
    except ValueError:
        return 1
    required = [p for p in signature.parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    for count in (2, 1) if len(required) == 2 + bound else (1,):
        try:
            signature.bind(*range(count + bound))
        except TypeError:
            continue
        return count
    return 0


def _description(handler: Any) -> str:
    if isinstance(handler, Workflow):
        return handler.description
    return "" if handler is None or isinstance(handler, str) else inspect.getdoc(handler) or ""


def _declared(handler: Any) -> Iterable[str]:
    declared: Any = getattr(handler, "capabilities", ()) if isinstance(handler, type) else ()
    return (
        [word for word in cast("Iterable[object]", declared) if isinstance(word, str)]
        if isinstance(declared, Iterable)
        else ()
    )


@checked_function
def agent(name: str | None = None, **options: Any) -> Callable[[Callable[..., Awaitable[Any]] | type[Any]], Agent]:
    """Make a function or a class an agent: `@agent(capabilities=["anomalies"])`; options as those of `Agent`.

    Raises:
        UsageError: it is neither, or an option makes no sense.
    """

    def make(handler: Any) -> Agent:
        return Agent(name or str(getattr(handler, "__name__", "agent")), handler, **options)

    return make
