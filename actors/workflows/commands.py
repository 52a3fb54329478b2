"""What a run's actor can be asked, and the effects that its answers have. Data only; the rules are in `run.py`."""

from typing import Literal

import msgspec

from perdure.actors.kernel.messages import Command, Effect
from perdure.actors.state.shared_state import ChangeState, StateMoved
from perdure.actors.workflows.entrance import Entrance
from perdure.actors.workflows.events import (
    Origin,
    Place,
    RunCancelled,
    RunCompleted,
    RunFact,
    RunFailed,
    RunRetried,
    StepCompleted,
    StepFailed,
    StepNotDone,
)
from perdure.actors.workflows.holdings import StateWritten
from perdure.actors.workflows.links import Chain, ChildEnded, EntryTold, Parent, ParentTold, RunContinued
from perdure.actors.workflows.mail import QuestionAnswered, SignalReceived
from perdure.actors.workflows.occurrences import EventPlacesMoved


class StartRun(Command, frozen=True, tag="start-run"):
    """Start the run, or find that it is the same one; answered with a `RunView`."""

    workflow: str
    input: msgspec.Raw
    digest: str
    life: int
    deadline: int | None = None
    conversation: str | None = None
    principal: str | None = None
    """Who asks; recorded as the principal of `run-started`."""
    forked_from: Origin | None = None
    """What it takes over from another run."""
    place: Place | None = None
    """The queue that it is to wait in; without one it runs at once."""
    parent: Parent | None = None
    chain: Chain | None = None
    mail: tuple[SignalReceived | EventPlacesMoved | StateMoved, ...] = ()
    """Signals that came before it started, to the run that it goes on for, and what else that had."""
    entrance: Entrance | None = None
    """By which entry point it comes in."""


class ResumeRun(Command, frozen=True, tag="resume-run"):
    """Prepare to run the code again; answered with whether it may."""

    life: int


class Note(Command, frozen=True, tag="note"):
    """Record what the run's own code reports."""

    fact: RunFact


class WriteState(Command, frozen=True, tag="write-state"):
    """Record that the run's own code changes values of the run."""

    fact: StateWritten
    change: ChangeState


class EndRun(Command, frozen=True, tag="end-run"):
    """Record the end of the run, of which its parent, if it has one that waits, is told in the same unit.

    So is the entry point that started it.
    """

    fact: RunCompleted | RunFailed | RunCancelled | RunContinued
    told: ParentTold | EntryTold | None = None


class EndChild(Command, frozen=True, tag="end-child"):
    """Tell a run how an awaited child of it ended; answered with whether that is news. May be told again."""

    ended: ChildEnded


class TellParent(Command, frozen=True, tag="tell-parent"):
    """Note that the parent was told how this run ended; answered with whether that is news."""


class TellEntry(Command, frozen=True, tag="tell-entry"):
    """Note that the entry point was told how this run ended."""

    fact: EntryTold


class CancelRun(Command, frozen=True, tag="cancel-run"):
    """Ask for the run to be cancelled; answered with whether it was still open."""

    reason: str


class PauseRun(Command, frozen=True, tag="pause-run"):
    """Have the run stop where it is, until `UnpauseRun`; answered with whether that changed anything."""

    reason: str


class UnpauseRun(Command, frozen=True, tag="unpause-run"):
    """Let a paused run go on; answered with whether that changed anything."""

    answer: str | None = None
    """JSON, for a workflow that has paused itself; null when left out."""
    at: str = ""
    """Where it has paused itself; empty: at the only place."""
    who: str | None = None


class ReportInterrupted(Command, frozen=True, tag="report-interrupted"):
    """Hold the run if the process ended while it was in memory in a former life; answered with whether it is held."""

    life: int


class RetryRun(Command, frozen=True, tag="retry-run"):
    """Have a run that failed, or was blocked, tried again; refused unless it was retried *retries* times before."""

    fact: RunRetried
    retries: int


class SettleStep(Command, frozen=True, tag="settle-step"):
    """Say what became of a step in doubt."""

    step: str
    fact: StepCompleted | StepFailed | StepNotDone


class SendSignal(Command, frozen=True, tag="send-signal"):
    """Send the run a signal; answered with whether it is new. A signal with an `id` is delivered once."""

    name: str
    value: msgspec.Raw
    id: str | None = None


class AnswerQuestion(Command, frozen=True, tag="answer-question"):
    """Answer an open question of the run."""

    question: str
    answer: msgspec.Raw
    who: str | None = None
    on_behalf: str = ""
    """Whose answer *who* passes on; empty: their own."""


class DecideApproval(Command, frozen=True, tag="decide-approval"):
    """Approve a call, with other arguments where they are given, or reject it."""

    question: str
    verdict: Literal["approved", "rejected"]
    who: str
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    """Null: as they are."""
    reason: str = ""
    digest: str = ""
    """Of the tool and the arguments that were looked at; empty: those that the run asked for."""
    on_behalf: str = ""
    """Whose word *who* passes on; empty: their own."""


class FindEvent(Command, frozen=True, tag="find-event"):
    """Wake the run for an event that a step waits for; answered with whether it sleeps, and waits for it."""

    step: str
    position: int


class GetRun(Command, frozen=True, tag="get-run"):
    """Ask how the run stands; answered with a `RunView`."""


class Launch(Effect, frozen=True, tag="launch"):
    """Run the code of a run that has just been started."""

    input: msgspec.Raw
    principal: str | None = None
    is_fork: bool = False
    """Whether it takes over what another run recorded, which has to be read first."""
    position: int = 0

    def placed(self, position: int) -> "Launch":
        """Return it with the place of the start in the log."""
        return msgspec.structs.replace(self, position=position)


class Enqueue(Effect, frozen=True, tag="enqueue"):
    """Have a run that has just been started wait for its turn."""

    place: Place
    at: int


class Interrupt(Effect, frozen=True, tag="interrupt"):
    """Tell the run's code that it is to be cancelled, waking it if it sleeps."""


class Pause(Effect, frozen=True, tag="pause"):
    """Have the run's code leave memory as soon as no step is in flight."""


class Wake(Effect, frozen=True, tag="wake"):
    """Bring the run's code back into memory, if it is not there."""


class Settled(Effect, frozen=True, tag="settled"):
    """Tell the run's code that a step in doubt was settled, waking it if it sleeps."""

    step: str
    verdict: StepCompleted | StepFailed | StepNotDone


class Arrived(Effect, frozen=True, tag="arrived"):
    """Tell the run's code that a signal that it waits for, or an answer, has come, waking it if it sleeps."""

    answer: QuestionAnswered | None = None


class ChildReported(Effect, frozen=True, tag="child-reported"):
    """Tell the run's code that an awaited child has ended, waking it if it sleeps."""

    ended: ChildEnded


class Conclude(Effect, frozen=True, tag="conclude"):
    """Settle what a run that has ended still owes: its parent is told, and its own children are cancelled."""
