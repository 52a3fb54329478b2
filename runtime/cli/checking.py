"""The command that says, before new code is deployed, which open runs it fits: check.

The invariant: it only reads; it works beside the owner of the log.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from perdure.runtime.cli.exits import Exit
from perdure.runtime.cli.hosting import log_to_stderr, unopened
from perdure.runtime.cli.loading import load
from perdure.runtime.cli.options import db_option, json_option
from perdure.runtime.cli.output import Column, aside, print_json, print_line, print_table
from perdure.runtime.rehearsing import CheckedRun

_COLUMNS: Final = (
    Column("RUN"), Column("WORKFLOW"), Column("VERDICT", styled=True), Column("AT"), Column("", fixed=False),
)  # fmt: skip


@click.command(short_help="Say which open runs new code fits, and change nothing.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
@db_option
@json_option
@click.pass_context
def check(ctx: click.Context, *, file: Path, db: Path, as_json: bool) -> None:
    """Play every open run with the code of FILE.py, up to where it stands, and say whether the code fits.

    The log is only read, also while another process owns it, and no tool is called. The exit code is 4 when the code
    differs from what a run has recorded or cannot read it, and 5 when FILE.py has no code for some run.
    """
    log_to_stderr()
    with aside():
        runtime = unopened(db, load(file))
        found = asyncio.run(runtime.check())
    if as_json:
        for one in found:
            print_json(msgspec.to_builtins(one))
    else:
        _tell(found, db)
    verdicts = {one.verdict for one in found}
    if verdicts & {"differs", "needs an upcaster"}:
        ctx.exit(Exit.RUN)
    ctx.exit(Exit.WAITS if "has no code" in verdicts else Exit.OK)


def _tell(found: Sequence[CheckedRun], db: Path) -> None:
    if not found:
        print_line(f"no run is open in {db}", error=True)
        return
    print_table(_COLUMNS, [(one.run, one.workflow, one.verdict, one.step, one.account) for one in found], wraps=True)
    counts = Counter(one.verdict for one in found)
    print_line(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), error=True)
