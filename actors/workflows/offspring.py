"""The code's side of child runs: a recorded start and a recorded wait, from the recording or live to its end.

Not here: what the two actors know of one another (`children.py`) and the way between them (`kin.py`). Invariant: an
awaited child has ended before the code that awaits it goes on, also when that code is cancelled.
"""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.clock import Timer
from perdure.actors.kernel.spans import check_limit
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.children import CHILD, child_id, has_name, named_child_id
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.links import ChildCancelRequested, ChildEnded, ChildRefused, ChildStarted
from perdure.actors.workflows.recording import StepRecord
from perdure.actors.workflows.state import RunState
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver


class ChildRun(msgspec.Struct, frozen=True):
    """A run that another one started and does not wait for."""

    id: str


class ChildCall(msgspec.Struct, frozen=True):
    """What a workflow asks for."""

    key: str
    workflow: Workflow[..., Any]
    data: bytes
    digest: str
    is_awaited: bool
    run: str | None = None
    """The id that the code gives the child."""
    deadline: int | None = None
    """When the child fails, in microseconds."""


class Offspring:
    """The children that the code of one run awaits while it is in memory."""

    __slots__ = ("_driver", "_ended", "_news_at", "_timer", "_waiting")

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver
        self._ended: dict[str, ChildEnded] = {}
        self._waiting = 0
        """Branches that wait for a child."""
        self._news_at = 0
        """When a child was last started or heard of."""
        self._timer: Timer | None = None

    def reported(self, ended: ChildEnded) -> None:
        """Hand the end of a child to the branch that awaits it."""
        self._ended[ended.step] = ended
        self._news_at = self._driver.engine.clock.moment().now
        self._driver.wake(ended.step)

    def end(self, step: str) -> ChildEnded | None:
        """Return how the child of *step* ended, once, if that is known and durable."""
        return self._ended.pop(step, None)

    def is_open(self, step: str) -> bool:
        """Return whether the child of *step* has not ended."""
        return step in self._driver.shell.state.children.awaited

    async def wait(self, branch: Branch, step: str) -> None:
        """Wait until there may be news of the child of *step*.

        Raises:
            CancelledError: the branch is cancelled.
            Parked: the run leaves memory.
        """
        self._waiting += 1
        self._news_at = self._driver.engine.clock.moment().now
        try:
            await self._driver.wait(branch, None, step, CHILD)
        except asyncio.CancelledError:
            if self._driver.ending is not None and not self._driver.engine.is_loop_ending:
                raise Parked from None
            raise
        finally:
            self._waiting -= 1

    def lend_place(self) -> None:
        """Lend the run's place in memory to its children, when all that it does is to wait and a child is among it."""
        if self._waiting:
            kin = self._driver.engine.kin
            kin.lenders.add(self._driver.run_id)
            self._driver.engine.resumer.fill_places()

    def take_back_place(self) -> None:
        """Note that the run works again."""
        self._driver.engine.kin.lenders.discard(self._driver.run_id)

    def is_expecting(self) -> bool:
        """Return whether the run is to stay in memory, since a child may end soon; it is asked again when that is over.

        To leave and to come back is to read all that it did: that is worth it only for a long wait, or where many wait.
        """
        engine = self._driver.engine
        if not self._waiting or len(engine.kin.lenders) > engine.places:
            return False
        until = self._news_at + engine.park_after
        if until <= engine.clock.moment().now:
            return False
        if self._timer is None:
            self._timer = engine.clock.call_at(until, self._look_again)
        return True

    def _look_again(self) -> None:
        self._timer = None
        self._driver.consider_parking()

    def close(self) -> None:
        """Let go of what the run held while it was in memory."""
        self.take_back_place()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def child_deadline(driver: "Driver", given: timedelta | None, *, is_awaited: bool) -> int | None:
    """Return when a child's time is over: its own limit, or for one that is awaited the parent's if that is sooner.

    Raises:
        UsageError: the limit is not more than 0.
    """
    check_limit(given, "deadline")
    own = None if given is None else driver.engine.clock.moment().now + given // timedelta(microseconds=1)
    limits = [limit for limit in (own, driver.deadline if is_awaited else None) if limit is not None]
    return min(limits, default=None)


async def start_child(driver: "Driver", branch: Branch, call: ChildCall) -> str:
    """Start a child that nobody awaits and return its id. See `Context.start`."""
    record = _take(driver, branch, call)
    if record is None:
        return await _begin(driver, branch, call)
    if record.progress == "failed":
        raise _failed(call.key, record.error_type, record.error)
    return record.run


