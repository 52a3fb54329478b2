"""Runs defined workflows to their end for a caller, and tells of a failure as one error with everything about it.

It decides nothing about a run. Invariant: what is told is read from the log, the same in every life of the runtime;
only the original exception is there no longer than the life that it was raised in.
"""

from typing import TYPE_CHECKING, Any

import msgspec
import uuid_utils

from perdure.actors.kernel.clock import SECOND
from perdure.actors.workflows.errors import (
    RunBlockedError,
    RunCancelledError,
    RunFailedError,
    StepFailedError,
    WorkflowFailedError,
)
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.options import OptionValues
    from perdure.runtime.reach import Reach

_ENDS = ("run-completed", "run-failed", "run-cancelled", "run-continued")


class _Continued(msgspec.Struct, frozen=True):
    """Of a `run-continued`, the run that goes on."""

    run: str


class _Failed(msgspec.Struct, frozen=True):
    """Of a `run-failed`, what is told."""

    error_type: str
    error: str
    step: str | None = None
    step_id: str | None = None
    agent: str | None = None
    outcome: str = "failed"
    result: Any = None


async def execute(runtime: "Reach", options: "OptionValues", workflow_id: str, data: dict[str, Any]) -> dict[str, Any]:
    """Run a workflow to its end. See `Runtime.execute`."""
    run = options.id or str(uuid_utils.uuid7())
    failures = runtime.failures
    failures.expect(run)
    cause: BaseException | None = None
    try:
        handle = await runtime.start_data(workflow_id, data, msgspec.structs.replace(options, id=run))
        result = await handle.result()
        spent = await _duration(runtime, run)
        return {"workflow_id": workflow_id, "status": "completed", "result": result, "duration": spent}
    except RunCancelledError as error:
        raise _told(workflow_id, error, "cancelled", error.reason) from error
    except RunBlockedError as error:
        raise _told(workflow_id, error, "blocked", str(error)) from error
    except RunFailedError:
        pass  # told below, with its cause
    finally:
        cause = failures.take(run)
    raise await _failure(runtime, workflow_id, run) from _original(cause)


def _told(workflow_id: str, error: Exception, status: str, text: str) -> WorkflowFailedError:
    return WorkflowFailedError(workflow_id=workflow_id, error_type=type(error).__name__, error=text, status=status)


async def _failure(runtime: "Reach", workflow_id: str, run: str) -> WorkflowFailedError:
    fact = msgspec.json.decode((await _end(runtime, run)).data or "{}", type=_Failed)
    is_late = fact.error_type == "DeadlineExceededError"
    return WorkflowFailedError(
        workflow_id=workflow_id,
        step_id=fact.step_id or fact.step,
        agent=fact.agent,
        error_type=fact.error_type,
        error=fact.error,
        status="timed_out" if is_late else fact.outcome,
        result=fact.result,
    )


def _original(error: BaseException | None) -> BaseException | None:
    """Return what was raised at first: under the failure of the workflow, and of its step, the exception itself."""
    while isinstance(error, (WorkflowFailedError, StepFailedError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


async def _duration(runtime: "Reach", run: str) -> float:
    """Return the seconds between a run's first event and its end."""
    first: Recorded
    (first,) = await runtime.read(Query(stream=StreamId(f"run/{run}"), limit=1))
    return ((await _end(runtime, run)).at - first.at) / SECOND


async def _end(runtime: "Reach", run: str) -> Recorded:
    """Return the last event of a run that has ended, or of the one that it went on as."""
    while True:
        end: Recorded
        (end,) = await runtime.read(Query(stream=StreamId(f"run/{run}"), types=_ENDS, newest_first=True, limit=1))
        if end.type != "run-continued":
            return end
        run = msgspec.json.decode(end.data or "{}", type=_Continued).run
