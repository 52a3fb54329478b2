"""What handles and options need of a runtime: the program's own (`Runtime`) or another process's (`Connection`).

A port, no behaviour. The invariant: whatever an implementation returns is durable in the log, wherever the log's owner
lives.
"""

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar, Unpack

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.state.goal_progress import GoalProgress
from perdure.actors.state.view import StateView
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import EffectClass, Tool
from perdure.actors.tools.outcome import Success
from perdure.actors.triggers.typed import Topic
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.entrance import Isolation
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.state import RunView
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions
from perdure.runtime.handle import RunHandle
from perdure.runtime.options import Options, OptionValues
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.serving.payloads import (
    ArtifactArchiveResponsePayload,
    ArtifactListResponsePayload,
    ArtifactReadResponsePayload,
)
from perdure.runtime.steering import ForkRequest
from perdure.store.records import Query, Recorded, StreamId

R = TypeVar("R")


class ScheduleReach(Protocol):
    """The schedules of a runtime; `Schedules` says what each of these does and raises."""

    async def pause(self, entry: str, because: str = "", *, who: str | None = None) -> bool:
        """Stop a schedule."""
        ...

    async def resume(self, entry: str, *, who: str | None = None) -> bool:
        """Let a schedule go on."""
        ...

    async def fire_now(self, entry: str, *, who: str | None = None) -> str:
        """Have a run started now."""
        ...


class StateReach(Protocol):
    """The shared state of a runtime; see `SharedState`."""

    def view(
        self,
        *,
        run: str | None = None,
        conversation: str | None = None,
        stream: str | None = None,
        isolation: Isolation | None = None,
        who: str | None = None,
    ) -> StateView:
        """Return the state as somebody sees it."""
        ...


class GoalsReach(Protocol):
    """The goals of a runtime; see `Goals`."""

    async def progress(self, goal: str) -> GoalProgress:
        """Return how far a goal is."""
        ...


