"""What a workflow asks for as a step, and what it is told of one that is over.

It performs nothing. Invariant: a step that is read back from the recording ends for the workflow as it ended live.
"""

from datetime import timedelta
from typing import Any, get_args

import msgspec

from perdure.actors.tools.definition import EffectClass, Tool
from perdure.actors.tools.retry import Retry
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.events import StepFailed, StepKind, Stuck
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import UsageError


class Fate(msgspec.Struct):
    """What somebody wants to know of a step, however it ends."""

    key: str = ""
    was_dispatched: bool = False
    """Whether its tool may have been called."""


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
    of_class: EffectClass | None = None
    """What a crash means for this call, where that is another thing than what the tool says."""
    stuck: Stuck = ""
    """Why a failure for good is not raised: a person is asked first, since neither saga nor code could make it good."""
    undoes: str = ""
    """The key of the step that this one compensates."""
    fate: Fate | None = None

    @property
    def must_end(self) -> bool:
        """Whether it goes on though the run is to be cancelled, or its deadline has passed."""
        return bool(self.stuck or self.undoes)

    @property
    def effect(self) -> EffectClass:
        """What a crash means for the call."""
        return self.of_class or self.tool.effect


def failed(fact: StepFailed) -> StepFailedError:
    """Return the error that the workflow gets for a failed step."""
    return StepFailedError(
        step=fact.step,
        error_type=fact.error_type,
        error=fact.error,
        retryable=fact.retryable,
        timed_out=fact.timed_out,
    )


def replayed(record: StepRecord, call: StepCall, branch: Branch) -> Any:
    """Return the recorded result of a finished step, or raise its recorded end.

    Raises:
        StepFailedError, CancelledError: as it ended live.
        UnencodableError: the result no longer fits the declared type.
    """
    branch.took = record.micros
    if call.fate is not None:
        call.fate.was_dispatched = record.was_dispatched
    if record.progress == "failed":
        raise StepFailedError(
            step=call.key,
            error_type=record.error_type,
            error=record.error,
            retryable=record.retryable,
            timed_out=record.timed_out,
        )
    if record.progress == "cancelled":
        raise branch.cut()
    if call.undoes:
        return None  # nobody reads it, and what a person undid by hand has none
    return call.tool.result_decoder.decode(record.result, call.key)


class CallOptions(msgspec.Struct, frozen=True):
    """What a call does not say through the tool's own arguments."""

    key: str | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    fallback: Tool[..., Any] | None = None
    limit_key: str = ""
    effect: EffectClass | None = None
    fate: Fate | None = None
    id: str | None = None
    deadline: timedelta | None = None


def check_tool(tool: object) -> None:
    """Check that what is to be called is a tool.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(tool, Tool):
        raise UsageError(f"{tool!r} is not a tool: decorate it with @tool, or run an async function with ctx.step(…)")


def check_call_options(retry: object, fallback: object, effect: object) -> None:
    """Check what a call is to be made with; None is left out.

    Raises:
        UsageError: one of them is not what it should be.
    """
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"retry is a Retry(…), not {retry!r}")
    if fallback is not None and not isinstance(fallback, Tool):
        raise UsageError(f"fallback is a tool, not {fallback!r}")
    if effect is not None and effect not in get_args(EffectClass):
        raise UsageError(f"effect is one of {', '.join(get_args(EffectClass))}, not {effect!r}")
