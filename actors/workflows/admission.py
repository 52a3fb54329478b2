"""How a step's attempts get past what guards their tool: its bulkhead, its rate limit and its circuit.

The rules are the tool's (`tools/tool.py`); here they are asked and their refusals are waited out. Invariant: a place
that was taken is given back, and who waits for something else than a place holds none.
"""

import asyncio
from datetime import timedelta
from typing import TypeAlias

from perdure.actors.kernel.clock import SECOND
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import Transaction
from perdure.actors.tools.breaker import Admission
from perdure.actors.tools.invoke import Ended
from perdure.actors.tools.limits import Gate
from perdure.actors.tools.outcome import Failure
from perdure.actors.tools.retry import waits_for_circuit
from perdure.actors.tools.tool import Admit, Refuse
from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.events import AttemptDelayed, AttemptRefused, AttemptStarted, StepStarted
from perdure.actors.workflows.progress import Progress
from perdure.store.protocols import Ticket

PROBE_WAIT = SECOND
"""Until the next try when the circuit is half open and its probe is in flight."""

FORCED_WAIT = 60 * SECOND
"""Until the next try when an operator holds the circuit open; giving it back wakes who waits at once."""

Intent: TypeAlias = StepStarted | AttemptStarted

Asked: TypeAlias = tuple[Admission, Ticket | None]
"""What the tool's guard says to an attempt, and when the intent is durable."""


class Entrance:
    """Where a step asks to be let through to its tool, for each attempt anew."""

    __slots__ = ("_place", "_step")

    def __init__(self, step: Progress) -> None:
        self._step = step
        self._place: Gate | None = None
        """Where it holds a place, as long as it holds one."""

    async def again(self, *, has_token: bool = False) -> Asked:
        """Ask for one more attempt; see `ask`."""
        return await self.ask(AttemptStarted(self._step.call.key, self._step.attempt), has_token=has_token)

    async def ask(self, intent: Intent, *, has_token: bool = False) -> Asked:
        """Record the intent, and ask the tool's guard in the same unit; wait for a place at the tool before that.

        Raises:
            CancelledError, Parked: as `Progress.wait`.
        """
        step, shell = self._step, self._step.shell
        if shell is None:
            return Admission(is_admitted=True, generation=0), self._note(intent).ticket
        if step.call.tool.concurrency is not None:
            gate = self._gate(shell)
            if gate.is_full and not has_token:
                return self._turn_away(shell, intent, gate)
            await self._enter(gate, again=has_token)
        asked = Admit(step.call_id, step.driver.engine.life, key=step.call.limit_key, has_token=has_token)
        done = self._note(intent, (shell, asked))
        admission: Admission = done.replies[1]
        step.generation, step.is_admitted = admission.generation, admission.is_admitted
        return admission, done.ticket

    def _note(self, intent: Intent, *others: tuple[Shell, Command]) -> Transaction:
        done = self._step.driver.note(intent, *others)
        if isinstance(intent, StepStarted):
            self._step.first_at = done.at
        return done

    def _gate(self, shell: Shell) -> Gate:
        return self._step.driver.engine.toolbox.gate(self._step.call.tool, shell.stream)

    def _turn_away(self, shell: Shell, intent: Intent, gate: Gate) -> Asked:
        reason = f"{gate.running} calls run and {gate.waiting} wait"
        done = self._note(intent, (shell, Refuse(self._step.call_id, reason, "bulkhead")))
        return Admission(is_admitted=False, generation=0, reason=reason, refused_by="bulkhead"), done.ticket

    async def _enter(self, gate: Gate, *, again: bool = False) -> None:
        step = self._step
        try:
            await gate.enter(again=again)
        except asyncio.CancelledError:
            if step.record is not None or step.attempt > 1 or again:
                step.give_up(stopped=True)
            step.driver.note_cancel(step.branch)
            if step.driver.ending is not None:
                raise Parked from None
            raise
        self._place = gate
        if step.driver.ending is not None:
            raise Parked  # the runtime stops: what has not begun does not begin

    def leave(self) -> None:
        """Give the place at the tool back, if it holds one."""
        gate, self._place = self._place, None
        if gate is not None and self._step.shell is not None:
            gate.leave()
            self._step.driver.engine.toolbox.settle_gate(self._step.shell.stream)

    async def delay(self, micros: int) -> Ticket | None:
        """Wait for a token of the rate limit that is spoken for; until then the attempt has not begun.

        Raises:
            CancelledError, Parked: as `Progress.wait`.
        """
        step = self._step
        until = step.now + micros
        step.driver.note(AttemptDelayed(step.call.key, step.attempt, until))
        shell = step.shell if self._place is not None else None
        self.leave()  # who waits for a token keeps nobody from the tool
        await step.wait(until)
        if shell is not None:
            await self._enter(self._gate(shell), again=True)
        # After a crash in the wait the attempt is made; after one in the call its effect class decides: say which.
        return step.driver.note(AttemptStarted(step.call.key, step.attempt)).ticket

    async def wait_out(self, admission: Admission, ticket: Ticket | None) -> Asked | Ended:
        """Wait until an attempt that was refused may be tried again, and ask again.

        Or return how the step ends, of which the tool knows: the call's policy does not wait for that, or not so long.

        Raises:
            CancelledError, Parked: as `Progress.wait`.
        """
        step, retry = self._step, self._step.call.retry
        self.leave()
        is_forced = step.shell is not None and step.shell.state.breaker.forced == "open"
        due = step.now + (admission.retry_after or (FORCED_WAIT if is_forced else PROBE_WAIT))
        too_late = retry.total is not None and due > step.first_at + retry.total // timedelta(microseconds=1)
        is_circuit = admission.refused_by == "circuit"
        if too_late or step.call.may_fall_back or (is_circuit and not waits_for_circuit(retry)):
            refusal = await self._refusal(admission, ticket)
            return Ended(refusal, 0)
        step.driver.note(AttemptRefused(step.call.key, step.attempt, admission.reason, due, admission.refused_by))
        await self._wait_for_circuit(due) if is_circuit else await step.wait(due)
        return await self.again()

    async def _refusal(self, admission: Admission, ticket: Ticket | None) -> Failure:
        """Return what the workflow is told of a refusal: why, and since when."""
        step, tool, wait = self._step, self._step.call.tool, admission.retry_after / SECOND
        again = f"; try again in {wait:.1f} s" if wait else ""
        if admission.refused_by != "circuit" or step.shell is None:
            kind = "RateLimitedError" if admission.refused_by == "rate" else "BulkheadFullError"
            return Failure(kind, f"{tool.name}: {admission.reason}{again}")
        try:
            if ticket is not None:
                await step.driver.durable(ticket)  # what opened it may still be on its way to the disk
            position = await step.driver.engine.toolbox.opened_by(step.shell.stream)
        except asyncio.CancelledError:
            step.give_up(stopped=True)
            raise
        since = f"open since position {position}: {admission.reason}"
        return Failure("CircuitOpenError", f"Circuit breaker open for {tool.name}: {since}{again}")

    async def _wait_for_circuit(self, due: int) -> None:
        """Wait until *due*, or until the circuit moves: a probe may have closed it long before."""
        step, shell = self._step, self._step.shell
        if shell is None:
            return
        unwatch = self._gate(shell).watch(lambda: step.driver.wake(step.call.key))
        try:
            await step.wait(due)
        finally:
            unwatch()
            step.driver.engine.toolbox.settle_gate(shell.stream)
