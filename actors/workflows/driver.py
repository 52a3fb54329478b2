"""Runs the code of one run: from the recording to its live edge, on to its end, its parking or its mismatch.

The run's actor decides and records; the driver owns the tasks. Invariant: however the code ends, exactly one fact
about that end is recorded, and none when the process is to find the run as it was.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import Transaction
from perdure.actors.state.seen import Seen
from perdure.actors.tools.outcome import recordable
from perdure.actors.workflows.account import arguments_beside
from perdure.actors.workflows.branch import CURRENT, Branch, guarded
from perdure.actors.workflows.children import CHILD
from perdure.actors.workflows.commands import Note
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.endings import (
    Abandoned,
    Blocking,
    Ending,
    Parking,
    Pausing,
    Suspending,
    Verdict,
    Wait,
)
from perdure.actors.workflows.enlisting import leave_listings, with_listings
from perdure.actors.workflows.errors import Continuing, Parked
from perdure.actors.workflows.events import (
    RunBlocked,
    RunCancelled,
    RunCompleted,
    RunFact,
    RunFailed,
    RunParked,
    RunSuspended,
)
from perdure.actors.workflows.failures import failure_of, overdue
from perdure.actors.workflows.kin import Succession
from perdure.actors.workflows.mail import QuestionAnswered
from perdure.actors.workflows.mailbox import ANSWER, SIGNAL
from perdure.actors.workflows.offspring import Offspring
from perdure.actors.workflows.recording import Recording
from perdure.actors.workflows.scopes import Limits
from perdure.actors.workflows.state import ATTENTION
from perdure.actors.workflows.steering import PAUSED
from perdure.actors.workflows.step_record import StepRecord
from perdure.actors.workflows.subscriptions import EVENT
from perdure.actors.workflows.versions import Versions
from perdure.store.errors import LogClosedError, LogWriteError, PerdureError
from perdure.store.protocols import Ticket

if TYPE_CHECKING:
    from perdure.actors.workflows.engine import Engine

_INTERRUPTED = (
    "recorded: nothing that cancelled the code | now: the code was cancelled by something that is not recorded, such "
    "as asyncio.timeout: put the limit on the call, ctx.with_options(timeout=…), or around what a tool does"
)
_SHOWN = 3
"""Recorded steps named in an account of a mismatch."""


class Driver:
    """Owns the tasks of one run while it is in memory."""

    def __init__(
        self,
        engine: "Engine",
        shell: Shell,
        workflow: Workflow[Any, Any],
        given: dict[str, Any],
        recording: Recording,
        principal: str | None = None,
    ) -> None:
        self.engine = engine
        self.shell = shell
        self.run_id: str = shell.state.run
        self.conversation: str = shell.state.conversation or shell.state.run
        """Whose circuits the run's calls go by, where a tool has them by conversation."""
        self.principal = principal
        """Who asked for the run, as its first event says."""
        self.deadline: int | None = shell.state.deadline
        """When the run fails with DeadlineExceededError, in microseconds."""
        self.recording = recording
        self.ending: Ending | None = None
        """Why the code is being taken down; from then on `ctx` refuses."""
        self.leaves = 1
        """Branches that run or wait, as opposed to those that wait for their own branches."""
        self.joins: dict[asyncio.Future[None], None] = {}
        """What those wait for that wait for their own branches. Not a set: an empty one is 150 bytes larger."""
        self._limits: Limits | None = None
        self._versions: Versions | None = None
        self._offspring: Offspring | None = None
        self._seen: Seen | None = None
        self.events_seen: dict[str, int] = {}
        """Up to which position the waits for events had passed over them when they left."""
        self._workflow = workflow
        self._given = given
        self._waits: dict[Branch, Wait] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._answers: dict[str, msgspec.Raw] = {}
        self._cancel_reason: str | None = shell.state.cancel_reason
        self._is_overdue = False
        self._suspected: tuple[str, str, Sequence[tuple[str, StepRecord]]] | None = None
        self._is_suspect = bool(shell.state.crashes)
        self.cleared: asyncio.Future[None] = engine.system.loop.create_future()
        """Done once the run is past the steps that the process may have died of."""
        self._root = Branch(self, "", is_cut=self._cancel_reason is not None)
        self.task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._is_over = False
        """Whether the code has ended, and its end is being recorded."""

    @property
    def workflow(self) -> Workflow[Any, Any]:
        """What it runs."""
        return self._workflow

    # What few runs need: made when it is first asked for, since a run should be small

    @property
    def limits(self) -> Limits:
        """When the coroutines with a limit of time that run are to be over."""
        if self._limits is None:
            self._limits = Limits(self.engine.clock)
        return self._limits

    @property
    def versions(self) -> Versions:
        """By which versions of deliberate changes its code goes."""
        if self._versions is None:
            self._versions = Versions()
        return self._versions

    @property
    def seen(self) -> Seen:
        """What its code has seen of shared values that others may change."""
        if self._seen is None:
            self._seen = Seen(self.recording.sightings or ())
        return self._seen

    @property
    def offspring(self) -> Offspring:
        """The children that its code awaits."""
        if self._offspring is None:
            self._offspring = Offspring(self)
        return self._offspring

    # Life

    def launch(self) -> None:
        """Start the code."""
        self.shell.pins += 1
        loop = self.engine.system.loop
        context = copy_context()
        context.run(CURRENT.set, self._root)
        self.task = self._root.task = loop.create_task(self._live(), context=context)
        if self.deadline is not None and self.deadline <= self.engine.clock.moment().now:
            self._expire()
        elif self.deadline is not None:
            timer = self.engine.clock.call_at(self.deadline, self._expire)
            self.task.add_done_callback(lambda _: timer.cancel())

    async def _live(self) -> None:
        try:
            fact = await self._outcome()
            self._is_over = True
            if not isinstance(fact, (RunParked, RunSuspended, RunBlocked)):
                await leave_listings(self)
            if isinstance(fact, Succession):
                await self.engine.kin.succeed(self, fact)
            elif isinstance(fact, (RunCompleted, RunFailed, RunCancelled)):
                await self.engine.kin.end(self, fact)
            elif fact is not None:
                fact, listings = await with_listings(self, fact)
                self.note(fact, *listings)
        except Parked:
            pass  # the log failed, and the engine was told: the next life finds the run as the log has it
        finally:
            self._clear()
            if self._offspring is not None:
                self._offspring.close()
            self.shell.pins -= 1
            self.engine.ended(self)

    async def _outcome(self) -> RunFact | Succession | None:
        """Run the code and return the fact that its end is."""
        fact: RunFact | Succession | None = None
        with contextlib.suppress(Parked):
            fact = await self._run_code()
        return fact if self.ending is None else await self._taken_down()

    async def _run_code(self) -> RunFact | Succession | None:
        self._has_begun = True
        if self.ending is not None:
            return None
        context = Context(self, self.run_id)
        try:
            result = await guarded(self._workflow.function(context, **self._given), self._root)  # type: ignore[arg-type] # an async function gives a coroutine
        except asyncio.CancelledError as cancelled:
            self.check_branch_is_over(self._root, cancelled)
            return self._cancelled()
        except Continuing as continuing:
            self.check_branch_is_over(self._root)
            return Succession(continuing.data, self._workflow.input_digest(continuing.data))
        except Exception as error:  # noqa: BLE001 - whatever the code raises is the run's failure
            self.check_branch_is_over(self._root, error)
            return self._failed(error)
        self.check_branch_is_over(self._root)
        return self._completed(result)

    def _completed(self, result: Any) -> RunFact:
        where = f"the result of {self._workflow.name}"
        try:
            data = encode_payload(result, where=where, redaction=self.engine.redaction)
            self._workflow.result_decoder.decode(data, where)
        except PerdureError as error:
            return RunFailed(type(error).__name__, str(error))
        return RunCompleted(msgspec.Raw(data))

    def cancelled(self) -> RunFailed | RunCancelled | None:
        """Return how the run is to end, if it is to be cancelled or its deadline has passed."""
        return self._cancelled() if self._is_cancelled else None

    @property
    def _is_cancelled(self) -> bool:
        return self._is_overdue or self._cancel_reason is not None

    def _cancelled(self) -> RunFailed | RunCancelled:
        if self._is_overdue:
            return overdue(self.run_id)
        if self._cancel_reason is None:
            return RunFailed("CancelledError", "the workflow raised CancelledError by itself")
        return RunCancelled(self._cancel_reason)

    def _failed(self, error: Exception) -> RunFact:
        self.engine.failures.add(self.run_id, error)
        return failure_of(error, self.engine.redaction)

    async def _taken_down(self) -> RunFact | None:
        match self.ending:
            case Pausing():
                if self.shell.state.paused is not None:
                    return RunParked(self.deadline, PAUSED)
                return RunParked(self.engine.clock.moment().now, None)  # it was let go, or is to be cancelled
            case Suspending():
                return RunSuspended(tuple(self.shell.state.in_flight))
            case Parking(mail_for=steps) if any(not self.shell.state.mailbox.is_waiting(step) for step in steps):
                return RunParked(self.engine.clock.moment().now, None)  # it came while the code was leaving
            case Parking(is_cancelled=False) if self.shell.state.cancel_reason is not None:
                return RunParked(self.engine.clock.moment().now, None)
            case Parking(doubts=steps) if not all(self._is_in_doubt(step) for step in steps):
                return RunParked(self.engine.clock.moment().now, None)
            case Parking(children_of=steps) if not all(self.offspring.is_open(step) for step in steps):
                return RunParked(self.engine.clock.moment().now, None)
            case Parking(wake_at=wake_at, waits_on=waits_on):
                return RunParked(wake_at, waits_on)
            case Blocking() as block:
                return RunBlocked("mismatch", await self._account(block))
            case _:
                return None

    def _is_in_doubt(self, step: str) -> bool:
        flight = self.shell.state.in_flight.get(step)
        return flight is not None and flight.in_doubt

    async def _account(self, block: Blocking) -> str:
        if not block.step:
            return block.account
        system = self.engine.system
        return block.account + await arguments_beside(system, self.run_id, block.step, block.arguments)

    def check_branch_is_over(self, branch: Branch, error: BaseException | None = None) -> None:
        """Compare the end of a branch's code, with a result or with *error*, with its recording.

        Raises:
            Parked: recorded steps are left; the run is parked as a mismatch.
        """
        if self.ending is not None or branch.is_at_edge:
            return
        # The root is over only when all is: nothing of a branch that was never opened may be left either.
        left = self.recording.left_in(branch.path) or ([] if branch.path else list(self.recording.steps.items()))
        if left:
            how = "ends here" if error is None else f"raises {type(error).__name__}: {recordable(str(error))}"
            self.mismatch(left[0][0], f"the code {how}", left)

    def at_edge(self, *, stands_still: bool = False) -> None:  # noqa: ARG002 - a rehearsal needs it
        """Be told that a branch comes to a step that has no outcome yet; a rehearsal ends it here.

        One that *stands_still* is a compensation that waits for a person, and lets others go first.
        """
        if self._limits is not None and (branch := CURRENT.get()) is not None:
            self._limits.reached(branch.path)

    # Facts

    def note(self, fact: RunFact, *others: tuple[Shell, Command]) -> Transaction:
        """Record a fact of the run, together with what other actors are told of it.

        Raises:
            Parked: the log takes no more; the code is taken down, to go on once the log is reopened.
        """
        return self.record((self.shell, Note(fact)), *others)

    def record(
        self, *moves: tuple[Shell, Command], principal: str | None = None, causation: str | None = None
    ) -> Transaction:
        """Record what the run and other actors are told, as one unit; see `note`.

        Raises:
            Parked: as `note`.
        """
        try:
            done = self.engine.system.transact(
                moves, correlation=self.run_id, causation=causation, principal=principal, is_refusable=False
            )
        except (LogWriteError, LogClosedError) as error:
            self.log_failed(error)
        if self._is_suspect and not self.shell.state.crashes:
            self._clear()
        return done

    def _clear(self) -> None:
        self._is_suspect = False
        if not self.cleared.done():
            self.cleared.set_result(None)

    async def durable(self, ticket: Ticket) -> None:
        """Wait until what *ticket* stands for is on disk.

        Raises:
            Parked: the log failed.
        """
        try:
            await ticket
        except (LogWriteError, LogClosedError) as error:
            self.log_failed(error)

    async def keep_pace(self) -> None:
        """Let the disk catch up when more waits for it than half its bound: steps wait, outcomes never do.

        Raises:
            Parked: the log failed.
        """
        while self.engine.system.log.is_congested and (barrier := self.engine.system.log.barrier()) is not None:
            await self.durable(barrier)

    def log_failed(self, error: PerdureError) -> NoReturn:
        """Take the code down because the log takes no more.

        Raises:
            Parked: always.
        """
        self.engine.abandoned(self, error)
        self.take_down(Abandoned())
        raise Parked

    # Taking down

    def suspect(self, key: str, asked: str, recorded: Sequence[tuple[str, StepRecord]]) -> None:
        """Remember where the code may not fit its recording, for the account should it turn out not to."""
        if recorded and self._suspected is None:
            self._suspected = (key, asked, recorded)

    def mismatch(self, key: str, asked: str, recorded: Sequence[tuple[str, StepRecord]], data: bytes = b"") -> NoReturn:
        """Park the run: its code does not fit its recording.

        Raises:
            Parked: always.
        """
        if self._suspected is not None and self._suspected[2][0][0] in self.recording.steps:
            (key, asked, recorded), data = self._suspected, b""
        names = ", ".join(f"{k} ({r.what} {r.name})" for k, r in recorded[:_SHOWN])
        more = f" and {len(recorded) - _SHOWN} more" if len(recorded) > _SHOWN else ""
        account = f"recorded: {names}{more} | now: {asked}, at {key}"
        step = recorded[0][0] if data and recorded else ""
        self.take_down(Blocking("mismatch", account, step, data))
        raise Parked

    def take_down(self, ending: Ending) -> None:
        """End the code for a reason not its own: branches that wait get `Parked`, steps in flight are cancelled."""
        if self.ending is not None and not isinstance(self.ending, Suspending):
            return
        self.ending = ending
        self._wake_all_with_parked()
        is_elsewhere = self.task is not None and self.task is not asyncio.current_task()
        # A task that is cancelled before it began never runs, and could not record how the run ended.
        may_cancel = self._has_begun and not self._is_over
        if not isinstance(ending, Parking) and self.task is not None and is_elsewhere and may_cancel:
            self.task.cancel()

    def stop_at_next_step(self, ending: Suspending = Suspending()) -> None:  # noqa: B008 - frozen
        """Take the code down as soon as no step is in flight: let those that are end, and start none."""
        if self.ending is None:
            self.ending = ending
            self._wake_all_with_parked()

    def _wake_all_with_parked(self) -> None:
        for wait in self._waits.values():
            if not wait.woken.done():
                wait.woken.set_exception(Parked())

    def cancel(self, reason: str) -> None:
        """Cancel the code: the steps in flight, then what waits for them."""
        self._cancel_reason = self._cancel_reason or reason
        self._cancel()

    def _expire(self) -> None:
        self._is_overdue = True
        self._cancel()

    def _cancel(self) -> None:
        if self._is_over:
            return
        if isinstance(self.ending, Pausing) and self.task is not None and self._has_begun:
            self.task.cancel()  # the steps that a pause lets end are given up, and the next resume cleans up
        if self.ending is not None:
            return
        if self._has_begun:
            self._root.cancel()
            self.consider_parking()  # one that is shielded waits on, maybe for long: no time is due any more
        else:
            self._root.is_cancelled = self._root.is_cut = True

    def note_cancel(self, branch: Branch) -> None:
        """Take note that a wait of *branch* was cancelled; park the run when no recorded fact explains it."""
        if self.ending is None and not branch.is_cancelled:
            # A loop that ends cancels everything. That says nothing of the code: the next life finds the run as it was.
            self.take_down(Abandoned() if self.engine.is_loop_ending else Blocking("mismatch", _INTERRUPTED, ""))

    # Waiting

    async def wait(
        self, branch: Branch, due: int | None, step: str, on: str | None = None, others: tuple[str, ...] = ()
    ) -> None:
        """Wait until *due* (microseconds), or with None until somebody wakes *step* or *others*; may park the run.

        *on* is what the wait is for, a time or, without one, a person's verdict when left out.

        Raises:
            Parked: the run leaves memory.
        """
        if self.ending is not None:
            raise Parked
        woken: asyncio.Future[None] = self.engine.system.loop.create_future()
        timer = None if due is None else self.engine.clock.call_at(due, lambda: _wake(woken))
        self._waits[branch] = Wait(woken, due, step, ATTENTION if on is None and due is None else on, others)
        if self._limits is not None:
            self._limits.reached(branch.path)
        self.consider_parking()
        try:
            await woken
        except asyncio.CancelledError:
            self.note_cancel(branch)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del self._waits[branch]
            if self._offspring is not None:
                self._offspring.take_back_place()
            if woken.done() and not woken.cancelled():
                woken.exception()  # it was taken note of, even if the wait was cancelled at the same time

    def settled(self, step: str, verdict: Verdict) -> None:
        """Hand the verdict on a step in doubt to the branch that waits for it."""
        self._verdicts[step] = verdict
        self.wake(step)

    def arrived(self, answer: QuestionAnswered | None = None) -> None:
        """Wake the branches whose signal, or whose answer, has come."""
        if answer is not None:
            self._answers[answer.step] = answer.answer
            self.wake(answer.step)
        for step in self.shell.state.mailbox.matches():
            self.wake(step)

    def answer(self, step: str) -> msgspec.Raw | None:
        """Return the answer to the question of *step*, once."""
        return self._answers.pop(step, None)

    def wake(self, step: str) -> None:
        """Wake the branch that waits at *step* before its time: what it waits for may have come."""
        for wait in self._waits.values():
            if wait.step == step or step in wait.others:
                _wake(wait.woken)

    def verdict(self, step: str) -> Verdict | None:
        """Return what somebody said of a step in doubt, once."""
        return self._verdicts.pop(step, None)

    def count_leaves(self, change: int) -> None:
        """Note that branches began or ended; the last one that was busy may leave only sleepers."""
        self.leaves += change
        if change < 0:
            self.consider_parking()

    @property
    def is_stirring(self) -> bool:
        """Whether a branch that waits was just woken, or is to be cancelled."""
        return self._is_to_stop or any(wait.woken.done() for wait in self._waits.values())

    @property
    def _is_to_stop(self) -> bool:
        """Whether a cancel, or the passing of the deadline, is on its way to a branch that waits."""
        return self._is_cancelled and not all(branch.is_spared for branch in self._waits)

    def consider_parking(self) -> None:
        """Have the run leave memory when all that it does is to wait, and for long."""
        if self.ending is not None or len(self._waits) < self.leaves:
            return
        if self._offspring is not None:
            self._offspring.lend_place()
        if self._is_to_stop:
            return
        horizon = self.engine.clock.moment().now + self.engine.park_after
        dues = [w.due for w in self._waits.values() if w.due is not None]
        dues.extend(() if self._limits is None else self._limits.dues)
        ons = {w.on for w in self._waits.values()}
        waits_on = next((on for on in (ATTENTION, ANSWER, SIGNAL, EVENT, CHILD, PAUSED) if on in ons), None)
        if self.deadline is not None and not self._is_overdue:
            dues.append(self.deadline)
        if any(w.woken.done() for w in self._waits.values()) or any(due <= horizon for due in dues):
            return
        if any(join.cancelled() for join in self.joins):
            return  # a cancel is on its way to branches that do not know of it yet
        if self._offspring is not None and self._offspring.is_expecting():
            self.engine.check_idle()
            return
        mail_for = tuple(w.step for w in self._waits.values() if w.on in (ANSWER, SIGNAL, PAUSED))
        children_of = tuple(w.step for w in self._waits.values() if w.on == CHILD)
        doubts = tuple(step for w in self._waits.values() if w.on == ATTENTION for step in (w.step, *w.others))
        parking = Parking(min(dues, default=None), waits_on, mail_for, children_of, doubts, self._is_cancelled)
        self.take_down(parking)


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
