"""How far a step is that has no outcome yet, and how that gets into the log and to the tool's actor.

It decides nothing. Invariant: an outcome is one unit with the tool's own account of the call, and a tool that let an
attempt through is told once how it ended.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.outcome import Failure
from perdure.actors.tools.tool import RecordCancel, RecordFailure, RecordSuccess
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.calls import StepCall, failed
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import (
    AttemptFailed,
    RunFact,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
)
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import LogClosedError, LogWriteError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver


class Progress:
    """A step on its way: which attempt it is at, and whom its facts are told."""

    __slots__ = (
        "attempt", "base", "branch", "call", "call_id", "driver", "first_at", "generation", "is_admitted", "record",
        "shell", "was_dispatched",
    )  # fmt: skip

    def __init__(
        self, driver: "Driver", branch: Branch, call: StepCall, record: StepRecord | None, shell: Shell | None
    ) -> None:
        self.driver = driver
        self.branch = branch
        self.call = call
        self.call_id = f"{driver.run_id}:{call.key}"
        self.record = record
        """What an earlier life recorded of it; None: it is new."""
        self.attempt = 1 if record is None else record.attempt
        self.base = 0 if record is None else record.base
        """Attempts that the policy counts no more: a person had the step tried again after them."""
        self.first_at = 0 if record is None else record.at
        """When its intent was recorded, as every later life reads it."""
        self.shell = shell
        """The tool's actor; None for a function, which has none."""
        self.generation = 0
        self.is_admitted = False
        """Whether the tool let an attempt through and was not yet told how it ended."""
        self.was_dispatched = record is not None
        """Whether the tool may have been called."""

    def begin_round(self) -> None:
        """Let the policy count attempts anew."""
        self.base, self.first_at = self.attempt, self.now
        self.attempt += 1

    @property
    def now(self) -> int:
        """The time, in microseconds."""
        return self.driver.engine.clock.moment().now

    # Waits, and their end

    async def wait(self, due: int | None) -> None:
        """Wait between attempts until *due*, or with None for a verdict on the attempt in doubt.

        Raises:
            CancelledError: the run, or this branch, is cancelled.
            Parked: the run leaves memory.
        """
        try:
            await self.driver.wait(self.branch, due, self.call.key)
        except asyncio.CancelledError:
            self.give_up(stopped=due is not None)
            raise

    def give_up(self, *, stopped: bool) -> None:
        """Record that the step is cancelled, and tell the tool of an attempt that it let through.

        Raises:
            Parked: it is not, the run leaves memory: the next life decides by the step's effect class.
        """
        self.driver.note_cancel(self.branch)
        if self.driver.engine.is_loop_ending:
            return  # a task that ends with anything but its cancellation would be reported by the loop
        if self.driver.ending is not None:
            raise Parked from None
        cancel = RecordCancel(self.call_id, self.generation, 0)
        told = self._told(cancel) if self.is_admitted else ()
        self.driver.note(StepCancelled(self.call.key, self.attempt, stopped, self.was_dispatched), *told)

    def take_back(self) -> None:
        """Tell the tool of a probe that leaves without an outcome: it must not hold its place for ever."""
        if not self.is_admitted or self.shell is None:
            return
        if any(call == self.call_id for call, _ in self.shell.state.breaker.probes):
            cancel = RecordCancel(self.call_id, self.generation, 0)
            with contextlib.suppress(LogWriteError, LogClosedError):  # then this life is over, and its probes are
                self.driver.engine.system.transact(
                    ((self.shell, cancel),), correlation=self.driver.run_id, is_refusable=False
                )

    # Outcomes

    def complete(self, result: bytes, micros: int) -> None:
        """Record the result of the step."""
        self.branch.took = micros
        fact = StepCompleted(self.call.key, msgspec.Raw(result), self.attempt, micros)
        self._note_outcome(fact, RecordSuccess(self.call_id, self.generation, micros))

    def report(self, ended: Ended, fact: StepInDoubt | AttemptFailed | StepFailed, *, is_told: bool = False) -> None:
        """Record how an attempt ended, and tell the tool, unless it was told before."""
        self.branch.took = ended.micros
        failure = ended.outcome
        assert isinstance(failure, Failure)  # noqa: S101 - the callers have a failure in hand
        command = RecordFailure(
            self.call_id, self.generation, ended.micros, failure.error_type, failure.message, failure.bases
        )
        self._note_outcome(fact, None if is_told else command)

    def fail(self, ended: Ended, failure: Failure, *, retryable: bool, is_told: bool = False) -> StepFailedError:
        """Record that the step failed for good and return what the workflow is told."""
        fact = StepFailed(
            self.call.key,
            failure.error_type,
            failure.message,
            retryable,
            self.attempt,
            ended.micros,
            ended.timed_out,
            self.was_dispatched,
            failure.where,
        )
        self.report(ended, fact, is_told=is_told)
        return failed(fact)

    def _told(self, command: Command) -> Sequence[tuple[Shell, Command]]:
        self.is_admitted = False
        return () if self.shell is None else ((self.shell, command),)

    def _note_outcome(self, fact: RunFact, command: Command | None) -> None:
        """Record an outcome; wake those whom the circuit refused when this very outcome has moved it."""
        shell = self.shell
        if shell is None or command is None:
            self.driver.note(fact)
            return
        self.is_admitted = False
        before = shell.state.breaker.generation
        self.driver.note(fact, (shell, command))
        if shell.state.breaker.generation != before:
            self.driver.engine.toolbox.circuit_moved(shell.stream)
