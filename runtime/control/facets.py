"""The facets of a runtime that another process owns: each method asks the owner to perform the one of the same name.

Signatures are those of the facets themselves, taken from them. What is a property or returns at once there is awaited
here. Invariant: what is returned was durable before the owner answered; code stays with the owner, and goes by name.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec

from perdure.actors.tools.registry import Registry
from perdure.actors.workflows.agents.pool import Agents
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Step
from perdure.actors.workflows.defined.registry import Workflows
from perdure.runtime.control import words
from perdure.runtime.control.messages import CheckSagaStep
from perdure.runtime.control.request import Request, Word
from perdure.runtime.entries.events import Events
from perdure.runtime.goals import GoalReader, Goals, Source
from perdure.runtime.sagas import Sagas
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.runtime.web.webhooks.webhooks import Webhooks

P = ParamSpec("P")
R = TypeVar("R")


class Asking:
    """How a facet asks; one of a connection."""

    def __init__(self, request: Callable[[Request], Awaitable[Any]], encode: Callable[[object, str], bytes]) -> None:
        self.request = request
        self.encode = encode

    async def perform(self, word: type[Word], signature: inspect.Signature, args: Any, kwargs: Any) -> Any:
        """Have the owner perform the method that *word* stands for.

        Raises:
            TypeError: a method of that signature does not take these arguments.
            UnencodableError, PayloadTooLargeError: one of them cannot be sent.
        """
        bound = signature.bind(None, *args, **kwargs).arguments
        given = {name: self._sent(value, name) for name, value in list(bound.items())[1:]}
        return await self.request(word(**given))

    def _sent(self, value: Any, name: str) -> msgspec.Raw:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        elif isinstance(value, Mapping):
            value = dict(cast("Mapping[str, Any]", value))
        elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            value = [*value]
        return msgspec.Raw(self.encode(value, name))


class Facet:
    """What a connection has in place of a part of the runtime; beside what is said there, all raise as `Connection`."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking


def asked(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], word: type[Word]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a method that has the owner perform *method*, with its arguments, its result and its errors."""
    signature = inspect.signature(method)

    async def ask(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        found: R = await self._asking.perform(word, signature, args, kwargs)
        return found

    functools.update_wrapper(ask, method)
    return ask


def awaited(
    method: Callable[Concatenate[Any, P], R], word: type[Word]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return the same of a method that returns at once where the runtime is."""
    return asked(cast("Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]", method), word)


class OwnersEvents(Facet):
    """The owner's events: looked at and waited for. Handlers belong to the process that subscribes."""

    wait_for = asked(Events.wait_for, words.WaitForEvent)
    history = asked(Events.history, words.EventHistory)
    dead_letters = asked(Events.dead_letters, words.ListDeadLetters)
    redrive = asked(Events.redrive, words.RedriveLetter)
    forget = asked(Events.forget, words.ForgetSubscription)
    statistics = awaited(Events.statistics, words.EventStatistics)


class OwnersAgents(Facet):
    """The owner's agents, by their names."""

    find = awaited(Agents.find, words.FindAgents)
    discover = awaited(Agents.discover, words.DiscoverAgents)
    stats = awaited(Agents.stats, words.AgentFigures)
    load = asked(Agents.load, words.LoadAgent)
    unload = asked(Agents.unload, words.UnloadAgent)

    async def select_best(self, required: Iterable[str], *, partial: bool = False) -> str | None:
        """Return the name of the agent that has all these capabilities. See `Agents.select_best`."""
        given = list(required) if not isinstance(required, str) else required
        name: str | None = await self._asking.request(words.SelectAgent(given, partial))
        return name


class OwnersTools(Facet):
    """The owner's tools, as they are offered to a model; `dispatch` calls one by its name."""

    definitions = awaited(Registry.definitions, words.ToolDefinitions)
    mcp_definitions = awaited(Registry.mcp_definitions, words.McpDefinitions)


class OwnersWorkflows(Facet):
    """The owner's workflows; `start` takes the name of one."""

    list = awaited(Workflows.list, words.ListWorkflows)


class OwnersWebhooks(Facet):
    """The owner's webhooks."""

    statistics = awaited(Webhooks.statistics, words.WebhookFigures)


class OwnersExecutor(Facet):
    """What runs the calls of trajectories, where the owner is."""

    execute = asked(ToolExecutor.execute, words.ExecuteCall)
    find = asked(ToolExecutor.find, words.FindCall)
    release_trajectory = asked(ToolExecutor.release_trajectory, words.ReleaseTrajectory)
    read_artifact = asked(ToolExecutor.read_artifact, words.ReadArtifact)
    list_artifacts = asked(ToolExecutor.list_artifacts, words.ListArtifacts)
    archive_artifacts = asked(ToolExecutor.archive_artifacts, words.ArchiveArtifacts)


class OwnersGoals(GoalReader):
    """The owner's goals."""

    def __init__(self, source: Source, asking: Asking) -> None:
        super().__init__(source)
        self._asking = asking

    async def statistics(self, *goals: str) -> dict[str, int]:
        """Return the figures of goals, added up; of all goals of the owner's when none is named."""
        return await super().statistics(*(goals or [one.id for one in await self.list()]))

    record_decision = asked(Goals.record_decision, words.RecordDecision)
    record_outcome = asked(Goals.record_outcome, words.RecordOutcome)
    record_violation = asked(Goals.record_violation, words.RecordViolation)
    set_status = asked(Goals.set_status, words.SetGoalStatus)

    list = asked(Goals.list, words.ListGoals)


class OwnersSagas(Sagas):
    """Sagas of the owner's; it checks their steps, whose agents and tools are its own."""

    def __init__(self, runtime: Any, asking: Asking) -> None:
        super().__init__(runtime, Known())
        self._asking = asking

    async def check(self, name: str, step: Step) -> None:
        """Have the owner check a step. See `Sagas.check`."""
        await self._asking.request(CheckSagaStep(name, step))
