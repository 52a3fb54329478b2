"""What `resume` says before it begins and after it ended: which runs go on, which ended, which wait and for what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from perdure.runtime.cli.exits import Exit
from perdure.runtime.cli.loading import Application
from perdure.runtime.cli.output import Column, count, print_json, print_line, print_table, short_id
from perdure.runtime.cli.standing import ATTENTION, Standing

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "continued"})
_LISTED: Final = 20
"""Completed runs that are listed one by one."""
_HINTS: Final = 3
"""Stuck runs for which the command that moves them is spelled out."""
_COLUMNS: Final = (
    Column("RUN"), Column("WORKFLOW", fixed=False), Column("STATUS", styled=True), Column("STEPS", right=True),
    Column("WAITS FOR", fixed=False),
)  # fmt: skip


def say_what_is_open(opened: Sequence[Standing], application: Application) -> None:
    """Say on stderr which runs are brought back and which are not."""
    foreign = [one for one in opened if not _has_code(one, application)]
    asleep = [one for one in opened if one.status in ("sleeping", "waiting", "paused") and one not in foreign]
    back = [one for one in opened if one not in foreign and one not in asleep]
    kinds = ", ".join(f"{number} {name}" for name, number in Counter(one.workflow for one in back).items())
    parts = [f"{count(len(back), 'run')} brought back" + (f" ({kinds})" if kinds else "")]
    if asleep:
        parts.append(f"{len(asleep)} asleep")
    if foreign:
        parts.append(f"{len(foreign)} without code in {application.path}")
    print_line("; ".join(parts), error=True)


def print_summary(
    runs: Sequence[Standing], application: Application, db: Path, reasons: Mapping[str, str], *, as_json: bool
) -> Exit:
    """Print how the runs stand now, and how to move those that are stuck; return the exit code that this amounts to.

    *reasons* are why runs could not be brought back.
    """
    explained = [_explained(run, application, reasons.get(run.run)) for run in runs]
    if as_json:
        for run in explained:
            print_json(
                {
                    "run": run.run,
                    "workflow": run.workflow,
                    "status": run.status,
                    "steps_done": run.steps_done,
                    "in_doubt": run.in_doubt,
                    "waits_for": run.waits_for,
                }
            )
    else:
        _print(explained)
        _say_how_to_move(explained, db)
    statuses = {run.status for run in explained}
    if statuses & (ATTENTION | {"failed"}):
        return Exit.RUN
    return Exit.OK if statuses <= _ENDED else Exit.WAITS


def _print(runs: Sequence[Standing]) -> None:
    completed = [run for run in runs if run.status == "completed"]
    listed = completed if len(completed) <= _LISTED else []
    rows = [*listed, *(run for run in runs if run.status != "completed")]
    if len(completed) > len(listed):
        print_line(f"{count(len(completed), 'run')} completed", "green")
    if rows:
        print_table(_COLUMNS, [(short_id(r.run), r.workflow, r.status, str(r.steps_done), r.waits_for) for r in rows])


def _say_how_to_move(runs: Sequence[Standing], db: Path) -> None:
    for run in [run for run in runs if run.status in ATTENTION][:_HINTS]:
        for key in run.in_doubt:
            command = f"perdure settle {run.run} {key} --db {db}"
            print_line(f"settle it with: {command} --done JSON | --not-done | --failed TEXT", error=True)
        if not run.in_doubt:
            print_line(f"see what does not fit: perdure show {run.run} --db {db}", error=True)


def _has_code(run: Standing, application: Application) -> bool:
    return any(workflow.name == run.workflow for workflow in application.workflows)


def _explained(run: Standing, application: Application, reason: str | None) -> Standing:
    if run.status in _ENDED:
        return run
    if not _has_code(run, application):
        return msgspec.structs.replace(run, waits_for=f"its code: {application.path} has no workflow {run.workflow}")
    return run if reason is None else msgspec.structs.replace(run, waits_for=f"its code cannot go on with it: {reason}")
