"""What a person who waits wants to know of runs under way: a fold of events, and the lines that are worth saying.

Pure: it is told events and the time. The invariant: its size is bounded by the steps in flight, not by those done.
"""

from typing import Final

import msgspec

from perdure.actors.workflows.children import CHILD
from perdure.runtime.cli.facts import ENDS, RUN_PREFIX, Facts, at_place, facts_of, run_of
from perdure.runtime.cli.output import clock_time, count, duration, shorten
from perdure.store.records import Recorded

_ERROR_WIDTH: Final = 160
_WORTH_SAYING: Final = 2_000_000
"""Microseconds: a shorter sleep is not mentioned."""


class Flight(msgspec.Struct):
    """A step that is under way."""

    tool: str
    since: int
    attempt: int = 1
    due: int | None = None
    """When the next attempt, or its turn under a rate limit, is due; None while it is being made."""
    is_delayed: bool = False


class Progress:
    """What is going on in the runs that are watched."""

    def __init__(self, run: str | None = None) -> None:
        self.run = run
        """The one run that is watched; None: all."""
        self.done = 0
        self.flights: dict[tuple[str, str], Flight] = {}
        self.sleeps: dict[tuple[str, str], int] = {}
        self.circuits: dict[str, str] = {}
        """Tools whose circuit is not closed, with the reason."""
        self.ended: dict[str, str] = {}
        """Runs that ended, by id: the type of the event."""
        self.parked: dict[str, int | None] = {}
        """Runs that left memory, with the time at which they wake."""
        self.attention: dict[str, str] = {}
        """Runs that only a person can move, with the reason."""

    def concerns(self, event: Recorded) -> bool:
        """Return whether *event* is about what is watched."""
        return self.run is None or run_of(event) == self.run

    def add(self, event: Recorded) -> str | None:
        """Take in an event; return the line that is worth saying about it, if any."""
        facts = facts_of(event)
        if event.stream.startswith("tool/"):
            return self._tool(event.stream.partition("/")[2], event.type, facts, event.principal or "an operator")
        if not event.stream.startswith(RUN_PREFIX):
            return None
        run = event.stream[len(RUN_PREFIX) :]
        said = self._turn(run, event, facts) if event.type.startswith("run-") else self._step(run, event, facts)
        return said if said is None or self.run is not None else f"{run}: {said}"

    def _tool(self, tool: str, kind: str, facts: Facts, who: str) -> str | None:
        match kind:
            case "circuit-opened":
                self.circuits[tool] = f"open: {facts.reason}"
                return f"circuit of {tool} opened: {facts.reason}"
            case "circuit-half-opened":
                self.circuits[tool] = "half open: a probe is let through"
                return f"circuit of {tool} is half open: a probe is let through"
            case "circuit-closed":
                self.circuits.pop(tool, None)
                return f"circuit of {tool} closed"
            case "circuit-forced":
                return self._forced(tool, facts, who)
            case _:
                return None

    def _forced(self, tool: str, facts: Facts, who: str) -> str:
        held = {"open": "held open", "disabled": "disabled"}.get(facts.to)
        if held is None:
            self.circuits.pop(tool, None)
            return f"circuit of {tool} closed by {who}: {facts.because}"
        self.circuits[tool] = f"{held} by {who}: {facts.because}"
        return f"circuit of {tool} {held} by {who}: {facts.because}"

    def _turn(self, run: str, event: Recorded, facts: Facts) -> str | None:
        if event.type in ENDS:
            self._forget(run)
            self.ended[run] = event.type
            error = f": {facts.error_type}: {facts.error}" if event.type == "run-failed" else ""
            reason = f": {facts.reason}" if event.type == "run-cancelled" else ""
            if event.type == "run-continued":
                return f"goes on as {facts.run}"
            return f"{event.type.removeprefix('run-')}{shorten(error + reason, _ERROR_WIDTH)}{at_place(facts)}"
        match event.type:
            case "run-resumed":
                self.parked.pop(run, None)
                self.attention.pop(run, None)
                return "resumed after a crash" if facts.after_crash else None
            case "run-parked":
                self._forget(run)
                self.parked[run] = facts.wake_at
                if facts.waits_on is not None and facts.waits_on != CHILD:
                    self.attention[run] = facts.waits_on
                elif facts.wake_at is not None and facts.wake_at > event.at:
                    wake = clock_time(facts.wake_at, now=event.at)
                    left = duration(facts.wake_at - event.at)
                    hint = "" if self.run is None else "; Ctrl-C leaves it in the log"
                    return f"sleeps until {wake} (in {left}){hint}"
                return None
            case "run-blocked":
                self._forget(run)
                self.attention[run] = f"{facts.kind}: {facts.account}"
                return f"blocked, {facts.kind}: {facts.account}"
            case _:
                return self._steered(run, event.type, facts)

    def _steered(self, run: str, kind: str, facts: Facts) -> str | None:
        match kind:
            case "run-interrupted":
                self.attention[run] = "resume"
                return "is held: the process had ended while it ran"
            case "run-paused":
                if run in self.parked:
                    self.attention[run] = "resume"
                return f"paused: {facts.reason}"
            case "run-unpaused":
                self.attention.pop(run, None)
                return "paused no more"
            case "run-cancel-requested":
                return f"is being cancelled: {facts.reason}"
            case _:
                return None

    def _forget(self, run: str) -> None:
        for waiting in (self.flights, self.sleeps):
            for key in [key for key in waiting if key[0] == run]:
                del waiting[key]

    def _step(self, run: str, event: Recorded, facts: Facts) -> str | None:
        key = (run, facts.step)
        match event.type:
            case "step-started":
                self.flights[key] = Flight(facts.tool, event.at)
            case "attempt-started":
                self.flights[key] = Flight(self._name(key), event.at, facts.attempt)
            case "step-completed" | "step-failed" | "step-cancelled":
                self.flights.pop(key, None)
                self.done += 1
                if event.type == "step-failed":
                    error = shorten(f"{facts.step} failed: {facts.error_type}: {facts.error}", _ERROR_WIDTH)
                    return error + at_place(facts)
            case "timer-set":
                self.sleeps[key] = facts.due or event.at
                if self.sleeps[key] - event.at >= _WORTH_SAYING:
                    return f"{facts.step} for {duration(self.sleeps[key] - event.at)}"
            case "pause-reached":
                return f"paused at {facts.name}: go on with perdure resume {run} --answer JSON"
            case "question-asked":
                return shorten(f"{facts.step} asks: {facts.text}", _ERROR_WIDTH)
            case "timer-fired":
                self.sleeps.pop(key, None)
            case _:
                return self._trouble(key, event, facts)
        return None

    def _trouble(self, key: tuple[str, str], event: Recorded, facts: Facts) -> str | None:
        again = "" if facts.retry_at is None else f"; again in {duration(facts.retry_at - event.at)}"
        match event.type:
            case "attempt-failed":
                self.flights[key] = Flight(self._name(key), event.at, facts.attempt + 1, facts.retry_at)
                error = shorten(f"{facts.error_type}: {facts.error}", _ERROR_WIDTH)
                return f"{facts.step} attempt {facts.attempt} failed: {error}{again}"
            case "attempt-refused":
                self.flights[key] = Flight(self._name(key), event.at, facts.attempt, facts.retry_at)
                return None  # that the circuit opened was said, once for all the steps that it refuses
            case "attempt-delayed":
                self.flights[key] = Flight(self._name(key), event.at, facts.attempt, facts.until, is_delayed=True)
                return None  # a rate limit makes every step wait: its figures say so
            case "step-in-doubt":
                return f"{facts.step} is in doubt: {facts.reason}"
            case _:
                return None

    def _name(self, key: tuple[str, str]) -> str:
        known = self.flights.get(key)
        return known.tool if known is not None else key[1].rpartition("/")[2].partition("#")[0]

    @property
    def in_flight(self) -> int:
        """Steps that are being made now."""
        return sum(flight.due is None for flight in self.flights.values())

    @property
    def backing_off(self) -> int:
        """Steps that wait for their next attempt."""
        return sum(flight.due is not None and not flight.is_delayed for flight in self.flights.values())

    @property
    def taking_turns(self) -> int:
        """Steps that wait for their turn under a rate limit."""
        return sum(flight.is_delayed for flight in self.flights.values())

    def figures(self) -> str:
        """Return the counts in a few words."""
        parts = [f"{count(self.done, 'step')} done", f"{self.in_flight} in flight"]
        if self.backing_off:
            parts.append(f"{self.backing_off} waiting to be tried again")
        if self.taking_turns:
            parts.append(f"{self.taking_turns} waiting for their turn")
        if self.sleeps:
            parts.append(f"{len(self.sleeps)} sleeping")
        if self.run is None:
            parts.insert(0, f"{count(len(self.ended), 'run')} ended")
        return ", ".join(parts)
