"""What a workflow's code works with: every way to learn something from outside, each of them recorded."""

import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast, overload

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.spans import check_limit, span_of
from perdure.actors.state.view import StateView
from perdure.actors.tools.definition import Done, EffectClass, Tool
from perdure.actors.tools.retry import Retry
from perdure.actors.triggers.typed import Topic, name_of
from perdure.actors.triggers.wanted import On, PublishedEvent, Where
from perdure.actors.workflows.approving import Approval, Approvers, approved_arguments
from perdure.actors.workflows.branch import CURRENT, Branch, enter
from perdure.actors.workflows.calls import CallOptions, Fate, StepCall, check_call_options, check_tool
from perdure.actors.workflows.child_steps import ChildCall, ChildRun, run_child, start_child
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.definition import Workflow, check_workflow, digest, shorter
from perdure.actors.workflows.errors import Continuing, StepFailedError
from perdure.actors.workflows.events import StepKind, TimerFired, TimerSet, ValueRecorded
from perdure.actors.workflows.fork import Fork
from perdure.actors.workflows.forms import AnswerForm
from perdure.actors.workflows.goals import Pursuit
from perdure.actors.workflows.listening import After, EventWait, publish_event, take_event, typed_event
from perdure.actors.workflows.logger import RunLogger
from perdure.actors.workflows.parts import bound, opened_parts
from perdure.actors.workflows.pausing import PausePlace, pause_at
from perdure.actors.workflows.saga import Saga
from perdure.actors.workflows.scopes import Limit, Race
from perdure.actors.workflows.sharing import WorkflowState
from perdure.actors.workflows.steps import begin_step
from perdure.actors.workflows.waiting import Question, ask_people, take_signal
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

MAP_CONCURRENCY = 16
"""Items of a map that are worked on at the same time, unless the call says otherwise."""


