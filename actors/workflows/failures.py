"""How a workflow's failure is told: as a fact in the log and, as long as somebody waits for it here, with its cause.

Invariant: what is recorded is names and texts; an exception itself never outlives the wait for it.
"""

from collections import Counter

import msgspec

from perdure.actors.kernel.accounts import place_of
from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.tools.outcome import recordable
from perdure.actors.workflows.errors import StepFailedError, WorkflowFailedError
from perdure.actors.workflows.events import RunFailed
from perdure.store.errors import PerdureError


class Failures:
    """The exceptions that runs have ended with in this life, where somebody has asked to be told."""

    def __init__(self) -> None:
        self._awaited: Counter[str] = Counter()
        self._found: dict[str, BaseException] = {}

    def expect(self, run: str) -> None:
        """Keep the exception that a run ends with, until `take` has been called as often."""
        self._awaited[run] += 1

    def add(self, run: str, error: BaseException) -> None:
        """Take note of what a run ended with."""
        if run in self._awaited:
            self._found[run] = error

    def take(self, run: str) -> BaseException | None:
        """Return what a run that was expected ended with, if it has in this life, and keep it no longer."""
        found = self._found.get(run)
        self._awaited[run] -= 1
        if not self._awaited[run]:
            del self._awaited[run]
            self._found.pop(run, None)
        return found


def overdue(run: str) -> RunFailed:
    """Return the fact that a run's deadline has passed."""
    return RunFailed("DeadlineExceededError", f"the deadline of run {run} has passed")


def failure_of(error: Exception, redaction: Redaction) -> RunFailed:
    """Return the fact that a workflow's error is."""
    step = _failed_step(error)
    if not isinstance(error, WorkflowFailedError):
        return RunFailed(type(error).__name__, recordable(str(error)), step, where=recordable(place_of(error)))
    return RunFailed(
        error.error_type,
        recordable(error.error),
        step,
        error.step_id,
        error.agent,
        "compensated" if error.status == "compensated" else "failed",
        _encoded(error, redaction),
    )


def _encoded(error: WorkflowFailedError, redaction: Redaction) -> msgspec.Raw:
    where = f"what {error.workflow_id} had come to"
    try:
        return msgspec.Raw(encode_payload(error.result, where=where, redaction=redaction))
    except PerdureError:  # it cannot be recorded; that the workflow failed can
        return msgspec.Raw(b"null")


def _failed_step(error: BaseException) -> str | None:
    """Return the key of the step whose failure the code raised, or made an error of its own of."""
    known: list[BaseException] = []
    while error not in known:
        if isinstance(error, StepFailedError):
            return error.step
        known.append(error)
        error = error.__cause__ or error.__context__ or error
    return None
