"""Handles of runs, of trajectories and of ways to start runs, whose calls block: those of the asynchronous core.

What each method does and raises is said at the method of the same name there. Nothing is decided here.
"""

from collections.abc import Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.blocking import Bridge, Front, blocking
from perdure.runtime.handle import RunHandle
from perdure.runtime.options import Options
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.store.expected import checked_but

P = ParamSpec("P")
R = TypeVar("R")


class BlockingRun(Front, Generic[R]):
    """A handle to a run whose calls block; see `RunHandle`."""

    def __init__(self, bridge: Bridge, handle: RunHandle[R]) -> None:
        super().__init__(bridge, handle)
        self.id = handle.id
        """The run's id."""

    def result(self, timeout: float | None = None) -> R:
        """Block until the run ends, at most *timeout* seconds, and return its result.

        Raises:
            AskTimeoutError: it has not ended yet; it goes on.
            As `RunHandle.result`.
        """
        handle: RunHandle[R] = self._inner
        return self._bridge.wait(handle.result(), timeout)

    def fork(self, step: str = "", **options: Any) -> "BlockingRun[R]":
        """Start another run that begins where this one was before *step*; the options are those of `RunHandle.fork`."""
        handle: RunHandle[R] = self._inner
        return BlockingRun(self._bridge, self._bridge.wait(handle.fork(step, **options)))

    status = blocking(RunHandle[Any].status)
    cancel = blocking(RunHandle[Any].cancel)
    signal = blocking(RunHandle[Any].signal)
    answer = blocking(RunHandle[Any].answer)
    approve = blocking(RunHandle[Any].approve)
    reject = blocking(RunHandle[Any].reject)
    settle_done = blocking(RunHandle[Any].settle_done)
    settle_not_done = blocking(RunHandle[Any].settle_not_done)
    settle_failed = blocking(RunHandle[Any].settle_failed)
    pause = blocking(RunHandle[Any].pause)
    resume = blocking(RunHandle[Any].resume)
    retry = blocking(RunHandle[Any].retry)
    checkpoints = blocking(RunHandle[Any].checkpoints)
    checkpoint = blocking(RunHandle[Any].checkpoint)
    history = blocking(RunHandle[Any].history)


class BlockingTrajectory(Front):
    """A handle to a trajectory whose calls block; see `Trajectory`."""

    def __init__(self, bridge: Bridge, trajectory: Trajectory) -> None:
        super().__init__(bridge, trajectory)
        self.id = trajectory.id
        """The trajectory's id."""

    call = blocking(Trajectory.call)
    run = blocking(Trajectory.run)
    write_file = blocking(Trajectory.write_file)
    read_file = blocking(Trajectory.read_file)
    list_files = blocking(Trajectory.list_files)
    archive = blocking(Trajectory.archive)
    view = blocking(Trajectory.view)
    settle = blocking(Trajectory.settle)
    release = blocking(Trajectory.release)


@checked_but("__init__", "start", "call")
class BlockingOptions(Front):
    """A way to start runs and to call tools with options; see `Runtime.with_options`."""

    @overload
    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> BlockingRun[R]: ...
    @overload
    def start(self, workflow: str, *args: Any, **kwargs: Any) -> BlockingRun[Any]: ...
    def start(self, workflow: Any, *args: Any, **kwargs: Any) -> BlockingRun[Any]:
        """Start a run, or find the one with this id; durable on return. See `Options.start`."""
        return BlockingRun(self._bridge, self._bridge.wait(self._options.start(workflow, *args, **kwargs)))

    def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run. See `Runtime.call`."""
        return self._bridge.wait(self._options.call(tool, *args, **kwargs))

    def execute(self, workflow_id: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a workflow to its end. See `Runtime.execute`."""
        return self._bridge.wait(self._options.execute(workflow_id, data))

    dispatch = blocking(Options.dispatch)

    @property
    def _options(self) -> Options:
        options: Options = self._inner
        return options
