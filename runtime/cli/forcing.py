"""An operator's word on a circuit: open, close, disable, auto. They need no application code.

A running owner of the log is asked to move its circuit; where there is none, they record what is said as it would.
"""

from pathlib import Path
from typing import Final

import click
import msgspec

from perdure.actors.tools.breaker import Command as Forcing
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.fleet import TOOL_PREFIX, check_known
from perdure.runtime.cli.folding import newest
from perdure.runtime.cli.options import db_option, json_option, login
from perdure.runtime.cli.output import print_json, print_line
from perdure.runtime.cli.owner import act
from perdure.store.reader import LogReader
from perdure.store.records import StreamId
from perdure.store.wording import printable

AFTER: Final[dict[str, str]] = {"open": "forced open", "closed": "closed", "disabled": "disabled", "auto": "closed"}
"""What a circuit is after an operator's word."""


def _operator(name: str, to: Forcing, explanation: str, help_line: str) -> click.Command:
    @click.command(name, short_help=help_line, help=explanation)
    @click.argument("tool", metavar="TOOL")
    @db_option
    @click.option("--because", required=True, metavar="TEXT", help="Why; it stands in the log.")
    @click.option("--who", default=login, show_default="the login name", metavar="NAME", help="Who says so.")
    @click.option("--never-called", is_flag=True, help="Also where the log knows no such tool.")
    @json_option
    def command(*, tool: str, db: Path, because: str, who: str, never_called: bool, as_json: bool) -> None:
        _force(_Word(tool, to, because, who, never_called), db, as_json=as_json)

    return command


class _Word(msgspec.Struct, frozen=True):
    circuit: str
    to: Forcing
    because: str
    who: str
    may_be_new: bool


def _force(word: _Word, db: Path, *, as_json: bool) -> None:
    if not word.because.strip():
        raise Failure("--because is empty: say why, whoever reads the log will ask", Exit.USAGE)
    with LogReader.open(db) as reader:
        if not word.may_be_new:
            check_known(reader, word.circuit)
    tool, _, conversation = word.circuit.partition("@")

    acted = act(
        db,
        lambda rt: rt.force_circuit(
            tool, word.to, because=word.because, who=word.who, conversation=conversation or None
        ),
        "move its circuits",
    )
    _say(word, db, has_changed=acted.answer, as_json=as_json)


def _say(word: _Word, db: Path, *, has_changed: bool, as_json: bool) -> None:
    with LogReader.open(db) as reader:
        forced = newest(reader, StreamId(TOOL_PREFIX + word.circuit), ("circuit-forced",))
    position = forced.position if forced is not None and has_changed else None
    if as_json:
        print_json({"circuit": word.circuit, "to": word.to, "changed": has_changed, "position": position})
        return
    state = AFTER[word.to]
    if not has_changed:
        print_line(f"the circuit of {word.circuit} was so before: nothing is recorded")
        return
    said = f"the circuit of {word.circuit} is {state} from position {position} on, by {word.who}: {word.because}"
    print_line(printable(said))
    if word.to in ("open", "disabled"):
        print_line(f"give it back with: perdure breakers auto {word.circuit} --because TEXT --db {db}", error=True)


OPERATORS: Final = (
    _operator("open", "open", "Refuse every call of TOOL until the circuit is given back with `auto`.", "Refuse all."),
    _operator(
        "close", "closed", "Close the circuit of TOOL now and leave it to its policy; failures count from zero.",
        "Close it now.",
    ),
    _operator(
        "disable", "disabled", "Let every call of TOOL through, whatever comes of it, until `auto`.", "Let all through."
    ),
    _operator("auto", "auto", "Give the circuit of TOOL back to its policy; it begins closed.", "Give it back."),
)  # fmt: skip
"""The commands."""
