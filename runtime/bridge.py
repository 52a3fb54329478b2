"""A synchronous front for programs without an event loop: a thin layer over the one asynchronous core.

The runtime lives on a loop in a thread of its own. Nothing is decided here: what blocks is made of what is awaited
(`blocking.py`), and of the facets likewise (`blocking_facets.py`).
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from perdure.actors.kernel.errors import AskTimeoutError
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.registry import Registry
from perdure.actors.triggers.typed import Topic
from perdure.actors.workflows.defined.registry import Workflows
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.app import Runtime
from perdure.runtime.blocking import blocking, fronted, on_loop
from perdure.runtime.blocking_facets import (
    BlockingAgents,
    BlockingConversation,
    BlockingConversations,
    BlockingEntryPoints,
    BlockingEvents,
    BlockingGoals,
    BlockingSagas,
    BlockingSchedules,
    BlockingState,
    BlockingSubscription,
)
from perdure.runtime.blocking_runs import BlockingOptions, BlockingRun, BlockingTrajectory
from perdure.runtime.entries.handling import EventHandler
from perdure.runtime.rehearsing import CheckedRun
from perdure.runtime.settings import Settings
from perdure.runtime.web.webhooks.serving import WebhookServer
from perdure.runtime.web.webhooks.webhooks import Webhooks
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.records import Query, Recorded

P = ParamSpec("P")
R = TypeVar("R")


@checked_but("__init__", "start", "call", "start_as", "subscribe")
class BlockingRuntime:
    """`with BlockingRuntime("agents.db", workflows=[…]) as rt`: a `Runtime` whose calls block.

    What a method does and raises is said at the method of `Runtime` of the same name.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Describe a runtime; the options are those of `Runtime`.

        Raises:
            UsageError: as `Runtime`.
        """
        self._runtime = self._inner = Runtime(path, **options)
        self._bridge = self
        self._loop: asyncio.AbstractEventLoop | None = None

    # The loop

    def __enter__(self) -> Self:
        """Open the log in a thread of its own.

        Raises:
            As `Runtime.__aenter__`.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perdure-loop", daemon=True)
        self._thread.start()
        try:
            self.wait(self._runtime.__aenter__())
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Self:
        """Open it, for programs without a `with` block; nothing if it is open."""
        return self if self.is_running else self.__enter__()

    def close(self) -> None:
        """Stop in good order; see `Runtime.close`. Idempotent."""
        if self._loop is None:
            return
        try:
            self.wait(self._runtime.close())
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    @property
    def is_running(self) -> bool:
        """Whether it is open."""
        return self._loop is not None

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._runtime.path

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self._runtime.settings

    def wait(self, work: Coroutine[Any, Any, R], timeout: float | None = None) -> R:
        """Run *work* on the runtime's loop and block until it ends, at most *timeout* seconds.

        Raises:
            AskTimeoutError: it did not end in time; it was cancelled, the runs that it looked at go on.
            UsageError: called on a thread whose own event loop runs, or outside of the `with` block.
        """
        try:
            _refuse_a_loop()
        except UsageError:
            work.close()
            raise
        if self._loop is None:
            work.close()
            raise UsageError("the runtime is not open: write `with BlockingRuntime(…) as rt:` and use rt inside")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError as error:
            if future.done():
                raise
            future.cancel()
            raise AskTimeoutError(timeout_seconds=timeout) from error

    # Runs

    @overload
    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> BlockingRun[R]: ...
    @overload
    def start(self, workflow: str, *args: Any, **kwargs: Any) -> BlockingRun[Any]: ...
    def start(self, workflow: Any, *args: Any, **kwargs: Any) -> BlockingRun[Any]:
        """Start a run; durable on return. See `Runtime.start`."""
        return BlockingRun(self, self.wait(self._runtime.start(workflow, *args, **kwargs)))

    def start_as(self, id: str, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> BlockingRun[R]:
        """Start a run with an id, or find it; the same as `with_options(id=…).start(…)`."""
        return BlockingRun(self, self.wait(self._runtime.with_options(id=id).start(workflow, *args, **kwargs)))

    def run(self, run_id: str, workflow: Workflow[..., R] | None = None) -> BlockingRun[R]:
        """Return a handle to a run by its id."""
        return BlockingRun(self, self._runtime.run(run_id, workflow))

    def execute(
        self, workflow_id: str, data: Mapping[str, Any] | None = None, *, id: str | None = None
    ) -> dict[str, Any]:
        """Run a workflow to its end, with an id where one is given. See `Runtime.execute`."""
        return self.wait(self._runtime.with_options(id=id).execute(workflow_id, data))

    with_options = fronted(Runtime.with_options, BlockingOptions)
    resume_run = blocking(Runtime.resume_run)
    inject_input = blocking(Runtime.inject_input)
    questions = blocking(Runtime.questions)
    waiting = blocking(Runtime.waiting)
    resume = blocking(Runtime.resume)
    until_idle = blocking(Runtime.until_idle)

    def check(self) -> list[CheckedRun]:
        """Say of every open run of the log whether this runtime's code fits; before it is opened. See `Runtime.check`.

        Raises:
            UsageError: called on a thread whose own event loop runs.
            As `Runtime.check`.
        """
        if self._loop is not None:
            return self.wait(self._runtime.check())
        _refuse_a_loop()
        return asyncio.run(self._runtime.check())

    @property
    def workflows(self) -> Workflows:
        """The workflows: register more, list them, take some out."""
        return self._runtime.workflows

    @property
    def sagas(self) -> BlockingSagas:
        """Sagas that the application drives step by step."""
        return BlockingSagas(self, self._runtime.sagas)

    # Conversations, state, goals

    conversation = fronted(Runtime.conversation, BlockingConversation)

    @property
    def conversations(self) -> BlockingConversations:
        """The conversations."""
        return BlockingConversations(self, self._runtime.conversations)

    @property
    def state(self) -> BlockingState:
        """The values that runs share."""
        return BlockingState(self, self._runtime.state)

    @property
    def goals(self) -> BlockingGoals:
        """The goals."""
        return BlockingGoals(self, self._runtime.goals)

    get_goal_progress = blocking(Runtime.get_goal_progress)

    # The ways in

    trigger = blocking(Runtime.trigger)
    trigger_and_wait = blocking(Runtime.trigger_and_wait)
    cancel_execution = blocking(Runtime.cancel_execution)
    get_execution_result = blocking(Runtime.get_execution_result)

    @property
    def entry_points(self) -> BlockingEntryPoints:
        """The ways in: register them, trigger them, ask what became of that."""
        return BlockingEntryPoints(self, self._runtime.entry_points)

    @property
    def schedules(self) -> BlockingSchedules:
        """The schedules of entry points."""
        return BlockingSchedules(self, self._runtime.schedules)

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks: their routes, figures."""
        return self._runtime.webhooks

    @property
    def webhook_server(self) -> WebhookServer | None:
        """The runtime's own server of its webhooks."""
        return self._runtime.webhook_server

    # Events

    publish = blocking(Runtime.publish)
    subscribe_to_events = on_loop(Runtime.subscribe_to_events)
    unsubscribe_from_events = on_loop(Runtime.unsubscribe_from_events)

    def subscribe(
        self, handler: EventHandler, types: str | Topic[Any] | Iterable[str], **said: Any
    ) -> BlockingSubscription:
        """Have a handler given every event of these types. See `Events.subscribe`, whose options these are."""
        return self.events.subscribe(handler, types, **said)

    @property
    def events(self) -> BlockingEvents:
        """The events: subscribe, wait for one, look back, see the dead letters."""
        return BlockingEvents(self, self._runtime.events)

    # Tools and agents

    def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run. See `Runtime.call`."""
        return self.wait(self._runtime.call(tool, *args, **kwargs))

    dispatch = blocking(Runtime.dispatch)
    select = blocking(Runtime.select)
    force_circuit = blocking(Runtime.force_circuit)

    @property
    def tools(self) -> Registry:
        """The tools: register more, list those that can be offered to a model."""
        return self._runtime.tools

    @property
    def agents(self) -> BlockingAgents:
        """The agents."""
        return BlockingAgents(self, self._runtime.agents)

    # Slots

    trajectory = fronted(Runtime.trajectory, BlockingTrajectory)
    quarantine_slot = blocking(Runtime.quarantine_slot)
    reset_slot = blocking(Runtime.reset_slot)

    # Looking

    statistics = blocking(Runtime.statistics)
    get_stats = blocking(Runtime.get_stats)
    read = blocking(Runtime.read)
    blob = blocking(Runtime.blob)

    def tail(self, after: int = 0, query: Query | None = None) -> Generator[Recorded]:
        """Yield every durable event after a position, in order and without gaps, until the runtime closes.

        Each is waited for without an end: leave the loop by what an event says, or read a page.
        """
        events = cast("AsyncGenerator[Recorded]", self._runtime.tail(after, query))

        async def following() -> Recorded | None:
            return await anext(events, None)

        try:
            while self.is_running and (event := self.wait(following())) is not None:
                yield event
        finally:
            with suppress(UsageError):  # it is closed, and the generator with it
                self.wait(events.aclose())


def _refuse_a_loop() -> None:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented get_running_loop raises
        raise UsageError("BlockingRuntime would block the event loop: use `async with Runtime(…)` here")
