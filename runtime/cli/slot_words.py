"""An operator's words on a slot: quarantine, reset, exec.

`quarantine` and `reset` ask a running owner of the log, which has the slots. Where there is none, and for `exec`,
this process owns it meanwhile: `quarantine` only records, the others need the machine that the slot is on.
"""

import shlex
from pathlib import Path
from typing import Final

import click
import uuid_utils

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.errors import ResetFailedError, SlotTransitionError
from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.machines import backend_of, machine_options, on_slots
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import print_json, print_line, print_text
from perdure.runtime.cli.owner import act, ask_owner
from perdure.runtime.cli.slot_standing import read_slot
from perdure.runtime.reach import Reach
from perdure.runtime.sandbox.opening import PROCESS, kind_of
from perdure.runtime.sandbox.operating import run_in_slot
from perdure.store.reader import LogReader
from perdure.store.wording import printable


@click.command("quarantine", short_help="Give a slot to nobody until it was reset.")
@click.argument("slot", metavar="SLOT")
@db_option
@click.option("--because", required=True, metavar="TEXT", help="Why; it stands in the log.")
@who_option
@json_option
def quarantine(*, slot: str, db: Path, because: str, who: str, as_json: bool) -> None:
    """Give SLOT to nobody until it was reset. It only records: no machine is needed.

    A trajectory that holds the slot loses it, and with it its files: its next command gets an empty slot. What is left
    of its commands, and the files, stay on the machine until `perdure slots reset`, to be looked at there.
    """
    if not because.strip():
        raise Failure("--because is empty: say why, whoever reads the log will ask", Exit.USAGE)
    with LogReader.open(db) as reader:
        before = read_slot(reader, slot)
    if before.state == "retired":
        raise Failure(f"{slot} is gone: there is nothing to quarantine", Exit.RUN)

    act(db, lambda rt: rt.quarantine_slot(slot, because, who=who), "move its slots")
    if as_json:
        print_json({"slot": slot, "state": "error", "reason": because, "taken_from": before.trajectory})
        return
    taken = "" if before.trajectory is None else f" and taken from trajectory {before.trajectory}"
    print_line(printable(f"{slot} is quarantined{taken}, by {who}: {because}"))
    print_line(f"empty it and give it back with: perdure slots reset {slot} --db {db}", error=True)


@click.command("reset", short_help="Empty a slot; the way out of quarantine.")
@click.argument("slot", metavar="SLOT")
@db_option
@click.option("--take-away", is_flag=True, help="Also from a trajectory that holds it, which loses its files.")
@machine_options
@who_option
@json_option
def reset(
    *, slot: str, db: Path, take_away: bool, machine: str | None, allow_unsandboxed: bool, who: str, as_json: bool
) -> None:
    """End every process in SLOT, delete its files, and give it back to the pool.

    The way out of quarantine. A slot that a trajectory holds is refused, unless --take-away: its lease ends, its next
    command gets an empty slot, and what became of its calls is found out before the traces are deleted, so that none
    is run twice for that. A slot that cannot be emptied is quarantined, with the reason.
    """

    async def work(rt: Reach) -> str | None:
        return await rt.reset_slot(slot, who=who, take_away=take_away)

    with LogReader.open(db) as reader:
        read_slot(reader, slot)
    try:
        if (acted := ask_owner(db, work, "empty its slots")) is not None:
            taken_from = acted.answer
        else:
            with LogReader.open(db) as reader:
                backend = backend_of(reader, machine, allow_unsandboxed=allow_unsandboxed)
            taken_from = on_slots(db, backend, work, else_ask=f"rt.reset_slot({slot!r}, who=…)")
    except SlotTransitionError as error:
        raise Failure(f"{error}: --take-away ends its lease and deletes its files", Exit.RUN) from error
    except ResetFailedError as error:
        raise Failure(str(error), Exit.RUN) from error
    if as_json:
        print_json({"slot": slot, "state": "available", "taken_from": taken_from})
        return
    taken = "" if taken_from is None else f"; trajectory {taken_from} has lost it"
    print_line(f"{slot} is empty and free again{taken}")


@click.command("exec", short_help="Run a command in a slot.")
@click.argument("slot", metavar="SLOT")
@click.argument("command", metavar="-- COMMAND…", nargs=-1, required=True, type=click.UNPROCESSED)
@db_option
@click.option("--as-holder", is_flag=True, help="As a call of the trajectory that holds it, or whose files it keeps.")
@click.option("--timeout", type=click.FloatRange(1, 600), default=60, show_default=True, metavar="SECONDS")
@click.option("--network", is_flag=True, help="Let the command use the network.")
@machine_options
@who_option
@json_option
def execute(  # noqa: PLR0913 - its options
    *, slot: str, command: tuple[str, ...], db: Path, as_holder: bool, timeout: float, network: bool,
    machine: str | None, allow_unsandboxed: bool, who: str, as_json: bool,
) -> None:  # fmt: skip
    """Run COMMAND in SLOT and print what it says: `perdure slots exec SLOT -- ls -la`, or one word with a whole line.

    Everything is recorded, with who. A slot that nobody holds is taken for it, and emptied afterwards. One that a
    trajectory holds, or whose files it keeps, is refused, unless --as-holder: the command is then a call of that
    trajectory, sees its files, and what it changes there the trajectory will find. Calls that a crash interrupted
    are not run again by this: they are in doubt, or wait for the application. To look without changing anything there
    is `perdure artifacts`. No network unless --network; the command ends with this one.

    Exit code 4 when COMMAND failed; its own stands on stderr, and in --json.
    """
    line = command[0] if len(command) == 1 else shlex.join(command)
    with LogReader.open(db) as reader:
        read_slot(reader, slot)
        backend = backend_of(reader, machine, allow_unsandboxed=allow_unsandboxed)
    is_open = network or kind_of(backend.address) == PROCESS  # plain processes have the network of everybody
    call = ToolCall("bash", {"command": line}, "", f"operator-{uuid_utils.uuid7()}")

    async def work(rt: Runtime) -> tuple[str, ToolResult]:
        return await run_in_slot(rt.executor, slot, call, who=who, as_holder=as_holder, timeout_seconds=timeout)

    try:
        asked = f"rt.trajectory(ID).run({line!r})"
        trajectory, result = on_slots(db, backend, work, else_ask=asked, allow_network=is_open)
    except SlotTransitionError as error:
        how = "--as-holder runs it in its name" if "trajectory" in str(error) else f"perdure slots reset {slot}"
        raise Failure(f"{error}: {how}", Exit.RUN) from error
    _say_result(slot, trajectory, result, as_json=as_json)
    if not result.success:
        click.get_current_context().exit(Exit.RUN)


def _say_result(slot: str, trajectory: str, result: ToolResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "slot": slot,
                "trajectory": trajectory,
                "call": result.uniq_id,
                "success": result.success,
                "exit_code": result.metadata.get("exit_code"),
                "output": result.output,
                "error": result.error or None,
            }
        )
        return
    print_text(result.output)
    if not result.success:
        print_line(printable(result.error or "the command failed"), "red", error=True)


OPERATORS: Final = (execute, reset, quarantine)
"""The commands."""
