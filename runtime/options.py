"""What a start or a call does not say through its own arguments: ids, deadlines, conversations. Frozen once made."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.calls import check_tool
from perdure.actors.workflows.definition import Workflow, check_workflow
from perdure.actors.workflows.entrance import Entrance
from perdure.actors.workflows.events import Place
from perdure.runtime.handle import RunHandle
from perdure.runtime.orchestration import execute
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach

P = ParamSpec("P")
R = TypeVar("R")


class OptionValues(msgspec.Struct, frozen=True, kw_only=True):
    """The options themselves; see `Runtime.with_options`."""

    id: str | None = None
    deadline: timedelta | None = None
    conversation: str | None = None
    limit_key: str = ""
    timeout: timedelta | None = None
    principal: str | None = None
    queue: str | None = None
    priority: int = 0
    partition: str | None = None
    entrance: Entrance | None = None
    """By which entry point the run comes in; set by the runtime alone."""

    @property
    def place(self) -> Place | None:
        """Where the run waits for its turn, if it does."""
        return None if self.queue is None else Place(self.queue, self.priority, self.partition)


@checked_but("__init__", "start", "call")
class Options:
    """Starts runs and calls tools with options."""

    def __init__(self, runtime: "Reach", values: OptionValues) -> None:
        self._runtime = runtime
        self.values = values
        """What was said."""

    @overload
    async def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    @overload
    async def start(self, workflow: str, *args: Any, **kwargs: Any) -> RunHandle[Any]: ...
    async def start(self, workflow: Any, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Start a run, or find the one with this id; durable on return. A name means the workflow registered under it.

        Raises:
            RunConflictError: the id belongs to a run of another workflow or with other input.
            UnknownWorkflowError: no workflow has that name.
            UsageError, InvalidArgumentsError, LogWriteError, BacklogFullError: as `Runtime.start`.
        """
        if isinstance(workflow, str):
            return await self._runtime.start_named(workflow, args, kwargs, self.values)
        check_workflow(workflow)
        data = workflow.encode_input(args, kwargs, self._runtime.redaction)
        return await self._runtime.start_run(workflow, data, self.values)

    async def execute(self, workflow_id: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a workflow to its end; see `Runtime.execute`."""
        return await execute(self._runtime, self.values, workflow_id, dict(data or {}))

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run; see `Runtime.call`."""
        check_tool(tool)
        arguments = tool.encode_arguments(args, kwargs, self._runtime.redaction)
        success = await self._runtime.call_encoded(tool, arguments, self.values)
        return success.value  # type: ignore[no-any-return] # decoded as R

    async def dispatch(self, tool: str, arguments: str | bytes | Mapping[str, Any] | None = "{}") -> str:
        """Make a call as a model asks for it; see `Runtime.dispatch`."""
        given = "{}" if arguments is None else arguments  # as models have it whose calls take none
        return await self._runtime.dispatch_encoded(tool, given, self.values)
