"""A synchronous front for programs without an event loop: a thin layer over the one asynchronous core.

The runtime lives on a loop in a thread of its own. Nothing is decided here.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Generic, ParamSpec, Self, TypeVar

from perdure.actors.kernel.errors import AskTimeoutError
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.commands import TrajectoryView
from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.state import RunView
from perdure.runtime.app import Runtime
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.handle import RunHandle
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.runtime.serving.payloads import ArtifactListEntryPayload
from perdure.store.errors import UsageError
from perdure.store.records import Recorded

P = ParamSpec("P")
R = TypeVar("R")


class BlockingRuntime:
    """`with BlockingRuntime("agents.db", workflows=[…]) as rt`: a `Runtime` whose calls block."""

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Describe a runtime; the options are those of `Runtime`.

        Raises:
            UsageError: as `Runtime`.
        """
        self._runtime = Runtime(path, **options)
        self._loop: asyncio.AbstractEventLoop | None = None

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

    def wait(self, work: Coroutine[Any, Any, R], timeout: float | None = None) -> R:
        """Run *work* on the runtime's loop and block until it ends, at most *timeout* seconds.

        Raises:
            AskTimeoutError: it did not end in time; it was cancelled, the runs that it looked at go on.
            UsageError: called on a thread whose own event loop runs, or outside of the `with` block.
        """
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented get_running_loop raises
            work.close()
            raise UsageError("BlockingRuntime would block the event loop: use `async with Runtime(…)` here")
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

    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> "BlockingRun[R]":
        """Start a run; durable on return. See `Runtime.start`."""
        return BlockingRun(self, self.wait(self._runtime.start(workflow, *args, **kwargs)))

    def start_as(self, id: str, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> "BlockingRun[R]":
        """Start a run with an id, or find it; durable on return. See `Runtime.with_options`."""
        return BlockingRun(self, self.wait(self._runtime.with_options(id=id).start(workflow, *args, **kwargs)))

    def run(self, run_id: str, workflow: Workflow[..., R] | None = None) -> "BlockingRun[R]":
        """Return a handle to a run by its id."""
        return BlockingRun(self, self._runtime.run(run_id, workflow))

    def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run. See `Runtime.call`."""
        return self.wait(self._runtime.call(tool, *args, **kwargs))

    def execute(
        self, workflow_id: str, data: Mapping[str, Any] | None = None, *, id: str | None = None
    ) -> dict[str, Any]:
        """Run a workflow to its end, with an id where one is given. See `Runtime.execute`."""
        return self.wait(self._runtime.with_options(id=id).execute(workflow_id, data))

    def publish(self, type: str, data: object = None, *, id: str | None = None, who: str | None = None) -> bool:
        """Publish an event; durable on return. See `Runtime.publish`."""
        return self.wait(self._runtime.publish(type, data, id=id, who=who))

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of defined workflows and of agents. See `Runtime.get_stats`."""
        return self.wait(self._runtime.get_stats())

    def trajectory(self, trajectory_id: str) -> "BlockingTrajectory":
        """Return the handle of a sequence of calls that shares one slot. See `Runtime.trajectory`."""
        return BlockingTrajectory(self, self._runtime.trajectory(trajectory_id))

    def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs, oldest first."""
        return self.wait(self._runtime.questions())

    def statistics(self) -> RuntimeStatistics:
        """Return the figures of the runtime."""
        return self.wait(self._runtime.statistics())


class BlockingTrajectory:
    """A handle to a trajectory whose calls block; see `Trajectory`, which says what each does and raises."""

    def __init__(self, front: BlockingRuntime, trajectory: Trajectory) -> None:
        self._front = front
        self._trajectory = trajectory
        self.id = trajectory.id
        """The trajectory's id."""

    def call(self, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> ToolResult:
        """Run a tool in the slot, after the calls made before; the options are those of `Trajectory.call`."""
        return self._front.wait(self._trajectory.call(name, arguments, **options))

    def run(self, command: str, **options: Any) -> ToolResult:
        """Run a shell command in the slot; the options are those of `Trajectory.run`."""
        return self._front.wait(self._trajectory.run(command, **options))

    def write_file(self, path: str, content: str) -> None:
        """Write a text file into the workspace."""
        self._front.wait(self._trajectory.write_file(path, content))

    def read_file(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file of the workspace."""
        return self._front.wait(self._trajectory.read_file(path, max_bytes=max_bytes))

    def list_files(self, path: str = ".", *, recursive: bool = False) -> list[ArtifactListEntryPayload]:
        """Return what is in a folder of the workspace."""
        return self._front.wait(self._trajectory.list_files(path, recursive=recursive))

    def archive(self, path: str = ".") -> bytes:
        """Return a folder of the workspace as a tar.gz."""
        return self._front.wait(self._trajectory.archive(path))

    def view(self) -> TrajectoryView:
        """Return how it stands: its slot, what runs, what is in doubt."""
        return self._front.wait(self._trajectory.view())

    def settle(self, uniq_id: str, *, success: bool, because: str, output: str = "", who: str | None = None) -> None:
        """Say what became of a call in doubt."""
        self._front.wait(self._trajectory.settle(uniq_id, success=success, because=because, output=output, who=who))

    def release(self, *, reset_workspace: bool = False, cancel: bool = False) -> None:
        """Give the slot back once the calls made before have ended; with *cancel*, end them."""
        self._front.wait(self._trajectory.release(reset_workspace=reset_workspace, cancel=cancel))


class BlockingRun(Generic[R]):
    """A handle to a run whose calls block; see `RunHandle`."""

    def __init__(self, front: BlockingRuntime, handle: RunHandle[R]) -> None:
        self._front = front
        self._handle = handle
        self.id = handle.id
        """The run's id."""

    def result(self, timeout: float | None = None) -> R:
        """Block until the run ends, at most *timeout* seconds, and return its result.

        Raises:
            AskTimeoutError: it has not ended yet; it goes on.
            As `RunHandle.result`.
        """
        return self._front.wait(self._handle.result(), timeout)

    def status(self) -> RunView:
        """Return how the run stands."""
        return self._front.wait(self._handle.status())

    def cancel(self, reason: str = "cancelled by the application") -> bool:
        """Ask for the run to be cancelled; return False when it was closed already."""
        return self._front.wait(self._handle.cancel(reason))

    def signal(self, name: str, value: object = None, *, id: str | None = None, who: str | None = None) -> bool:
        """Send the run a signal; durable on return. See `RunHandle.signal`."""
        return self._front.wait(self._handle.signal(name, value, id=id, who=who))

    def answer(self, question: str, value: object, *, who: str | None = None) -> None:
        """Answer a question of the run; durable on return. See `RunHandle.answer`."""
        self._front.wait(self._handle.answer(question, value, who=who))

    def approve(
        self, question: str, *, who: str, arguments: Mapping[str, object] | None = None, digest: str = ""
    ) -> None:
        """Approve a call of the run; durable on return. See `RunHandle.approve`."""
        self._front.wait(self._handle.approve(question, who=who, arguments=arguments, digest=digest))

    def reject(self, question: str, reason: str = "", *, who: str) -> None:
        """Reject a call of the run; durable on return. See `RunHandle.reject`."""
        self._front.wait(self._handle.reject(question, reason, who=who))

    def settle_done(self, step: str, result: object = None) -> None:
        """Say that a step in doubt happened, with this result. See `RunHandle.settle_done`."""
        self._front.wait(self._handle.settle_done(step, result))

    def settle_not_done(self, step: str, *, because: str = "settled by the application") -> None:
        """Say that a step in doubt did not happen; it is made again. See `RunHandle.settle_not_done`."""
        self._front.wait(self._handle.settle_not_done(step, because=because))

    def settle_failed(self, step: str, error: str) -> None:
        """Say that a step in doubt failed. See `RunHandle.settle_failed`."""
        self._front.wait(self._handle.settle_failed(step, error))

    def pause(self, because: str = "paused by the application", *, who: str | None = None) -> bool:
        """Stop the run where it is, until `resume`. See `RunHandle.pause`."""
        return self._front.wait(self._handle.pause(because, who=who))

    def resume(self, *, who: str | None = None) -> bool:
        """Let a paused run go on. See `RunHandle.resume`."""
        return self._front.wait(self._handle.resume(who=who))

    def retry(self, *, who: str | None = None) -> str | None:
        """Have the run tried again from the step that it failed of. See `RunHandle.retry`."""
        return self._front.wait(self._handle.retry(who=who))

    def fork(self, step: str, **options: Any) -> "BlockingRun[R]":
        """Start another run that begins where this one was before *step*; the options are those of `RunHandle.fork`."""
        return BlockingRun(self._front, self._front.wait(self._handle.fork(step, **options)))

    def history(self) -> list[Recorded]:
        """Return the first thousand events of the run."""
        return self._front.wait(self._handle.history())