class Context:
    """The way of a workflow to the outside; the same calls give the same results, live and replayed.

    Every call belongs to the branch (task) that makes it. A call from any other task is a `UsageError`.
    """

    __slots__ = ("_driver", "_options", "run_id")

    def __init__(self, driver: "Driver", run_id: str, options: CallOptions = CallOptions()) -> None:  # noqa: B008 - frozen
        self._driver = driver
        self._options = options
        self.run_id = run_id
        """The id of this run."""

    def with_options(  # noqa: PLR0913 - what a call may say, all by keyword
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        fallback: Tool[..., Any] | None = None,
        limit_key: str = "",
        effect: EffectClass | None = None,
        id: str | None = None,
        deadline: timedelta | None = None,
    ) -> "Context":
        """Return a context whose calls use these options.

        Args:
            key: the step's key within its branch, in place of the tool's name and ordinal; for one call only.
            retry: how failed attempts are tried again, in place of the tool's own policy.
            timeout: seconds that one attempt may take.
            fallback: a tool with the same parameters, called where the first failed for good or was refused.
            limit_key: whose bucket of the tool's rate limit the call takes its token from, such as a customer's id.
            effect: what a crash means for the call, in place of what the tool says.
            id: for `run` and `start`: the child's id, in place of this run's and the step's key.
            deadline: for `run` and `start`: how long the child may take from its start.

        Raises:
            UsageError: the key is empty, too long, or has one of the characters `/`, `#` and space; the timeout is not
                more than 0.
        """
        if key is not None and (not key or len(key) > 128 or any(c in "/#" or not "!" <= c <= "~" for c in key)):  # noqa: PLR2004 - fits an idempotency key
            raise UsageError(f"a step's key is 1 to 128 printable ASCII characters without space, / and #, not {key!r}")
        seconds = None if timeout is None else span_of(timeout, "timeout")
        if seconds is not None and seconds <= timedelta(0):
            raise UsageError("timeout is more than 0 seconds, or left out")
        check_call_options(retry, fallback, effect)
        options = CallOptions(key, retry, seconds, fallback, limit_key, effect, id=id, deadline=deadline)
        return Context(self._driver, self.run_id, options)

    async def call(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a tool once and for all: its result is recorded, and it is not called again.

        The call's intent is durable before the tool runs (unless its effect is `read`). The result comes back as it
        is read from the log.

        Raises:
            StepFailedError: the tool failed for good, or its circuit is open; the same live and replayed.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
            UsageError: another tool has the same name, or the call is made where none may be.
        """
        branch = enter()
        try:
            check_tool(tool)
            fallback = self._options.fallback or tool.fallback
            try:
                return await self._call_tool(branch, tool, args, kwargs)  # type: ignore[no-any-return] # decoded as R
            except StepFailedError:
                if fallback is None:
                    raise
            return await self._call_tool(branch, fallback, args, kwargs, is_fallback=True)  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    async def _call_tool(
        self,
        branch: Branch,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_fallback: bool = False,
    ) -> Any:
        engine, conversation = self._driver.engine, self._driver.conversation
        # The key first: a call that is cancelled while its tool's actor comes into memory has used it, as in a replay.
        call = self._step_call(branch, "tool", tool, args, kwargs, is_fallback=is_fallback)
        shell = engine.toolbox.shell_in_memory(tool, conversation) or await engine.toolbox.shell(tool, conversation)
        shell.pins += 1  # the actor stays until it was told how the call ended
        try:
            begun = await begin_step(self._driver, branch, call, shell)
            return begun.result if isinstance(begun, Done) else await begun.perform()
        finally:
            shell.pins -= 1

    async def step(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an async function as a step: recorded like a tool, without a circuit breaker.

        After a crash without an outcome it runs again (its effect class is `idempotent`).

        Raises:
            StepFailedError: it raised; the same live and replayed.
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
        """
        branch = enter()
        try:
            tool = self._driver.engine.toolbox.as_tool(function)
            call = self._step_call(branch, "function", tool, args, kwargs)
            begun = await begin_step(self._driver, branch, call, None)
            return begun.result if isinstance(begun, Done) else await begun.perform()  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    def _step_call(
        self,
        branch: Branch,
        kind: StepKind,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_fallback: bool = False,
    ) -> StepCall:
        options = self._options
        arguments = tool.encode_arguments(args, kwargs, self._driver.engine.redaction)
        named = f"{options.key}~" if is_fallback and options.key else options.key
        key = branch.key(tool.name) if named is None else branch.named_key(named)
        may_fall_back = kind == "tool" and not is_fallback and (options.fallback or tool.fallback) is not None
        if options.fate is not None:
            options.fate.key = options.fate.key or key
        return StepCall(
            key=key,
            kind=kind,
            tool=tool,
            arguments=arguments,
            digest=digest(tool.name, arguments),
            retry=options.retry or tool.retry,
            timeout=options.timeout or tool.timeout,
            limit_key=options.limit_key,
            may_fall_back=may_fall_back,
            of_class=options.effect,
            stuck="pivot" if branch.pivots and not may_fall_back else "",
            fate=options.fate,
        )

    @overload
    async def gather(self, a: Coroutine[Any, Any, T1], b: Coroutine[Any, Any, T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, a: Coroutine[Any, Any, T1], b: Coroutine[Any, Any, T2], c: Coroutine[Any, Any, T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self,
        a: Coroutine[Any, Any, T1],
        b: Coroutine[Any, Any, T2],
        c: Coroutine[Any, Any, T3],
        d: Coroutine[Any, Any, T4],
        /,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(self, *parts: Coroutine[Any, Any, T]) -> tuple[T, ...]: ...
    async def gather(self, *parts: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
        """Run *parts* as numbered branches beside one another and return their results in order.

        All have ended when it returns. When one fails the others are cancelled, and the failure with the lowest number
        is raised.

        Raises:
            UsageError: a part is not a coroutine that has not started.
        """
        with opened_parts("gather", parts) as (branch, starts):
            return tuple(await Fork(branch, branch.key("gather"), starts, len(parts) or 1).join())

    async def race(self, *parts: Coroutine[Any, Any, T]) -> tuple[int, T]:
        """Run *parts* as numbered branches and return the number and the result of the one that ends first.

        The others are cancelled, and have ended when it returns. Who won is recorded, so it is the same one for ever.

        Raises:
            Whatever the first one to end raises. What the others raise while they clean up is dropped.
            UsageError: there are no parts, or one is not a coroutine that has not started.
        """
        with opened_parts("race", parts) as (branch, starts):
            if not starts:
                raise UsageError("ctx.race needs at least one coroutine: with none, nobody ever wins")
            return await Race(branch, branch.key("race"), starts).join()

    async def timeout(self, limit: timedelta | float, part: Coroutine[Any, Any, T]) -> T:
        """Run *part* as a branch for at most *limit* (seconds, or a timedelta) and return its result.

        The time counts from the first time that the code came here, restarts and sleep included. What is over is
        cancelled, and has ended, cleaning up included, when this raises.

        Raises:
            StepFailedError: it was not over in time; `error_type` is `TimeoutError`. The same live and replayed.
            Whatever *part* raises in time.
            UsageError: the limit is not more than 0, or *part* is not a coroutine that has not started.
        """
        with opened_parts("timeout", (part,)) as (branch, starts):
            span = span_of(limit, "ctx.timeout")
            if span <= timedelta(0):
                raise UsageError("the limit of ctx.timeout is more than 0")
            return await Limit(branch, branch.key("timeout"), starts[0], span).join()  # type: ignore[no-any-return] # the part returns T

    @overload
    async def map(
        self, function: Tool[Concatenate[T, ...], R], items: Iterable[T], *, concurrency: int = MAP_CONCURRENCY
    ) -> list[R]: ...
    @overload
    async def map(
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, concurrency: int = MAP_CONCURRENCY
    ) -> list[R]: ...
    async def map(
        self,
        function: Tool[Concatenate[T, ...], R] | Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        concurrency: int = MAP_CONCURRENCY,
    ) -> list[R]:
        """Run *function* on each item, each in a numbered branch; return the results in the order of the items.

        *function* may be a tool or any async function that uses `ctx`. At most *concurrency* items at a time.

        Raises:
            UsageError: the items have no order (a set), or the concurrency is below 1.
            Whatever the item with the lowest number raises among those that failed; the others are cancelled.
        """
        branch = enter()
        try:
            if isinstance(items, AbstractSet) or concurrency < 1:
                raise UsageError("ctx.map needs items in an order (a list, not a set) and a concurrency of at least 1")
            worker = self._worker(function)
            starts = [bound(worker, item) for item in items]
            return await Fork(branch, branch.key("map"), starts, concurrency).join()
        finally:
            branch.is_inside = False

    def _worker(
        self, function: Tool[Concatenate[T, ...], R] | Callable[[T], Coroutine[Any, Any, R]]
    ) -> Callable[[T], Coroutine[Any, Any, R]]:
        if not isinstance(function, Tool):
            return function
        tool = cast("Tool[..., Any]", function)
        return lambda item: self.call(tool, item)

    def saga(self) -> Saga:
        """Return a saga: steps, each with what undoes it should a later one fail. See `Saga`.

        `async with ctx.saga() as saga: ref = await saga.undo_with(release).call(reserve, contract)`
        """
        branch = enter()
        branch.is_inside = False
        return Saga(self._driver, Context(self._driver, self.run_id), branch, branch.key("saga"))

    def watched(self, fate: Fate) -> "Context":
        """Return the same context for one call, of which *fate* is told what it was; for sagas."""
        return Context(self._driver, self.run_id, msgspec.structs.replace(self._options, fate=fate))

    async def sleep(self, duration: timedelta | float) -> None:
        """Sleep for seconds, or a timedelta; the end is recorded, so a restart neither adds nor saves time.

        A run in which every branch sleeps for more than a minute leaves memory meanwhile.
        """
        branch = enter()
        driver = self._driver
        try:
            span = span_of(duration, "ctx.sleep")
            key = branch.key("sleep")
            record = branch.take(key, "timer", "sleep")
            if record is None:
                due = driver.engine.clock.moment().now + span // timedelta(microseconds=1)
                driver.note(TimerSet(key, branch.path, due))
            elif record.progress == "completed":
                return
            elif branch.is_cut or branch.is_replaying:
                raise branch.cut()  # what was recorded after a sleep that never ended was done when it was cancelled
            else:
                due = record.due
            await driver.wait(branch, due, key)
            driver.note(TimerFired(key))
        finally:
            branch.is_inside = False

    async def signal(self, name: str, *, of: type[T], timeout: timedelta | None = None) -> T:
        """Wait for the next signal of that name and return its value; signals come in the order of sending.

        One that came before anybody waited is kept, and each is taken once. A run that only waits for signals and
        people leaves memory.

        Raises:
            StepFailedError: none came in time (`error_type` is `TimeoutError`), or its value is not of the type
                (`InvalidSignal`; it is taken all the same). The same live and replayed.
            UsageError: the type cannot be read from JSON, or the timeout is not more than 0.
        """
        branch = enter()
        try:
            return await take_signal(self._driver, branch, self._wait_key(branch, "signal"), name, of, timeout)  # type: ignore[no-any-return] # decoded as T
        finally:
            branch.is_inside = False

    @overload
    async def ask(
        self,
        text: str,
        *,
        of: type[T] | AnswerForm[T],
        choices: Sequence[T] | None = None,
        timeout: timedelta | None = None,
        to: str | Sequence[str] = (),
        several: None = None,
    ) -> T: ...
    @overload
    async def ask(
        self,
        text: str,
        *,
        of: type[T] | AnswerForm[T],
        choices: Sequence[T] | None = None,
        timeout: timedelta | None = None,
        to: str | Sequence[str] = (),
        several: int,
    ) -> list[T]: ...
    async def ask(
        self,
        text: str,
        *,
        of: type[T] | AnswerForm[T],
        choices: Sequence[T] | None = None,
        timeout: timedelta | None = None,
        to: str | Sequence[str] = (),
        several: int | None = None,
    ) -> T | list[T]:
        """Ask people and return the answer, which is given by `run.answer` or `perdure answer`.

        Args:
            text: the question.
            of: the type of the answer, or a form: `FreeText(…)`, `Choice("red", "green")`, `Confirm()`, `Form(…)`. What
                does not fit is refused where it is given.
            choices: the only answers that are taken.
            timeout: how long the question is open; for ever when left out.
            to: who is asked. It is written down for those who list questions, not checked.
            several: how many different people are to answer; then a list of their answers is returned, in their order.

        Raises:
            StepFailedError: nobody answered in time; `error_type` is `TimeoutError`. The same live and replayed.
            UsageError: the type cannot be read from JSON, the timeout is not more than 0, or the question is too long.
        """
        branch = enter()
        try:
            key = self._wait_key(branch, "ask")
            addressed = (to,) if isinstance(to, str) else tuple(to)
            question = Question.of_people(text, of, choices, timeout, addressed, several)
            return await ask_people(self._driver, branch, key, question)  # type: ignore[no-any-return] # decoded as T
        finally:
            branch.is_inside = False

    @overload
    async def pause(
        self,
        name: str,
        *,
        of: type[T] | AnswerForm[T],
        result: object = None,
        text: str = "",
        to: str | Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> T: ...
    @overload
    async def pause(
        self,
        name: str,
        *,
        result: object = None,
        text: str = "",
        to: str | Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Any: ...
    async def pause(
        self,
        name: str,
        *,
        of: Any = Any,
        result: object = None,
        text: str = "",
        to: str | Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Any:
        """Pause the run here until somebody resumes it, and return the answer that they resume it with.

        `run.resume(answer)`, `perdure resume RUN --answer JSON`, or an answer to the question that it is. A run that
        only waits for that is `paused`, which is no end; it leaves memory.

        Args:
            name: what the place is called: `RunView.paused_at`.
            of: the type of the answer, or a form, as of `ask`; any JSON, null included, when left out.
            result: what the workflow has come to so far, for those who look at it (`RunView.result`).
            text: what people are told.
            to: who is asked. It is written down, not checked.
            timeout: how long it may be paused; for ever when left out.

        Raises:
            StepFailedError: nobody resumed it in time; `error_type` is `TimeoutError`. The same live and replayed.
            UsageError: the name cannot be one, or the type cannot be read from JSON.
            UnencodableError, PayloadTooLargeError: the result cannot be recorded; the run does not pause.
        """
        branch = enter()
        try:
            key = self._wait_key(branch, "pause")
            place = PausePlace(name, result, of, text, (to,) if isinstance(to, str) else tuple(to), timeout)
            return await pause_at(self._driver, branch, key, place)
        finally:
            branch.is_inside = False

    def approval(
        self,
        *,
        text: str | None = None,
        to: str | Sequence[str] = (),
        timeout: timedelta | None = None,
        several: int = 1,
    ) -> Approvers:
        """Return a way to have a call approved: `approval = await ctx.approval(to="ada").of(pay, 100)`.

        It is bound to the tool and the arguments. People approve, with other arguments if they see fit, or reject, by
        `run.approve`, `run.reject` or `perdure answer`; `approval.outcome` says which, or that nobody did in time.

        Args:
            text: what people are told beside the tool and the arguments.
            to: who is asked. It is written down, not checked.
            timeout: how long it is open; for ever when left out.
            several: how many different people must approve the same arguments. One who rejects is enough.
        """
        addressed = (to,) if isinstance(to, str) else tuple(to)
        return Approvers(
            self, self._driver, key=self._options.key, text=text, to=addressed, timeout=timeout, several=several
        )

    async def call_approved(self, approval: Approval[R]) -> R:
        """Make the call that was approved, with exactly the arguments that were; a fallback is not called.

        Raises:
            UsageError: it was not approved.
            As `call`.
        """
        if not approval.is_approved:
            raise UsageError(f"{approval.tool.name} is {approval.outcome}: look at is_approved first")
        branch = enter()
        try:
            arguments = approval.arguments
            encoded = approval.tool.encode_arguments((), arguments, self._driver.engine.redaction)
            approved_arguments(approval, approval.tool, encoded)
            return await self._call_tool(branch, approval.tool, (), arguments, is_fallback=True)  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    async def publish(self, type: str | Topic[Any], data: object = None) -> None:
        """Publish an event of a type, once and for all: it is in the log together with the fact that this was done.

        Runs that wait for such an event (`event`) get it, this one too. Events of a run are published in its order.

        Raises:
            UsageError: the type cannot be one, or the data are not what the `Topic` says.
            UnencodableError, PayloadTooLargeError: the data cannot be recorded; nothing was published.
        """
        branch = enter()
        try:
            await publish_event(self._driver, branch, self._wait_key(branch, "publish"), type, data)
        finally:
            branch.is_inside = False

    async def event(
        self,
        type: str | Topic[Any],
        *,
        where: Where | None = None,
        timeout: timedelta | None = None,
        after: After = "start",
        reader: str = "",
    ) -> PublishedEvent:
        """Wait for the next event of a type and return it; those published since the run's start are in store.

        A wait goes on where the last one of the run for the same type, conditions and reader stopped: each gets every
        event once, in the order of the log, whatever happened in between. Waits for something else have a place of
        their own. A run that only waits for events leaves memory.

        Args:
            type: what `publish` was given; of a `Topic` the data come as an object of its type.
            where: conditions on the data, such as `{"if": "amount", "gt": 100}`; what does not fit is passed over.
            timeout: how long to wait, from now; an event counts that was published before it passed.
            after: `start` to get what was published since the run was started, `now` only what comes from now on.
            reader: a name for a place of its own, so that two branches that wait for the same both get every event.

        Raises:
            StepFailedError: none came in time, `error_type` is `TimeoutError`; or one came whose data are not what the
                `Topic` says, `error_type` is `ValidationError`. The same live and replayed.
            UsageError: the type cannot be one, the conditions have a fault, or the timeout is not more than 0.
        """
        wanted = [On(name_of(type), where or {})]
        event = await self.any_event(wanted, timeout=timeout, after=after, reader=reader)
        return typed_event(event, type)

    async def any_event(
        self,
        wanted: Sequence[str | On],
        *,
        timeout: timedelta | None = None,
        after: After = "start",
        reader: str = "",
    ) -> PublishedEvent:
        """Wait for the next event of one of several types, in the order of the log. See `event`.

        The way to wait for several: in a `race` of waits two that end in the same instant have each taken an event, and
        that of the loser is dropped with its result.

        Raises:
            As `event`.
        """
        wait = EventWait.of(wanted, timeout, after, reader)
        branch = enter()
        try:
            return await take_event(self._driver, branch, self._wait_key(branch, "event"), wait)
        finally:
            branch.is_inside = False

    async def run(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run another workflow as a child, a run of its own, and return its result.

        Its start is one unit with this step, its end with the step's end. It is told who asked for this run, and goes
        by the same conversation; its deadline is this run's, or its own where that is sooner. When this run, or this
        branch, is cancelled, so is the child, and its compensations have run when the code goes on. A run that only
        waits for children leaves memory.

        Raises:
            StepFailedError: the child failed (`error_type` is what it failed of) or was cancelled by somebody else
                (`RunCancelledError`), or its id is another run's (`RunConflictError`). The same live and replayed.
            UsageError: the workflow is not registered, or an option is not for children.
            InvalidArgumentsError: the input does not fit; nothing was recorded.
        """
        branch = enter()
        try:
            call = self._child_call(branch, workflow, args, kwargs, is_awaited=True)
            return await run_child(self._driver, branch, call)  # type: ignore[no-any-return] # decoded as R
        finally:
            branch.is_inside = False

    async def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> ChildRun:
        """Start another workflow as a run of its own, which lives on when this one ends, and return its id.

        Where the id that the code gives is that of a run with the same workflow and input, that is the run.

        Raises:
            StepFailedError: its id is another run's (`RunConflictError`). The same live and replayed.
            UsageError, InvalidArgumentsError: as `run`.
        """
        branch = enter()
        try:
            call = self._child_call(branch, workflow, args, kwargs, is_awaited=False)
            return ChildRun(await start_child(self._driver, branch, call))
        finally:
            branch.is_inside = False

    def _child_call(
        self,
        branch: Branch,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_awaited: bool,
    ) -> ChildCall:
        options, driver = self._options, self._driver
        check_workflow(workflow)
        if options.retry or options.timeout or options.fallback or options.limit_key or options.effect:
            raise UsageError("a child run takes key=…, id=… and deadline=…: the other options are for calls of tools")
        if driver.engine.workflows.get(workflow.name) is not workflow:
            raise UsageError(f"{workflow.name} is not registered: Runtime(…, workflows=[{workflow.name}])")
        limit = shorter(options.deadline, workflow.timeout)
        check_limit(limit, "deadline")
        data = workflow.encode_input(args, kwargs, driver.engine.redaction)
        return ChildCall(
            key=self._wait_key(branch, workflow.name),
            workflow=workflow,
            data=data,
            digest=workflow.input_digest(data),
            is_awaited=is_awaited,
            run=None if options.id is None else checked_run_id(options.id),
            limit=limit,
        )

    @property
    def state(self) -> StateView:
        """The values that this run shares with others, as far as it sees them; every call is a recorded step.

        `await ctx.state.update("seen", lambda n: n + 1, default=0, scope="global")`. How much it sees is said by the
        entry point that the run came by (`isolation`); a run that came by none is `shared`, and has the name of its
        workflow for its `stream`. What is written in one call is in one unit with the step. See `StateView`.
        """
        return WorkflowState(self._driver, self._options.key)

    def goal(self, id: str) -> Pursuit:
        """Return a goal, for the run to say what it decides for it and what comes of that; see `Pursuit`.

        `decision = await ctx.goal("mail").decide("send it", criteria=["sent"])`, and later
        `await ctx.goal("mail").outcome(decision, success=True)`. Each is a recorded step, in one unit with what the
        goal has of it: it is counted once, also across crashes.
        """
        return Pursuit(self._driver, id, self._options.key)

    def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """End this run and go on as a new one of the same workflow with this input, and an empty history.

        The new run starts in the same unit as this one ends; its id is this one's with `~2`, `~3` and so on. Signals
        that the code has not taken move along; a run that awaits this one, and handles to it, wait for the last one;
        signals and cancels for this one go to it. It has the same deadline. Call it where nothing else is under way:
        not in a branch, nor in a saga.

        Raises:
            UsageError: it is called in a branch, or in a saga.
            InvalidArgumentsError: the input does not fit.
        """
        branch = enter()
        try:
            if branch.path:
                raise UsageError("ctx.continue_as_new ends the whole run: call it outside of gather, map and the like")
            if branch.saga is not None:
                raise UsageError(
                    "ctx.continue_as_new in a saga would leave undone what it did: call it after the block"
                )
            data = self._driver.workflow.encode_input(args, kwargs, self._driver.engine.redaction)
            if branch.is_cut and not branch.is_replaying:
                raise branch.cut()
            raise Continuing(data)
        finally:
            branch.is_inside = False

    def _wait_key(self, branch: Branch, name: str) -> str:
        return branch.key(name) if self._options.key is None else branch.named_key(self._options.key)

    def now(self) -> datetime:
        """Return the time (UTC) when the code first came here."""
        micros: int = self._value("now", lambda: self._driver.engine.clock.moment().now)
        return datetime.fromtimestamp(micros / SECOND, UTC)

    def random(self) -> float:
        """Return a random number in [0, 1), drawn when the code first came here."""
        return float(self._value("random", random.random))  # pyright: ignore[reportUnknownArgumentType]

    def uuid(self) -> uuid.UUID:
        """Return a random UUID (version 4), drawn when the code first came here."""
        return uuid.UUID(self._value("uuid", lambda: str(uuid.uuid4())))

    def version(self, name: str, latest: int = 1) -> int:
        """Return which version of a deliberate change of the code this run goes by.

        It is 0 where the run went past this place before the change was marked with `ctx.version`: the code is to do
        what it did then. Otherwise it is *latest* as it was when the run first came here. A run goes by one version of
        a change; the name is for it, wherever it is asked for.

        Raises:
            UsageError: the name is empty or too long, or *latest* is below 1.
        """
        branch = enter()
        try:
            return self._driver.versions.choose(self._driver, branch, name, latest)
        finally:
            branch.is_inside = False

    def _value(self, name: str, draw: Callable[[], Any]) -> Any:
        branch = enter()
        try:
            key = branch.key(name)
            record = branch.take(key, "value", name)
            if record is not None:
                return msgspec.json.decode(record.result)
            value = draw()
            self._driver.note(ValueRecorded(key, branch.path, msgspec.Raw(msgspec.json.encode(value))))
            return value
        finally:
            branch.is_inside = False

    @property
    def is_replaying(self) -> bool:
        """Whether the branch is still going through what it did before."""
        branch = CURRENT.get()
        return branch is not None and branch.is_replaying

    @property
    def logger(self) -> "RunLogger":
        """A structlog logger bound to the run, silent while the code is replayed."""
        return RunLogger(self, logger("perdure.run").bind(run=self.run_id))
