"""What becomes of a step whose call may or may not have happened: its tool is asked, then a person.

Nothing here makes the call again. Invariant: a verdict of a person counts for more than what the tool says later.
"""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from perdure.actors.tools.definition import Done, NotDone
from perdure.actors.tools.invoke import ending
from perdure.actors.workflows.calls import failed
from perdure.actors.workflows.events import StepCompleted, StepFailed, StepInDoubt, StepNotDone, Stuck
from perdure.actors.workflows.progress import Progress

if TYPE_CHECKING:
    from perdure.actors.workflows.endings import Verdict

RECONCILE_LIMIT = timedelta(seconds=60)
"""How long a tool's `reconcile` may take before a person is asked."""


WHY_STUCK: dict[Stuck, str] = {"compensation": "compensation failed", "pivot": "failed past the pivot"}
"""How the reason begins for which a person is asked of a step that failed for good and may not."""


class Standstill(Exception):  # noqa: N818 - no failure: a compensation waits for a person, and lets the others go first
    """Nothing more can be done for a compensation before somebody says what became of it."""


class _Happened(msgspec.Struct, frozen=True):
    """A reconciliation found the result of a call."""

    result: bytes
    value: Any


_Said: TypeAlias = tuple[_Happened | NotDone | None, str]
"""What a reconciliation says; None when it cannot say, and why."""


async def resolve_doubt(step: Progress, *, is_noted: bool) -> Done | NotDone | None:
    """Find out whether the call happened; ask the tool, then a person.

    Args:
        step: the step in doubt.
        is_noted: whether the log has it that the step is in doubt.

    Returns:
        Done: it happened, with this result. NotDone: the tool says that it did not. None: a person says so.

    Raises:
        StepFailedError: a person says that it failed.
        CancelledError, Parked: as `Progress.wait`.
    """
    key, driver = step.call.key, step.driver
    answer, reason = await _reconcile(step)
    if (verdict := driver.verdict(key)) is not None:
        return judged(step, verdict)  # a person was faster
    if isinstance(answer, _Happened):
        step.complete(answer.result, 0)
        return Done(answer.value)
    if isinstance(answer, NotDone):
        driver.note(StepNotDone(key, "reconcile"))
        return answer
    if not is_noted:
        driver.note(StepInDoubt(key, step.attempt, reason))
    return await verdict_of_a_person(step)


async def verdict_of_a_person(step: Progress) -> Done | None:
    """Wait until a person says what became of the step; see `judged`.

    Raises:
        Standstill: it is a compensation; others run before anybody waits.
        StepFailedError: a person says that it failed.
        CancelledError, Parked: as `Progress.wait`.
    """
    while (verdict := step.driver.verdict(step.call.key)) is None:
        if step.call.undoes:
            raise Standstill
        await step.wait(None)
    return judged(step, verdict)


def judged(step: Progress, verdict: "Verdict") -> Done | None:
    """Return the result that a person gave; None: they say that it did not happen.

    Raises:
        StepFailedError: they say that it failed.
    """
    match verdict:
        case StepCompleted() if step.call.undoes:
            return Done()  # nobody reads it, and what a person undid by hand has none
        case StepCompleted(result=result):
            return Done(step.call.tool.result_decoder.decode(result, step.call.key))
        case StepFailed():
            raise failed(verdict)
        case StepNotDone():
            return None


async def _reconcile(step: Progress) -> _Said:
    tool, engine = step.call.tool, step.driver.engine
    if tool.reconcile is None:
        return None, "the process ended during the call, and the tool has no reconcile"
    try:
        async with asyncio.timeout(None) as limit, ending(engine.clock, limit, RECONCILE_LIMIT):
            engine.invoker.prepare()
            answer = await tool.reconcile(step.call_id)
        return _understood(step, answer)
    except asyncio.CancelledError:
        step.give_up(stopped=False)
        raise
    except Exception as error:  # noqa: BLE001 - a reconcile that fails leaves the doubt, and says so
        return None, f"reconcile failed: {type(error).__name__}: {error}"


def _understood(step: Progress, answer: object) -> _Said:
    tool = step.call.tool
    match answer:
        case Done(result=result):
            data = step.driver.engine.encode(result, f"what {tool.name}'s reconcile returned")
            return _Happened(data, tool.result_decoder.decode(data, f"what {tool.name}'s reconcile returned")), ""
        case NotDone():
            return answer, ""
        case _:
            return None, f"reconcile returned {type(answer).__name__}: return Done(result) or NotDone()"
