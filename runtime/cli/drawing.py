"""How a run's timeline looks: a table of its steps, branches indented, with what happened on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from perdure.runtime.cli.facts import ENDS, RUN_PREFIX
from perdure.runtime.cli.outcomes import Step
from perdure.runtime.cli.output import (
    STYLES,
    Column,
    Row,
    Span,
    clock_time,
    count,
    duration,
    iso,
    print_json,
    print_line,
    print_table,
    shorten,
    size,
)
from perdure.runtime.cli.standing import ATTENTION, Standing
from perdure.runtime.cli.timeline import Timeline
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamSummary
from perdure.store.wording import printable

_BRANCHES: Final = 8
"""Branches of one gather or map that are drawn unless all are asked for; those with something notable come first."""
_NOTES: Final = 4
_VALUE_WIDTH: Final = 2_000
_AT_WIDTH: Final = 12
"""Fits `+59 min 59 s`."""
_COLUMNS: Final = (
    Column(f"{'AT':>{_AT_WIDTH}}"), Column("STEP", fixed=False), Column("KIND"), Column("TRIES", right=True),
    Column("TOOK", right=True), Column("STATE", styled=True),
)  # fmt: skip


def timeline_of(reader: LogReader, stream: StreamSummary) -> Timeline:
    """Return the timeline of a run."""
    timeline, after = Timeline(stream.stream[len(RUN_PREFIX) :]), 0
    while page := reader.read(Query(stream=stream.stream, after=after)):
        for event in page:
            timeline.add(event)
        after = page[-1].position
    return timeline


def draw_run(
    timeline: Timeline,
    standing: Standing,
    *,
    db: Path,
    now: int,
    everything: bool,
    as_json: bool,
) -> None:
    """Print a run."""
    if as_json:
        print_json(run_object(timeline, standing))
        return
    for label, text, style in _head(timeline, standing, now):
        print_line(f"{label:<9} {printable(text)}", style)
    rows = list(_rows(timeline, standing, now, everything=everything))
    if rows:
        print_line("")
        print_table(_COLUMNS, rows)
    foot = list(_foot(timeline, standing, db))
    if foot:
        print_line("")
    for text, style in foot:
        print_line(printable(text), style)


def _head(timeline: Timeline, standing: Standing, now: int) -> Iterator[tuple[str, str, str]]:
    end = timeline.ended_at or now
    yield "run", timeline.run, "bold"
    workflow, given = _asked(timeline)
    yield "workflow", workflow, ""
    state = f"{standing.status} after {duration(end - timeline.started_at)}"
    if timeline.ended_at is None:
        state = f"{standing.status}, started {duration(end - timeline.started_at)} ago"
        waits = "for " if standing.status == "waiting" else ""
        state += "" if standing.status in ATTENTION else f"; {waits}{standing.waits_for}"
    yield "status", state, STYLES.get(standing.status, "")
    yield "started", clock_time(timeline.started_at), ""
    if timeline.ended_at is not None:
        yield "ended", clock_time(timeline.ended_at), ""
    if timeline.deadline is not None:
        yield "deadline", clock_time(timeline.deadline), ""
    yield "steps", f"{standing.steps_done} done, {standing.in_flight} in flight; {count(timeline.events, 'event')}", ""
    yield "input", _value(given), ""


def _asked(timeline: Timeline) -> tuple[str, msgspec.Raw]:
    """Return what is run and with what; of a definition, which its run carries along, only what kind it is."""
    from perdure.actors.workflows.defined.model import defined_by  # noqa: PLC0415 - only `show` asks, and `ps` draws too

    given = msgspec.json.decode(timeline.input)
    definition = defined_by(timeline.workflow, given)
    if definition is None:
        return timeline.workflow, timeline.input
    kind = f"{definition.get('pattern')}, {count(len(definition['steps']), 'step')}"
    return f"{timeline.workflow} ({kind})", msgspec.Raw(msgspec.json.encode(given["data"]))


def _value(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    return text if len(text) <= _VALUE_WIDTH else f"{shorten(text, _VALUE_WIDTH)} ({size(len(text))})"


def _rows(timeline: Timeline, standing: Standing, now: int, *, everything: bool) -> Iterator[Row]:
    inside: dict[str, list[Step]] = {}
    for step in timeline.steps.values():
        inside.setdefault(step.branch, []).append(step)
    inside.setdefault("", []).extend(timeline.turns)
    yield from _Rows(timeline, standing, now, inside, everything=everything).of("", 0)


class _Rows:
    """Draws the steps of a branch, then of the branches that they opened."""

    def __init__(
        self, timeline: Timeline, standing: Standing, now: int, inside: dict[str, list[Step]], *, everything: bool
    ) -> None:
        self._timeline = timeline
        self._is_running = standing.status == "running"
        self._now = now
        self._inside = inside
        self._everything = everything
        self._children: dict[str, list[tuple[int, str]]] = {}
        for branch in inside:
            parent, number = _opened_by(branch)
            if parent:
                self._children.setdefault(parent, []).append((number, branch))

    def of(self, branch: str, depth: int) -> Iterator[Row]:
        for step in sorted(self._inside.get(branch, ()), key=lambda one: one.position):
            yield self._row(step, depth)
            yield from self._notes(step, depth)
            if step.what == "branches":
                yield from self._branches(step, depth + 1)

    def _row(self, step: Step, depth: int, label: str = "") -> Row:
        at = f"+{duration(step.at - self._timeline.started_at)}"
        if step.what == "run":
            return Span(f"{at:>{_AT_WIDTH}}  {_indent(depth)}── ", step.name)
        name = step.key.rpartition("/")[2]
        name = name if name.partition("#")[0] == step.name else f"{name} ({step.name})"
        tries = str(step.attempts) if step.what in ("tool", "function") else ""
        return (
            f"{at:>{_AT_WIDTH}}",
            _indent(depth) + label + name,
            self._kind(step),
            tries,
            self._took(step),
            self._state(step),
        )

    def _kind(self, step: Step) -> str:
        match step.what:
            case "tool" if step.effect != "idempotent":
                return step.effect
            case "branches":
                return count(step.count, "branch", "branches")
            case _:
                return step.what

    def _took(self, step: Step) -> str:
        if step.what in ("branches", "value", "fact"):
            return ""
        if step.ended_at is not None:
            return duration(step.ended_at - step.at)
        return f"{duration(self._now - step.at)}…" if self._is_running else ""

    def _state(self, step: Step) -> str:
        is_over = self._timeline.turn in ENDS
        if step.what == "branches" and step.status == "open":
            return ""
        if step.status == "sleeping" and step.due is not None and not is_over:
            return "sleeping"
        if step.status in ("in flight", "retrying", "waiting", "sleeping") and is_over:
            return "cancelled"
        return "interrupted" if step.status == "in flight" and not self._is_running else step.status

    def _notes(self, step: Step, depth: int) -> Iterator[Row]:
        notes = step.notes if self._everything else step.notes[-_NOTES:]
        if hidden := len(step.notes) - len(notes):
            yield self._note(depth, "", f"… {count(hidden, 'earlier note')}: --all")
        for note in notes:
            at = f"+{duration(note.at - self._timeline.started_at)}"
            yield self._note(depth, at, f"↳ {note.text}")
        if step.due is not None and step.ended_at is None and self._timeline.turn not in ENDS:
            text = f"due {clock_time(step.due, now=self._now)} (in {duration(step.due - self._now)})"
            yield self._note(depth, "", f"↳ {text}")

    def _note(self, depth: int, at: str, text: str) -> Span:
        return Span(f"{at:>{_AT_WIDTH}}  {_indent(depth)}  ", text)

    def _branches(self, fork: Step, depth: int) -> Iterator[Row]:
        known = sorted(self._children.get(fork.key, ()))
        shown = known if self._everything or len(known) <= _BRANCHES else self._chosen(known)
        for number, branch in shown:
            steps = self._inside[branch]
            if len(steps) == 1 and steps[0].what != "branches":
                yield self._row(steps[0], depth, f"[{number}] ")
                yield from self._notes(steps[0], depth)
            else:
                yield ("", f"{_indent(depth)}[{number}]", "", "", "", "")
                yield from self.of(branch, depth + 1)
        if hidden := len(known) - len(shown):
            more = count(hidden, "more branch", "more branches")
            yield self._note(depth - 1, "", f"… {more}, nothing notable: --all")

    def _chosen(self, known: list[tuple[int, str]]) -> list[tuple[int, str]]:
        notable = [pair for pair in known if any(step.is_notable for step in self._inside[pair[1]])]
        plain = [pair for pair in known if pair not in notable]
        return sorted(notable + plain[: max(0, _BRANCHES - len(notable))])


def _indent(depth: int) -> str:
    return "  " * depth


def _opened_by(branch: str) -> tuple[str, int]:
    """Return the key of the step that opened *branch* and the branch's number: `map#1.4/` is (`map#1`, 4)."""
    key, _, number = branch.removesuffix("/").rpartition(".")
    return (key, int(number)) if number.isdigit() else ("", 0)