class EntriesReach(Protocol):
    """The entry points of a runtime; see `EntryPoints`."""

    def trigger(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        correlation_id: str | None = None,
        id: str | None = None,
        conversation: str | None = None,
        priority: int | None = None,
        who: str | None = None,
    ) -> Coroutine[Any, Any, str]:
        """Start a run by an entry point; return its id."""
        ...

    def trigger_and_wait(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> Coroutine[Any, Any, ExecutionResult | None]:
        """Start a run by an entry point and wait for its end."""
        ...

    def cancel(self, entry: str, run: str, reason: str = ...) -> Coroutine[Any, Any, bool]:
        """Ask for a run of an entry point to be cancelled."""
        ...

    def result(self, entry: str, run: str) -> Coroutine[Any, Any, ExecutionResult | None]:
        """Return how a run of an entry point ended."""
        ...


class ExecutorReach(Protocol):
    """What runs the calls of trajectories; see `ToolExecutor`."""

    def execute(
        self,
        trajectory_id: str,
        call: ToolCall,
        timeout_s: float | None = None,
        *,
        effect: EffectClass | None = None,
        lease_seconds: float | None = None,
        principal: str | None = None,
    ) -> Coroutine[Any, Any, ToolResult]:
        """Run one call of a trajectory."""
        ...

    def release_trajectory(
        self,
        trajectory_id: str,
        *,
        reset_workspace: bool = False,
        cancel: bool = False,
        because: str = "released",
        principal: str | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Give a trajectory's slot back."""
        ...

    def read_artifact(
        self,
        trajectory_id: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> Coroutine[Any, Any, ArtifactReadResponsePayload]:
        """Return a file of the trajectory's workspace."""
        ...

    def list_artifacts(
        self, trajectory_id: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> Coroutine[Any, Any, ArtifactListResponsePayload]:
        """Return what is in a folder of the trajectory's workspace."""
        ...

    def archive_artifacts(
        self,
        trajectory_id: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> Coroutine[Any, Any, ArtifactArchiveResponsePayload]:
        """Return a folder of the trajectory's workspace as a tar.gz."""
        ...


class Reach(Protocol):
    """A runtime, here or in another process; `Runtime` says what each of these does and raises."""

    @property
    def redaction(self) -> Redaction:
        """Which names the log must not see the values of."""
        ...

    def run(self, run_id: str, workflow: Workflow[..., R] | None = None) -> RunHandle[R]:
        """Return a handle to a run by its id."""
        ...

    def ask(self, stream: StreamId, message: Command, *, principal: str | None = None) -> Awaitable[Any]:
        """Ask an actor; the answer is durable."""
        ...

    async def ended(self, run: str) -> RunView:
        """Return how a run stands once it is closed or blocked."""
        ...

    async def check_settlement(self, run: str, step: str, data: msgspec.Raw) -> None:
        """Check that JSON fits the declared result of the tool that a step calls."""
        ...

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as it would be recorded."""
        ...

    async def start_run(self, workflow: Workflow[..., R], data: bytes, options: OptionValues) -> RunHandle[R]:
        """Start a run from its encoded input."""
        ...

    async def start_named(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: OptionValues
    ) -> RunHandle[Any]:
        """Start a run of the workflow of that name, which the owner of the log has."""
        ...

    async def start_data(self, name: str, data: Mapping[str, Any], options: OptionValues) -> RunHandle[Any]:
        """Start a run of the workflow of that name from one object."""
        ...

    @property
    def failures(self) -> Failures:
        """The exceptions that runs end with where this program can know them."""
        ...

    async def get_stats(self) -> dict[str, Any]:
        """Return the figures of defined workflows and of agents."""
        ...

    async def publish(
        self,
        type: str | Topic[Any],
        data: object = None,
        *,
        id: str | None = None,
        who: str | None = None,
        source: str | None = None,
        correlation: str | None = None,
    ) -> bool:
        """Publish an event; return whether it is new."""
        ...

    @property
    def schedules(self) -> "ScheduleReach":
        """The schedules of its entry points."""
        ...

    @property
    def entry_points(self) -> EntriesReach:
        """Its entry points."""
        ...

    @property
    def goals(self) -> GoalsReach:
        """Its goals."""
        ...

    async def only_goal(self) -> str:
        """Return the id of its only goal."""
        ...

    @property
    def state(self) -> StateReach:
        """Its shared state."""
        ...

    @property
    def executor(self) -> ExecutorReach:
        """What runs the calls of trajectories."""
        ...

    def with_options(  # noqa: PLR0913 - those of `Runtime.with_options`
        self,
        *,
        id: str | None = None,
        deadline: timedelta | None = None,
        conversation: str | None = None,
        limit_key: str = "",
        timeout: timedelta | None = None,
        principal: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        partition: str | None = None,
    ) -> Options:
        """Return a way to start runs and to call tools with options."""
        ...

    def check_place(self, queue: str | None, priority: int, partition: str | None) -> None:
        """Check where a run is to wait for its turn, as far as that is known here."""
        ...

    async def waiting(self) -> list[WaitingRun]:
        """Return the open runs that are not in memory."""
        ...

    async def resume(self, run: str | None = None) -> None:
        """Bring back open runs, or one."""
        ...

    async def blob(self, sha256: str) -> bytes | None:
        """Return a large value of the log by its hash."""
        ...

    async def retry_run(self, run: str, who: str | None) -> str | None:
        """Have a run tried again; return the step that it failed of."""
        ...

    async def fork_run(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id."""
        ...

    async def call_encoded(self, tool: Tool[..., Any], arguments: bytes, options: OptionValues) -> Success:
        """Call a tool with encoded arguments."""
        ...

    async def dispatch_encoded(
        self, name: str, arguments: str | bytes | Mapping[str, Any], options: OptionValues
    ) -> str:
        """Make a call as a model asks for it."""
        ...

    async def force_circuit(
        self, tool: str, to: Forcing, *, because: str, who: str | None = None, conversation: str | None = None
    ) -> bool:
        """Take a tool's circuit over as an operator."""
        ...

    async def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs."""
        ...

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of durable events."""
        ...

    async def quarantine_slot(self, slot: str, because: str, *, who: str) -> None:
        """Give a slot to nobody until it was reset."""
        ...

    async def reset_slot(self, slot: str, *, who: str, take_away: bool = False) -> str | None:
        """Empty a slot; return the trajectory that lost it."""
        ...
