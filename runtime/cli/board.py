"""What a served runtime is doing, for a person who looks on: read twice a second, drawn on one screen.

Not here: what is served (`serving.py`). Invariant: its size is bounded, however much goes on; whatever it shows that
came from outside is made printable.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from perdure.runtime.cli.facts import ENDS, RUN_PREFIX, facts_of
from perdure.runtime.cli.output import STYLES, age, count, duration
from perdure.runtime.cli.progress import Progress
from perdure.runtime.questions import Questions
from perdure.store.errors import PerdureError
from perdure.store.records import Recorded
from perdure.store.wording import printable

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.web.api.application import HttpApi

RECENT: Final = 8
"""Runs that are shown, the newest first."""
_SHOWN: Final = 5
_LABEL: Final = len("entry point")
_OF_ENTRIES: Final = "entry:"
"""How the queues of entry points are called, whose own figures are shown."""
_ENTRY_FIGURES: Final = ("active_executions", "total_executions", "refused_triggers")
_QUESTIONS: Final = ("question-asked", "question-answered", "call-approved", "call-rejected", "question-expired",
                     "question-withdrawn")  # fmt: skip


class Line(msgspec.Struct):
    """A run that is shown."""

    workflow: str
    status: str
    since: int


class Board:
    """What is shown: a fold of the events since the runtime was opened, and figures that were read last."""

    def __init__(self, title: str, began: int) -> None:
        self.title = title
        self.began = began
        self.progress = Progress()
        self.recent: OrderedDict[str, Line] = OrderedDict()
        self.started = 0
        self.figures: list[tuple[str, str]] = []
        self._questions = Questions()
        self._is_stale = True

    def add(self, event: Recorded) -> None:
        """Take in an event."""
        self.progress.add(event)
        self.progress.ended.clear()  # they are counted here, and without end
        for gone in (self.progress.attention, self.progress.parked):
            while len(gone) > 1_000:  # noqa: PLR2004 - more than anybody reads
                gone.pop(next(iter(gone)))
        self._is_stale |= event.type in _QUESTIONS
        if event.stream.startswith(RUN_PREFIX) and event.type.startswith("run-"):
            self._turn(event.stream[len(RUN_PREFIX) :], event)

    def _turn(self, run: str, event: Recorded) -> None:
        status = _STATUSES.get(event.type, "ended" if event.type in ENDS else "")
        if not status:
            return
        facts = facts_of(event)
        if facts.waits_on == "resume":
            status = "paused"
        known = self.recent.pop(run, None)
        workflow = facts.workflow if event.type == "run-started" else "" if known is None else known.workflow
        self.started += event.type == "run-started"
        self.recent[run] = Line(workflow, status, event.at)
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)

    async def read(self, rt: "Runtime", api: "HttpApi", now: int) -> None:
        """Read the figures anew."""
        with contextlib.suppress(PerdureError):  # it may close meanwhile: then the last ones stand
            self.figures = await self._read(rt, api, now)

    async def _read(self, rt: "Runtime", api: "HttpApi", now: int) -> list[tuple[str, str]]:
        figures = await rt.statistics()
        http = api.statistics()
        runs = f"{figures.runs_in_memory} in memory, {self.started} started"
        answers = f"{count(http.requests, 'request')}, {http.refused} refused, {http.failed} failed"
        found = [
            ("runs", f"{runs}, {count(self.progress.in_flight, 'step')} in flight"),
            ("http", f"{answers}, {http.at_once} at once, {count(http.streams, 'stream')}"),
            ("log", f"position {figures.log.durable_position:,}, {figures.log.backlog_events:,} events wait"),
        ]
        if self._is_stale:
            self._is_stale = False
            while page := await rt.read(self._questions.next_page):
                self._questions.add(page)
        if waiting := self._questions.open(now):
            names = ", ".join(one.id for one in waiting[:_SHOWN])
            found.append(("questions", f"{count(len(waiting), 'answer')} wanted: {names}"))
        found += [("circuit", f"{tool} is {why}") for tool, why in list(self.progress.circuits.items())[:_SHOWN]]
        found += [
            ("queue", f"{name}: {_words(msgspec.to_builtins(one))}")
            for name, one in list(figures.queues.items())[:_SHOWN]
            if not name.startswith(_OF_ENTRIES)
        ]
        entries = list(figures.streams.items())[:_SHOWN]
        found += [("entry point", f"{name}: {_entry(one)}") for name, one in entries]
        for one in (await rt.schedules.list())[:_SHOWN]:
            when = "paused" if one.is_paused else "done" if one.next_at is None else f"next {_clock(one.next_at)}"
            found.append(("schedule", f"{one.entry}: {when}, {count(one.fired, 'time')} fired"))
        return found

    def draw(self, now: int, state: str) -> Group:
        """Return the screen."""
        up = duration((now - self.began) // 1_000_000 * 1_000_000)
        head = Text(printable(self.title), "bold", no_wrap=True, overflow="ellipsis")
        head.append(f"  {state}", "green" if state == "ready" else "yellow").append(f"  up {up}", "dim")
        return Group(head, _grid(self.figures), *([] if not self.recent else [self._runs(now)]))

    def _runs(self, now: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("RUN", "WORKFLOW", "STATUS", "AGE"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for run, line in reversed(self.recent.items()):
            status = Text(line.status, STYLES.get(line.status, ""))
            table.add_row(printable(run), printable(line.workflow), status, age(now - line.since))
        return table


def _grid(figures: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=_LABEL)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, text in figures:
        grid.add_row(name, printable(text))
    return grid


def _entry(figures: dict[str, Any]) -> str:
    active, total, refused = (figures.get(name) for name in _ENTRY_FIGURES)
    return f"{active} active, {total} so far" + (f", {refused} refused" if refused else "")


def _words(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{value} {name.replace('_', ' ')}"
        for name, value in figures.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )


def _clock(moment: Any) -> str:
    text: str = moment.astimezone().isoformat(sep=" ", timespec="seconds")
    return text[:19]


_STATUSES: Final = {
    "run-started": "running", "run-resumed": "running", "run-parked": "waiting", "run-suspended": "suspended",
    "run-blocked": "blocked", "run-paused": "paused", "run-unpaused": "running", "run-interrupted": "paused",
    "run-completed": "completed", "run-failed": "failed", "run-cancelled": "cancelled", "run-continued": "continued",
    "run-retried": "running",
}  # fmt: skip