async def run_child(driver: "Driver", branch: Branch, call: ChildCall) -> Any:
    """Return the result of a child. See `Context.run`."""
    record = _take(driver, branch, call)
    if record is None:
        run = await _begin(driver, branch, call)
        return await _result(driver, branch, call, run)
    if record.is_given_up or (record.progress == "dispatched" and branch.is_cut):
        if not record.is_given_up:
            driver.note(ChildCancelRequested(call.key, record.run))
        cancelled = branch.cut()
        await _until_gone(driver, branch, call.key, record.run)
        raise cancelled
    if record.progress == "dispatched":
        return await _result(driver, branch, call, record.run)
    if record.progress == "failed":
        raise _failed(call.key, record.error_type, record.error)
    try:
        return call.workflow.result_decoder.decode(record.result, call.key)
    except PerdureError as error:
        asked = f"the recorded result does not fit the declared type ({error})"
        driver.mismatch(call.key, asked, [(call.key, record)])


def _take(driver: "Driver", branch: Branch, call: ChildCall) -> StepRecord | None:
    what = "child" if call.is_awaited else "detached"
    record = branch.take(call.key, what, call.workflow.name, call.digest, data=call.data)
    if record is not None and call.run is not None and not has_name(record.run, call.run):
        driver.mismatch(call.key, f"the code asks for a child with the id {call.run}", [(call.key, record)])
    return record


def _failed(step: str, error_type: str, error: str) -> StepFailedError:
    return StepFailedError(step=step, error_type=error_type, error=error, retryable=False)


# The start


async def _begin(driver: "Driver", branch: Branch, call: ChildCall) -> str:
    """Start the child and return its id.

    Raises:
        StepFailedError: its id is another run's.
        CancelledError, Parked: it was not started.
    """
    await driver.keep_pace()
    kin, workflow, attempt = driver.engine.kin, call.workflow.name, 1
    while True:
        run = child_id(driver.run_id, call.key, attempt) if call.run is None else named_child_id(call.run, attempt)
        try:
            shell = await kin.shell(run)
        except asyncio.CancelledError:
            driver.note_cancel(branch)
            if driver.ending is not None and not driver.engine.is_loop_ending:
                raise Parked from None
            raise
        except (LogWriteError, LogClosedError) as error:
            driver.log_failed(error)
        if driver.ending is not None:
            raise Parked
        state = shell.state
        started = ChildStarted(call.key, branch.path, run, workflow, call.digest, call.is_awaited)
        if state.status == "unborn":
            kin.start(driver, started, shell, call.data, call.deadline)
            return run
        if call.run is None or _had_it_before(driver, call, state):
            attempt += 1  # an id that is taken by an operator's retry, or a derived one by chance, is nobody's mistake
            continue
        if not call.is_awaited and (state.workflow, state.digest) == (workflow, call.digest):
            driver.note(started)
            return run
        reason = _conflict(run, state.workflow, workflow, is_same_input=state.digest == call.digest)
        driver.note(ChildRefused(call.key, branch.path, run, workflow, call.digest, call.is_awaited, reason))
        raise _failed(call.key, "RunConflictError", reason)


def _had_it_before(driver: "Driver", call: ChildCall, state: RunState) -> bool:
    """Return whether a run is the child of this very step from before an operator had the parent tried again."""
    parent = state.parent
    is_own = call.is_awaited and parent is not None and (parent.run, parent.step) == (driver.run_id, call.key)
    return is_own and not driver.offspring.is_open(call.key)


def _conflict(run: str, known: str, asked: str, *, is_same_input: bool) -> str:
    if known != asked:
        return f"the id {run!r} belongs to a run of {known}"
    if not is_same_input:
        return f"the id {run!r} belongs to a run of {known} with other input"
    return f"the run {run!r} was there before: only a run that one starts itself can be awaited"


# The wait


async def _result(driver: "Driver", branch: Branch, call: ChildCall, run: str) -> Any:
    while (ended := driver.offspring.end(call.key)) is None:
        try:
            await driver.offspring.wait(branch, call.key)
        except asyncio.CancelledError:
            if driver.engine.is_loop_ending:
                raise
            driver.note(ChildCancelRequested(call.key, run))
            await _until_gone(driver, branch, call.key, run)
            raise
    if ended.status != "completed":
        raise _failed(call.key, ended.error_type, ended.error)
    return call.workflow.result_decoder.decode(ended.result, call.key)


async def _until_gone(driver: "Driver", branch: Branch, step: str, run: str) -> None:
    """Have a child cancelled that is awaited no more, and wait for its end: its compensations come first."""
    if not driver.offspring.is_open(step):
        return
    driver.at_edge()
    driver.engine.kin.cancel(run, f"run {driver.run_id}, which awaits it, was cancelled there")
    while driver.offspring.is_open(step):
        try:
            await driver.offspring.wait(branch, step)
        except asyncio.CancelledError:
            if driver.engine.is_loop_ending:
                raise
