"""The commands about goals: how far each is, and what that rests on, with the places in the log.

They only read, and need no application code. Invariant: what is shown is what the goal's own rules make of the log.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from perdure.actors.kernel.clock import micros_of
from perdure.actors.state.goal import GoalBehavior, progress_of
from perdure.actors.state.goal_progress import CriterionProgress, Evidence, GoalProgress, Violation
from perdure.actors.state.goal_state import GoalState
from perdure.actors.state.goals import goal_stream
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import Fold, streams_of
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import (
    Column,
    Row,
    Span,
    clock_time,
    count,
    iso,
    now_micros,
    print_json,
    print_line,
    print_table,
    shorten,
)
from perdure.runtime.goal_evidence import Places, violations_of
from perdure.store.reader import LogReader

_GOALS: Final = (
    Column("GOAL", fixed=False), Column("STATUS", styled=True), Column("PROGRESS", right=True),
    Column("MET", right=True), Column("DECISIONS", right=True), Column("OK", right=True),
    Column("FAILED", right=True), Column("VIOLATIONS", right=True), Column("NEXT"),
)  # fmt: skip
_CRITERIA: Final = (
    Column("CRITERION", fixed=False), Column("MET"), Column("PROGRESS", right=True), Column("TARGET", right=True),
    Column("WEIGHT", right=True), Column("DECISIONS", right=True), Column("OK", right=True),
    Column("FAILED", right=True),
)  # fmt: skip
_PREFIX: Final = "goal/"
_WIDTH: Final = 70
_TARGET: Final = 20


@click.command(short_help="List goals and how far they are.")
@db_option
@json_option
def goals(*, db: Path, as_json: bool) -> None:
    """List the goals of the log: how each stands, how far it is, and what is recommended."""
    with LogReader.open(db) as reader:
        found = [(state, progress_of(state)) for state in _states(reader)]
    if as_json:
        for _, progress in found:
            print_json(_line_object(progress))
    elif found:
        print_table(_GOALS, [_line(progress) for _, progress in found])
    else:
        print_line(f"no goal is pursued in {db}", error=True)


@click.command(short_help="Show how far a goal is, and why.")
@click.argument("goal", metavar="GOAL")
@db_option
@json_option
def goal(*, goal: str, db: Path, as_json: bool) -> None:
    """Show how far GOAL is: each criterion with the newest outcomes that count for it, and violations of constraints.

    Every outcome and every violation has its position in the log: `perdure log` shows what is there.
    """
    with LogReader.open(db) as reader:
        state = _state(reader, goal, db)
        progress = _placed(reader, state)
    if as_json:
        print_json(_object(state, progress))
        return
    _print_head(state, progress)
    rows = [row for one in progress.criteria for row in _criterion_rows(one)]
    if rows:
        print_table(_CRITERIA, rows)
    _print_violations(progress)


def _states(reader: LogReader) -> Iterator[GoalState]:
    fold = Fold(reader, GoalBehavior())
    for row in streams_of(reader, _PREFIX):
        state = fold.state(row.stream)
        if state.definition is not None:
            yield state


def _state(reader: LogReader, goal: str, db: Path) -> GoalState:
    stream = goal_stream(goal.removeprefix(_PREFIX))
    if reader.stream(stream) is not None:
        state = Fold(reader, GoalBehavior()).state(stream)
        if state.definition is not None:
            return state
    known = ", ".join(progress_of(state).goal for state in _states(reader))
    raise Failure(f"{db} knows no goal {goal!r}; there are: {known or 'none'}", Exit.USAGE)


def _placed(reader: LogReader, state: GoalState) -> GoalProgress:
    progress = progress_of(state)
    places = Places(progress)
    while (query := places.next_page) is not None and places.add(reader.read(query)):
        pass
    return places.placed(reader.read(violations_of(state.id)) if progress.violations else [])


def _line(one: GoalProgress) -> tuple[str, ...]:
    met = f"{sum(each.met for each in one.criteria)}/{len(one.criteria)}"
    violations = sum(one.violations.values())
    figures = (one.decisions, one.successes, one.failures, violations)
    return (one.goal, one.status, _share(one.overall), met, *(str(figure) for figure in figures), one.recommendation)


def _share(progress: float) -> str:
    # What is not all is not to look like all.
    return f"{min(99.9, progress * 100) if progress < 1 else 100:.1f} %"


def _line_object(one: GoalProgress) -> dict[str, Any]:
    return {
        "goal": one.goal,
        "status": one.status,
        "progress": one.overall,
        "recommendation": one.recommendation,
        "criteria_met": sum(each.met for each in one.criteria),
        "criteria": len(one.criteria),
        "decisions": one.decisions,
        "successes": one.successes,
        "failures": one.failures,
        "violations": sum(one.violations.values()),
    }


def _print_head(state: GoalState, one: GoalProgress) -> None:
    assert state.definition is not None  # noqa: S101 - looked at by _state
    goal = state.definition.goal
    name = f" ({goal.name})" if goal.name else ""
    print_line(f"{one.goal}{name}: {one.status}, {_share(one.overall)}, {one.recommendation}", "bold")
    if goal.description:
        print_line(f"  {goal.description}")
    waiting = one.decisions - one.successes - one.failures - one.lapsed
    runs = f" by {count(one.runs, 'run')}" if one.runs else ""
    outcomes = f"{one.successes} succeeded, {one.failures} failed, {waiting} without an outcome"
    lapsed = f", {one.lapsed} lapsed" if one.lapsed else ""
    print_line(f"  {count(one.decisions, 'decision')}{runs}: {outcomes}{lapsed}")


def _criterion_rows(one: CriterionProgress) -> Iterator[Row]:
    figures = (one.decisions, one.successes, one.failures)
    target = "80%" if one.target is None else shorten(str(one.target), _TARGET)
    met = "yes" if one.met else "no"
    yield (one.id, met, _share(one.progress), target, f"{one.weight:g}", *(str(figure) for figure in figures))
    if one.description:
        yield Span("  ↳ ", one.description)
    for each in one.evidence:
        yield Span("  ↳ ", _evidence(each))


def _evidence(one: Evidence) -> str:
    run = f", run {one.run}" if one.run else ""
    place = "erased" if one.position is None else f"position {one.position}"
    return f"{shorten(one.intent, _WIDTH)}: {'success' if one.success else 'failed'}, {place}{run}"


def _print_violations(one: GoalProgress) -> None:
    for constraint, times in one.violations.items():
        print_line(f"constraint {constraint}: violated {count(times, 'time')}", "bold")
        for each in [each for each in one.newest_violations if each.constraint == constraint][-3:]:
            print_line(f"  ↳ {_violation(each)}")
    for constraint, times in one.unjudged.items():
        print_line(f"constraint {constraint}: {count(times, 'outcome')} could not be judged", "yellow")


def _violation(one: Violation) -> str:
    when = "" if one.at is None else clock_time(micros_of(one.at), now=now_micros())
    run = f", run {one.run}" if one.run else ""
    return f"{when} {one.severity}: {shorten(one.details or one.description, _WIDTH)}, position {one.position}{run}"


def _object(state: GoalState, one: GoalProgress) -> dict[str, Any]:
    assert state.definition is not None  # noqa: S101 - looked at by _state
    found = one.to_dict()
    for shown, violation in zip(found["constraint_violations"], one.newest_violations, strict=True):
        shown["timestamp"] = None if violation.at is None else iso(micros_of(violation.at))
    for criterion in one.criteria:
        status = found["criteria_status"][criterion.id]
        status |= {"target": criterion.target, "weight": criterion.weight, "decisions": criterion.decisions}
        status |= {"successes": criterion.successes, "failures": criterion.failures}
    return {
        "goal": one.goal,
        "name": state.definition.goal.name,
        "status": one.status,
        **found,
        "violations": one.violations,
        "unjudged": one.unjudged,
        "lapsed": one.lapsed,
    }
