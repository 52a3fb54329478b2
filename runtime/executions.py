"""The figures of defined workflows: a fold of events, which a restart does not zero and which goes on where it stopped.

Pure: it is told pages of events. The invariant: executions add up: each is successful, failed, cancelled or running,
and one that goes on as another run (`run-continued`) is still the same one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from perdure.actors.kernel.clock import SECOND
from perdure.actors.workflows.agents.agent import PREFIX
from perdure.store.records import Query, Recorded

_ENDS = {"run-completed": "successful", "run-failed": "failed", "run-cancelled": "cancelled"}
_TYPES = ("run-started", "run-retried", "run-continued", *_ENDS, "step-started", "step-completed", "step-failed")


class Readable(Protocol):
    """Where events are read."""

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of the events that match."""
        ...

    async def blob(self, sha256: str) -> bytes | None:
        """Return a large value by its hash."""
        ...


class _Definition(msgspec.Struct, frozen=True):
    id: str
    pattern: str = "sequential"


class _Input(msgspec.Struct, frozen=True):
    definition: _Definition


class _Facts(msgspec.Struct, frozen=True):
    """Of the events of runs and steps, what is counted."""

    workflow: str = ""
    input: msgspec.Raw = msgspec.Raw(b"null")
    step: str | None = ""
    tool: str = ""
    micros: int = 0
    run: str = ""
    """Of `run-continued`, the run that goes on."""


class _Open(msgspec.Struct):
    """An execution that may still end."""

    began_at: int
    tools: dict[str, str] = {}


class _Times(msgspec.Struct):
    """How long somebody took."""

    executions: int = 0
    total: int = 0
    least: int = 0
    most: int = 0

    def add(self, micros: int) -> None:
        """Count one more call."""
        self.least = micros if not self.executions else min(self.least, micros)
        self.most = max(self.most, micros)
        self.executions += 1
        self.total += micros


class Executions:
    """What there is to count after the events so far."""

    def __init__(self) -> None:
        self._after = 0
        self._open: dict[str, _Open] = {}
        self._failed: dict[str, int] = {}
        """When those began that an operator may have tried again."""
        self._counts: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()
        self._micros = 0
        self._times: dict[str, _Times] = {}

    @property
    def next_page(self) -> Query:
        """Which events to add next; none of them left is the end."""
        return Query(types=_TYPES, after=self._after)

    def add(self, page: Sequence[Recorded], inputs: dict[str, bytes]) -> None:
        """Take in the next events, in their order; *inputs* are the large ones, by their hash."""
        for event in page:
            self._after = event.position
            if event.data is None or not event.stream.startswith("run/"):
                continue  # erased
            run, facts = event.stream.partition("/")[2], msgspec.json.decode(event.data, type=_Facts)
            if event.type == "run-started":
                self._begin(run, event, facts, inputs)
            elif event.type == "run-retried":
                self._begin_again(run)
            elif run in self._open:
                self._go_on(run, event, facts)

    def _begin_again(self, run: str) -> None:
        if run in self._failed:  # and not one that was blocked: that never ended
            self._counts["failed"] -= 1
            self._open[run] = _Open(self._failed.pop(run))

    def _begin(self, run: str, event: Recorded, facts: _Facts, inputs: dict[str, bytes]) -> None:
        if run in self._open:
            return  # it goes on for another one, and was counted with that
        try:
            given = msgspec.json.decode(inputs.get(large_input(event) or "", facts.input), type=_Input)
        except msgspec.MsgspecError:
            return  # not a definition
        if given.definition.id == facts.workflow:
            self._counts["total"] += 1
            self._patterns[given.definition.pattern] += 1
            self._open[run] = _Open(event.at)

    def _go_on(self, run: str, event: Recorded, facts: _Facts) -> None:
        one = self._open[run]
        if event.type == "run-continued":
            self._open[facts.run] = _Open(self._open.pop(run).began_at)
        elif event.type in _ENDS:
            del self._open[run]
            self._counts[_ENDS[event.type]] += 1
            if event.type == "run-completed":
                self._micros += event.at - one.began_at
            elif event.type == "run-failed":
                self._failed[run] = one.began_at
        elif event.type == "step-started":
            one.tools[facts.step or ""] = facts.tool.removeprefix(PREFIX)
        elif (tool := one.tools.pop(facts.step or "", None)) is not None:
            self._times.setdefault(tool, _Times()).add(facts.micros)

    def figures(self) -> dict[str, Any]:
        """Return the figures by the names of `Runtime.get_stats`."""
        counts = self._counts
        successful, ended = counts["successful"], counts["successful"] + counts["failed"] + counts["cancelled"]
        return {
            "total_executions": counts["total"],
            "successful_executions": successful,
            "failed_executions": counts["failed"],
            "cancelled_executions": counts["cancelled"],
            "running_executions": counts["total"] - ended,
            "success_rate": successful / counts["total"] if counts["total"] else 0.0,
            "average_duration": self._micros / SECOND / successful if successful else 0.0,
            "pattern_usage": dict(self._patterns),
            "agent_performance": {name: _performance(times) for name, times in sorted(self._times.items())},
        }


def large_input(event: Recorded) -> str | None:
    """Return the hash of a run's input where it is kept apart."""
    return msgspec.json.decode(event.blobs, type=dict[str, str]).get("input") if event.blobs else None


async def read_executions(log: Readable, executions: Executions) -> None:
    """Have *executions* take in all that has come since."""
    while page := await log.read(executions.next_page):
        large = {one for event in page if event.type == "run-started" and (one := large_input(event)) is not None}
        executions.add(page, {one: await log.blob(one) or b"null" for one in large})


def _performance(times: _Times) -> dict[str, float]:
    return {
        "executions": times.executions,
        "avg_time": times.total / SECOND / times.executions,
        "min_time": times.least / SECOND,
        "max_time": times.most / SECOND,
    }