def _foot(timeline: Timeline, standing: Standing, db: Path) -> Iterator[tuple[str, str]]:
    if timeline.turn == "run-completed":
        yield f"result    {_value(timeline.result)}", "green"
    if timeline.turn in ("run-failed", "run-cancelled"):
        yield f"{timeline.turn.removeprefix('run-'):<9} {timeline.error}{timeline.where}", "red"
    if timeline.turn == "run-blocked":
        yield f"blocked   {timeline.error}", "bold magenta"
        yield "          with code that fits, `perdure resume` goes on with it", ""
    for key in standing.in_doubt:
        yield f"in doubt  {key}: find out whether it happened, then say so:", "bold magenta"
        yield f"          perdure settle {timeline.run} {key} --db {db}", ""
        yield "          with --done JSON, --not-done or --failed TEXT", ""
    if standing.status in ("suspended", "interrupted", "queued", "due"):
        yield f"goes on with: perdure resume FILE.py --db {db}", ""


def run_object(timeline: Timeline, standing: Standing) -> dict[str, Any]:
    """Return a run for programs."""
    steps = sorted([*timeline.steps.values(), *timeline.turns], key=lambda step: step.position)
    return {
        "run": timeline.run,
        "workflow": timeline.workflow,
        "status": standing.status,
        "waits_for": standing.waits_for if timeline.ended_at is None else None,
        "started_at": iso(timeline.started_at),
        "ended_at": iso(timeline.ended_at),
        "deadline": iso(timeline.deadline),
        "steps_done": standing.steps_done,
        "in_flight": timeline.in_flight,
        "in_doubt": standing.in_doubt,
        "input": timeline.input,
        "result": timeline.result if timeline.turn == "run-completed" else None,
        "error": timeline.error or None,
        "timeline": [_step_object(step) for step in steps],
    }


def _step_object(step: Step) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "at": iso(step.at), "position": step.position, "what": step.what, "step": step.key or None, "name": step.name,
        "branch": step.branch,
    }  # fmt: skip
    if step.what == "run":
        return fields
    return fields | {
        "status": step.status,
        "effect": step.effect or None,
        "ended_at": iso(step.ended_at),
        "took_micros": None if step.ended_at is None else step.ended_at - step.at,
        "attempts": step.attempts,
        "refusals": step.refusals,
        "due": iso(step.due),
        "error": step.error or None,
        "arguments": step.arguments,
        "result": step.result if step.status == "done" else None,
        "branches": step.count or None,
        "notes": [{"at": iso(note.at), "text": note.text} for note in step.notes],
    }
