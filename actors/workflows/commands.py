"""What a run's actor can be asked, and the effects that its answers have. Data only; the rules are in `run.py`."""

import msgspec

from perdure.actors.kernel.messages import Command, Effect
from perdure.actors.workflows.events import QuestionAnswered, RunFact, StepCompleted, StepFailed, StepNotDone


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


class ResumeRun(Command, frozen=True, tag="resume-run"):
    """Prepare to run the code again; answered with whether it may."""

    life: int


class Note(Command, frozen=True, tag="note"):
    """Record what the run's own code reports."""

    fact: RunFact


class CancelRun(Command, frozen=True, tag="cancel-run"):
    """Ask for the run to be cancelled; answered with whether it was still open."""

    reason: str


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


class GetRun(Command, frozen=True, tag="get-run"):
    """Ask how the run stands; answered with a `RunView`."""


class Launch(Effect, frozen=True, tag="launch"):
    """Run the code of a run that has just been started."""

    input: msgspec.Raw
    principal: str | None = None


class Interrupt(Effect, frozen=True, tag="interrupt"):
    """Tell the run's code that it is to be cancelled, waking it if it sleeps."""


class Settled(Effect, frozen=True, tag="settled"):
    """Tell the run's code that a step in doubt was settled, waking it if it sleeps."""

    step: str
    verdict: StepCompleted | StepFailed | StepNotDone


class Arrived(Effect, frozen=True, tag="arrived"):
    """Tell the run's code that a signal that it waits for, or an answer, has come, waking it if it sleeps."""

    answer: QuestionAnswered | None = None
