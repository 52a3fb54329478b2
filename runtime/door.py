"""The short words for what is asked of a runtime most: the same ones here and from another process.

Not here: what they lead to, which each door says (`Reach`). Invariant: nothing is decided here, so that the doors
cannot differ in it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

from msgspec import UNSET

from perdure.actors.kernel.spans import check_limit
from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.definition import Workflow
from perdure.runtime.conversations import Conversation, Conversations
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions
from perdure.runtime.handle import RunHandle
from perdure.runtime.naming import check_conversation, check_principal
from perdure.runtime.options import Options, OptionValues
from perdure.runtime.people import InputOutcome, inject_input

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach

P = ParamSpec("P")
R = TypeVar("R")


class Door:
    """The words of `Runtime` and of `Connection` alike. Over a connection all raise what `Connection` says, too."""

    # Runs

    def with_options(  # noqa: PLR0913 - what a start may say, all by keyword
        self: "Reach",
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
        """Return a way to start runs and to call tools with options.

        Args:
            id: the run's id; starting it again is the same run, with other input an error. A UUIDv7 when left out.
            deadline: how long the run may take from now, restarts included; then it fails with DeadlineExceededError.
            conversation: whose circuits and rate limits the calls go by, where a tool has them by conversation. A run
                is a conversation of its own when left out.
            limit_key: for `call` and `dispatch`: whose bucket of the tool's rate limit the token comes from.
            timeout: for `call` and `dispatch`: how long the tool may take.
            principal: who asks, as the log is to name them; a run's tools are told too (`ToolContext.principal`), also
                after a restart. It is written down, not checked.
            queue: for `start`: the queue in which the run waits for its turn.
            priority: in the queue: larger ones come first, equal ones in the order of starting.
            partition: in the queue: whom the run is for, such as a customer, where the queue bounds runs by partition.

        Raises:
            UsageError: the conversation's id is not 1 to 60 printable ASCII characters without a space, the principal
                is not 1 to 200 printable characters, or the runtime has no such queue.
        """
        check_conversation(conversation)
        check_principal(principal)
        check_limit(deadline, "deadline", may_be_over=True)
        self.check_place(queue, priority, partition)
        values = OptionValues(
            id=id,
            deadline=deadline,
            conversation=conversation,
            limit_key=limit_key,
            timeout=timeout,
            principal=principal,
            queue=queue,
            priority=priority,
            partition=partition,
        )
        return Options(self, values)

    @overload
    async def start(self: "Reach", workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    @overload
    async def start(self: "Reach", workflow: str, *args: Any, **kwargs: Any) -> RunHandle[Any]: ...
    async def start(self: "Reach", workflow: Any, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Start a run, with an id of its own, of a workflow given itself or by its name; durable on return.

        Asked again after a lost connection, it would be another run: give it an id, `with_options(id=…).start(…)`.

        Raises:
            UsageError: the workflow is not registered, or the runtime is not open.
            UnknownWorkflowError: there is none of that name.
            InvalidArgumentsError: the input does not fit; nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        return await self.with_options().start(workflow, *args, **kwargs)

    def run(self: "Reach", run_id: str, workflow: Workflow[..., R] | None = None) -> RunHandle[R]:
        """Return a handle to a run by its id, whether it exists or not; with *workflow*, its result is typed."""
        return RunHandle(self, checked_run_id(run_id), None if workflow is None else workflow.result_decoder)

    async def execute(self: "Reach", workflow_id: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a workflow to its end; return `workflow_id`, `status` ("completed"), `result` and `duration` (seconds).

        It is a run like any other: with an id (`with_options(id=…).execute(…)`) the caller can ask again after a crash.
        Cancelling the wait does not cancel the run.

        Raises:
            UnknownWorkflowError: there is none of that name; nothing was recorded.
            WorkflowFailedError: it failed, was compensated, timed out, was cancelled or is blocked, which its `status`
                says; it names the step, the agent and the type of the error, and has the result as far as there is
                one. The original exception is the cause, in the process and in the life in which it was raised.
            As `start`.
        """
        return await self.with_options().execute(workflow_id, data)

    async def resume_run(
        self: "Reach", run: str, answer: object = UNSET, *, at: str = "", who: str | None = None
    ) -> bool:
        """Let a paused run go on, one that has paused itself with an answer. See `RunHandle.resume`."""
        return await self.run(run).resume(answer, at=at, who=who)

    async def inject_input(
        self: "Reach", target: str, content: object, *, who: str | None = None
    ) -> "InputOutcome | Literal[False]":
        """Give a run what a person says: by the id of a question or, if it asks only one, by that of the run.

        A text is read as the question takes it (`yes`, JSON), or as it stands. Return what became of it, durable;
        False where there is no such run or question. Only `accepted` has changed anything.

        Raises:
            WrongAnswerError: it is not what was asked for; the question stays open.
            UnencodableError: it cannot be recorded.
        """
        return await inject_input(self, target, content, who)

    # Conversations

    @property
    def conversations(self: "Reach") -> Conversations:
        """The conversations."""
        return Conversations(self)

    def conversation(self: "Reach", id: str) -> Conversation:
        """Return a conversation by its id, whether anything has happened in it or not.

        Raises:
            UsageError: the id cannot be one.
        """
        return Conversation(self, id)

    # Tools

    async def call(self: "Reach", tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once, outside of a run: guarded and recorded, its outcome durable on return.

        It is one attempt: the tool's retry policy is for runs, where waits are durable. Its fallback is called where
        it is refused or fails. Cancelling the wait cancels the call; a lost connection does not.

        Raises:
            CircuitOpenError, RateLimitedError, BulkheadFullError: refused; the tool was not called.
            ToolFailedError: it failed; the original exception is the cause, in its own process.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
            UnknownToolError: the owner of the log, asked from another process, has no such tool.
        """
        return await self.with_options().call(tool, *args, **kwargs)

    async def dispatch(self: "Reach", tool: str, arguments: str | bytes | Mapping[str, Any] | None = "{}") -> str:
        """Make a call as a model asks for it, by name and with a JSON object, and return what the model is told.

        None for *arguments*, as some models have it whose calls take none, is an empty object.

        Never raises for what goes wrong with the call: the text is then a JSON object with the key `error`. An unknown
        name, or arguments that do not fit, count against nobody. Of a result over 64 KiB the model gets a preview; the
        log keeps all of it, and `blob` returns it by the `sha256` of the preview.

        Raises:
            LogWriteError, BacklogFullError: the log refused.
            UsageError: the runtime is not open.
        """
        return await self.with_options().dispatch(tool, arguments)

    # Entry points

    async def trigger(
        self: "Reach", entry: str, data: Mapping[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> str:
        """Start a run by an entry point and return its id, as soon as that is durable. See `EntryPoints.trigger`."""
        return await self.entry_points.trigger(entry, data, **options)

    async def trigger_and_wait(
        self: "Reach",
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> ExecutionResult | None:
        """Start a run and wait for its end; None on timeout, and it goes on. See `EntryPoints.trigger_and_wait`."""
        return await self.entry_points.trigger_and_wait(entry, data, timeout=timeout, **options)

    async def cancel_execution(self: "Reach", entry: str, run: str) -> bool:
        """Ask for a run of an entry point to be cancelled. See `EntryPoints.cancel`."""
        return await self.entry_points.cancel(entry, run)

    async def get_execution_result(self: "Reach", entry: str, run: str) -> ExecutionResult | None:
        """Return how a run of an entry point ended, if that is known and kept. See `EntryPoints.result`."""
        return await self.entry_points.result(entry, run)

    # Goals

    async def get_goal_progress(self: "Reach", goal: str | None = None) -> dict[str, Any]:
        """Return how far a goal is, or the only one, in the shape of founding document 003. See `Goals.progress`.

        Raises:
            UsageError: there are several goals, or none.
            UnknownGoalError: the log has no such goal.
        """
        return (await self.goals.progress(await self.only_goal() if goal is None else goal)).to_dict()
