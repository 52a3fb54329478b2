"""What a workflow asks for as a step, and what it is told of one that is over.

It performs nothing. Invariant: a step that is read back from the recording ends for the workflow as it ended live.
"""

from datetime import timedelta
from typing import Any

import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.tools.retry import Retry
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.events import StepFailed, StepKind
from perdure.actors.workflows.recording import StepRecord


class StepCall(msgspec.Struct, frozen=True):
    """What a workflow asks for."""

    key: str
    kind: StepKind
    tool: Tool[..., Any]
    arguments: bytes
    digest: str
    retry: Retry
    timeout: timedelta | None
    limit_key: str = ""
    """Whose bucket of the tool's rate limit the call takes its token from."""
    may_fall_back: bool = False
    """Whether another tool stands by: then a refused attempt does not wait."""


def failed(fact: StepFailed) -> StepFailedError:
    """Return the error that the workflow gets for a failed step."""
    return StepFailedError(step=fact.step, error_type=fact.error_type, error=fact.error, retryable=fact.retryable)


def replayed(record: StepRecord, call: StepCall, branch: Branch) -> Any:
    """Return the recorded result of a finished step, or raise its recorded end.

    Raises:
        StepFailedError, CancelledError: as it ended live.
        UnencodableError: the result no longer fits the declared type.
    """
    if record.progress == "failed":
        raise StepFailedError(
            step=call.key, error_type=record.error_type, error=record.error, retryable=record.retryable
        )
    if record.progress == "cancelled":
        raise branch.cut()
    return call.tool.result_decoder.decode(record.result, call.key)
