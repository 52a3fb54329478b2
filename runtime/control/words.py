"""The requests that stand for one method of the runtime each: their fields are its arguments. Pure data.

Here are those about runs and the runtime as a whole, and `AnyWord`, which is all of them; each facet has a module of
its own beside this one (`entry_words.py`, …). Not here: which method a word is (`meanings.py`), and requests that have
to be read, checked or put together first (`messages.py`). Invariant: a field has the name of the argument that it is.
"""

from typing import TypeAlias

from perdure.runtime.control.entry_words import EntryWord
from perdure.runtime.control.event_words import EventWord
from perdure.runtime.control.request import Word
from perdure.runtime.control.slot_words import SlotWord
from perdure.runtime.control.state_words import StateWord
from perdure.runtime.control.tool_words import ToolWord

# Runs


class RetryRun(Word, frozen=True, tag="retry-run"):
    """Retry a run that failed."""

    run: str
    who: str | None = None


class Resume(Word, frozen=True, tag="resume"):
    """Bring back open runs, or one."""

    run: str | None = None


class Questions(Word, frozen=True, tag="questions"):
    """List the open questions."""


class Waiting(Word, frozen=True, tag="waiting"):
    """List the open runs that are not in memory."""


class UntilIdle(Word, frozen=True, tag="until-idle"):
    """Wait until no run can go on by itself."""


# Looking


class Statistics(Word, frozen=True, tag="statistics"):
    """Ask for the runtime's figures."""


class WorkflowStatistics(Word, frozen=True, tag="get-stats"):
    """Ask for the figures of defined workflows and of agents."""


class ReadBlob(Word, frozen=True, tag="blob"):
    """Read a large value by its hash."""

    sha256: str


AnyWord: TypeAlias = (
    RetryRun | Resume | Questions | Waiting | UntilIdle | Statistics | WorkflowStatistics | ReadBlob
    | EntryWord | EventWord | StateWord | ToolWord | SlotWord
)  # fmt: skip
