"""The code's side of child runs: a recorded start and a recorded wait, from the recording or live to its end.

Not here: what the two actors know of one another (`children.py`), the way between them (`kin.py`), and what a run that
waits for children holds meanwhile (`offspring.py`). Invariant: an awaited child has ended before the code that awaits
it goes on, also when that code is cancelled.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.children import child_id, has_name, named_child_id
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.doubt import WHY_STUCK
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import StepCompleted, StepFailed, StepInDoubt, StepNotDone
from perdure.actors.workflows.lineage import is_of_a_fork
from perdure.actors.workflows.links import ChildCancelRequested, ChildEnded, ChildRefused, ChildStarted
from perdure.actors.workflows.state import RunState
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

T = TypeVar("T")


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
    limit: timedelta | None = None
    """How long the child may take."""


def child_deadline(driver: "Driver", branch: Branch, call: ChildCall) -> int | None:
    """Return the deadline of a child that starts now, in microseconds; None: it has none.

    An awaited child has the parent's deadline if that is sooner than its own, unless a pivot was passed.
    """
    now, is_bound = driver.engine.clock.moment().now, call.is_awaited and not branch.pivots
    own = None if call.limit is None else now + call.limit // timedelta(microseconds=1)
    limits = [limit for limit in (own, driver.deadline if is_bound else None) if limit is not None]
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
        return await _begin_and_await(driver, branch, call)
    if record.is_given_up or (branch.is_cut and (record.progress == "dispatched" or record.is_unsettled)):
        if not record.is_given_up:
            driver.note(ChildCancelRequested(call.key, record.run))
        cancelled = branch.cut()
        await _until_gone(driver, branch, call.key, record.run)
        raise cancelled
    if record.progress == "dispatched":
        return await _result(driver, branch, call, record.run)
    if record.is_unsettled:
        return await _go_on(driver, branch, call, record)
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


async def _begin_and_await(driver: "Driver", branch: Branch, call: ChildCall) -> Any:
    return await _result(driver, branch, call, await _begin(driver, branch, call))


async def _begin(driver: "Driver", branch: Branch, call: ChildCall) -> str:
    """Start the child and return its id.

    Raises:
        StepFailedError: its id is another run's.
        CancelledError, Parked: it was not started.
    """
    await driver.keep_pace()
    kin, workflow, attempt = driver.engine.kin, call.workflow.name, 1
    mark: str | None = None
    while True:
        run = _id_of(driver, call, attempt, mark)
        shell = await _read(driver, branch, kin.shell(run))
        state = shell.state
        is_past_pivot = call.is_awaited and bool(branch.pivots)
        started = ChildStarted(call.key, branch.path, run, workflow, call.digest, call.is_awaited, is_past_pivot)
        if state.status == "unborn":
            kin.start(driver, started, shell, call.data, child_deadline(driver, branch, call))
            return run
        if call.run is None or _had_it_before(driver, call, state):
            attempt += 1  # an id that is taken by an operator's retry, or a derived one by chance, is nobody's mistake
            continue
        if not call.is_awaited and (state.workflow, state.digest) == (workflow, call.digest):
            driver.note(started)
            return run
        if mark is None and await _read(driver, branch, is_of_a_fork(kin, driver.run_id, state.parent)):
            mark, attempt = driver.run_id, 1
            continue
        reason = _conflict(run, state.workflow, workflow, is_same_input=state.digest == call.digest)
        driver.note(ChildRefused(call.key, branch.path, run, workflow, call.digest, call.is_awaited, reason))
        raise _failed(call.key, "RunConflictError", reason)


def _id_of(driver: "Driver", call: ChildCall, attempt: int, mark: str | None) -> str:
    """Return the id that the child gets: the one that the code gives it, or one that follows from the step."""
    if call.run is None:
        return child_id(driver.run_id, call.key, attempt)
    return named_child_id(call.run, attempt, mark)


async def _read(driver: "Driver", branch: Branch, found: Coroutine[Any, Any, T]) -> T:
    """Read what has to be known before a child can be started.

    Raises:
        CancelledError, Parked: the child is not to be started.
    """
    try:
        result = await found
    except asyncio.CancelledError:
        driver.note_cancel(branch)
        if driver.ending is not None and not driver.engine.is_loop_ending:
            raise Parked from None
        raise
    except (LogWriteError, LogClosedError) as error:
        driver.log_failed(error)
    if driver.ending is not None:
        raise Parked
    return result


def _had_it_before(driver: "Driver", call: ChildCall, state: RunState) -> bool:
    """Return whether a run is a former child of this step, from before an operator had the parent tried again."""
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
    if ended.status != "completed" and branch.pivots:
        return await _stand_still(driver, branch, call, ended)
    if ended.status != "completed":
        raise _failed(call.key, ended.error_type, ended.error)
    return call.workflow.result_decoder.decode(ended.result, call.key)


async def _until_gone(driver: "Driver", branch: Branch, step: str, run: str) -> None:
    """Have a child cancelled that is awaited no more, and wait for its end: its compensations come first."""
    if not driver.offspring.is_open(step):
        return
    driver.at_edge()
    driver.engine.kin.cancel(run, f"run {driver.run_id}, which awaits it, was cancelled there")
    branch.shields += 1  # it has been cancelled and waits, maybe for long: the run need not stay in memory for that
    try:
        while driver.offspring.is_open(step):
            try:
                await driver.offspring.wait(branch, step)
            except asyncio.CancelledError:
                if driver.engine.is_loop_ending:
                    raise
    finally:
        branch.shields -= 1


# Past a pivot: a child that failed is left to a person


async def _go_on(driver: "Driver", branch: Branch, call: ChildCall, record: StepRecord) -> Any:
    if record.known_not_done:
        return await _begin_and_await(driver, branch, call)
    driver.at_edge()
    if record.in_doubt:
        return await _judged(driver, branch, call, record.run)
    ended = ChildEnded(call.key, record.run, "failed", record.result, record.error_type, record.error)
    return await _stand_still(driver, branch, call, ended)


async def _stand_still(driver: "Driver", branch: Branch, call: ChildCall, ended: ChildEnded) -> Any:
    reason = f"{WHY_STUCK['pivot']}: {ended.error_type}: {ended.error}"
    driver.note(StepInDoubt(call.key, 1, reason, "pivot", call.workflow.name))
    return await _judged(driver, branch, call, ended.run)


async def _judged(driver: "Driver", branch: Branch, call: ChildCall, run: str) -> Any:
    """Wait until a person says what became of the child that failed, and do what they say.

    Raises:
        StepFailedError: they say that it failed.
        CancelledError, Parked: as `Driver.wait`.
    """
    while (verdict := driver.verdict(call.key)) is None:
        try:
            await driver.wait(branch, None, call.key)
        except asyncio.CancelledError:
            if driver.engine.is_loop_ending:
                raise
            if driver.ending is not None:
                raise Parked from None
            driver.note(ChildCancelRequested(call.key, run))
            raise
    match verdict:
        case StepCompleted(result=result):
            return call.workflow.result_decoder.decode(result, call.key)
        case StepFailed(error_type=error_type, error=error):
            raise _failed(call.key, error_type, error)
        case StepNotDone():
            return await _begin_and_await(driver, branch, call)
