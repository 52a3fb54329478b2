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
from perdure.runtime.control import entry_words, event_words, slot_words, state_words, tool_words
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
        """Ask the owner to call the method that *word* stands for.

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
    """Base of the facets. Every method raises what its original does, and what `Connection` says."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking


def asked(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], word: type[Word]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a method that asks the owner to call *method*, with its arguments, its result and its errors."""
    signature = inspect.signature(method)

    async def ask(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        found: R = await self._asking.perform(word, signature, args, kwargs)
        return found

    functools.update_wrapper(ask, method)
    return ask


def awaited(
    method: Callable[Concatenate[Any, P], R], word: type[Word]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return the same for a *method* that is not asynchronous in the owner."""
    return asked(cast("Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]", method), word)


class OwnersEvents(Facet):
    """The owner's events: looked at and waited for. Handlers belong to the process that subscribes."""

    wait_for = asked(Events.wait_for, event_words.WaitForEvent)
    history = asked(Events.history, event_words.EventHistory)
    dead_letters = asked(Events.dead_letters, event_words.ListDeadLetters)
    redrive = asked(Events.redrive, event_words.RedriveLetter)
    forget = asked(Events.forget, event_words.ForgetSubscription)
    statistics = awaited(Events.statistics, event_words.EventStatistics)


class OwnersAgents(Facet):
    """The owner's agents, by their names."""

    find = awaited(Agents.find, tool_words.FindAgents)
    discover = awaited(Agents.discover, tool_words.DiscoverAgents)
    stats = awaited(Agents.stats, tool_words.AgentFigures)
    load = asked(Agents.load, tool_words.LoadAgent)
    unload = asked(Agents.unload, tool_words.UnloadAgent)

    async def select_best(self, required: Iterable[str], *, partial: bool = False) -> str | None:
        """Return the name of the agent that has all these capabilities. See `Agents.select_best`."""
        given = list(required) if not isinstance(required, str) else required
        name: str | None = await self._asking.request(tool_words.SelectAgent(given, partial))
        return name


class OwnersTools(Facet):
    """The owner's tools, as they are offered to a model; `dispatch` calls one by its name."""

    definitions = awaited(Registry.definitions, tool_words.ToolDefinitions)
    mcp_definitions = awaited(Registry.mcp_definitions, tool_words.McpDefinitions)


class OwnersWorkflows(Facet):
    """The owner's workflows; `start` takes the name of one."""

    list = awaited(Workflows.list, tool_words.ListWorkflows)


class OwnersWebhooks(Facet):
    """The owner's webhooks."""

    statistics = awaited(Webhooks.statistics, entry_words.WebhookFigures)


class OwnersExecutor(Facet):
    """What runs the calls of trajectories, where the owner is."""

    execute = asked(ToolExecutor.execute, slot_words.ExecuteCall)
    find = asked(ToolExecutor.find, slot_words.FindCall)
    release_trajectory = asked(ToolExecutor.release_trajectory, slot_words.ReleaseTrajectory)
    read_artifact = asked(ToolExecutor.read_artifact, slot_words.ReadArtifact)
    list_artifacts = asked(ToolExecutor.list_artifacts, slot_words.ListArtifacts)
    archive_artifacts = asked(ToolExecutor.archive_artifacts, slot_words.ArchiveArtifacts)


class OwnersGoals(GoalReader):
    """The owner's goals."""

    def __init__(self, source: Source, asking: Asking) -> None:
        super().__init__(source)
        self._asking = asking

    async def statistics(self, *goals: str) -> dict[str, int]:
        """Return the figures of goals, added up; of all goals of the owner's when none is named."""
        return await super().statistics(*(goals or [one.id for one in await self.list()]))

    record_decision = asked(Goals.record_decision, state_words.RecordDecision)
    record_outcome = asked(Goals.record_outcome, state_words.RecordOutcome)
    record_violation = asked(Goals.record_violation, state_words.RecordViolation)
    set_status = asked(Goals.set_status, state_words.SetGoalStatus)

    list = asked(Goals.list, state_words.ListGoals)


class OwnersSagas(Sagas):
    """Sagas of the owner's; it checks their steps, whose agents and tools are its own."""

    def __init__(self, runtime: Any, asking: Asking) -> None:
        super().__init__(runtime, Known())
        self._asking = asking

    async def check(self, name: str, step: Step) -> None:
        """Have the owner check a step. See `Sagas.check`."""
        await self._asking.request(CheckSagaStep(name, step))
