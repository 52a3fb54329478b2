"""What is recorded of one step, whatever kind of step it is: plain data that the replay reads.

Not here: how it comes about (`folding.py`) and who is handed it (`recording.py`).
"""

from typing import Literal, TypeAlias

import msgspec

from perdure.actors.workflows.events import Stuck

Progress: TypeAlias = Literal["dispatched", "backing_off", "completed", "failed", "cancelled"]


class StepRecord(msgspec.Struct):
    """One recorded step, folded from its events."""

    what: Literal[
        "step", "saga", "pivot", "skip", "path", "value", "timer", "branches", "timeout", "signal", "question", "child",
        "detached", "event", "publication", "pause", "state", "goal",
    ]  # fmt: skip
    branch: str
    name: str
    at: int
    progress: Progress = "dispatched"
    before: Progress = "dispatched"
    """Of a cancelled one: how far it was."""
    effect: str = ""
    digest: str = ""
    attempt: int = 1
    due: int = 0
    """When the next attempt, or the end of the sleep, is due."""
    until: int | None = None
    """When the wait for a signal or an answer ends by itself."""
    in_doubt: bool = False
    known_not_done: bool = False
    stuck: Stuck = ""
    """Why a person is asked of it, when it is not that its outcome is unknown."""
    was_dispatched: bool = True
    """Whether its tool may have been called."""
    base: int = 0
    """Attempts that count no more: a person had it tried again after them."""
    has_token: bool = False
    """Whether it waits for a token of the rate limit that is spoken for."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    error: str = ""
    retryable: bool = False
    timed_out: bool = False
    micros: int = 0
    """How long the last attempt took."""
    count: int = 0
    failed: int | None = None
    """The branch whose failure was raised."""
    run: str = ""
    """The child run."""
    is_given_up: bool = False
    """Whether the wait for the child was cancelled: what it comes to counts no more."""
    past_pivot: bool = False
    """Whether a person is asked before the code is told that the child failed."""
    won: int | None = None
    """The branch that won a race."""

    @property
    def is_unsettled(self) -> bool:
        """Whether it is a child that failed past a pivot, of which a person has not said that it failed."""
        return self.past_pivot and self.progress == "failed"
