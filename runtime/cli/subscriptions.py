"""The commands of durable subscriptions: subscriptions, dead-letters, redrive.

They need no application code. Whose handlers run is known to the program that subscribes; how far they came is in the
log. Invariant: a re-drive is durable when the command says so, and is made by a program that subscribes under the name.
"""

from pathlib import Path
from typing import Any, Final

import click
import msgspec

from perdure.actors.triggers.errors import UnknownDeadLetterError
from perdure.actors.triggers.subscription import (
    LIVE,
    AskRedrive,
    SubscriptionBehavior,
    SubscriptionState,
    subscription_stream,
)
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.folding import Fold, streams_of
from perdure.runtime.cli.hosting import check_log
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import Column, iso, print_json, print_line, print_table, shorten
from perdure.runtime.cli.owner import act
from perdure.store.reader import LogReader

_PREFIX: Final = "subscription/"
_COLUMNS: Final = (
    Column("SUBSCRIPTION"), Column("EVENTS", fixed=False), Column("POSITION", right=True), Column("BEHIND", right=True),
    Column("RETRY"), Column("DEAD", right=True),
)  # fmt: skip
_LETTER_COLUMNS: Final = (
    Column("SUBSCRIPTION"), Column("POSITION", right=True), Column("EVENT"), Column("TRIES", right=True),
    Column("ERROR", fixed=False),
)  # fmt: skip
_WIDTH: Final = 60


class Line(msgspec.Struct, frozen=True):
    """A subscription, as the log has it."""

    subscription: str
    events: tuple[str, ...]
    wanted: msgspec.Raw
    position: int
    """Up to where it is done, as it was last written."""
    behind: int
    """Positions of the log after that, of events for it or not."""
    retry_at: str | None
    """When the event that its handler failed at is given again."""
    dead: int


@click.command(short_help="Show the durable subscriptions and how far they are.")
@db_option
@json_option
def subscriptions(*, db: Path, as_json: bool) -> None:
    """Show each subscription with a name: what it asks for, how far it came, and its dead letters."""
    with LogReader.open(db) as reader:
        last = reader.last_position()
        found = [_line(name, state, last) for name, state in _states(reader) if name != LIVE]
    if as_json:
        for one in found:
            print_json(msgspec.structs.asdict(one))
    elif found:
        print_table(_COLUMNS, [_row(one) for one in found])
    else:
        print_line(f"nobody has subscribed under a name in {db}", error=True)


@click.command("dead-letters", short_help="Show the events that handlers failed at for good.")
@click.argument("name", required=False)
@db_option
@json_option
def dead_letters(*, name: str | None, db: Path, as_json: bool) -> None:
    """Show the dead letters of the subscription NAME, or of all; `-` is those without a name."""
    with LogReader.open(db) as reader:
        found = [(one, state) for one, state in _states(reader) if name in (None, one) and state.letters]
    if as_json:
        for one, state in found:
            for letter in state.letters:
                said = msgspec.structs.asdict(letter)
                print_json({**said, "subscription": one, "handler": letter.subscription})
    elif found:
        rows = [_letter_row(one, letter) for one, state in found for letter in state.letters]
        print_table(_LETTER_COLUMNS, rows)
    else:
        print_line(f"there is no dead letter in {db}" + (f" of {name}" if name else ""), error=True)


@click.command(short_help="Have a dead letter delivered once more.")
@click.argument("name")
@click.argument("position", type=int)
@db_option
@who_option
@json_option
def redrive(*, name: str, position: int, db: Path, who: str, as_json: bool) -> None:
    """Have the handler of the subscription NAME given the event at POSITION once more.

    At once where a program that subscribes under the name owns the log, otherwise when one does. A handler that fails
    again leaves the dead letter where it is.
    """
    check_log(db)
    stream = subscription_stream(name)
    try:
        acted = act(db, lambda rt: rt.ask(stream, AskRedrive(position), principal=who), "redrive dead letters in it")
    except UnknownDeadLetterError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if as_json:
        print_json({"subscription": name, "position": position, "is_new": acted.answer})
    elif acted.answer:
        later = "" if acted.by_owner else "; it is delivered when a program subscribes as " + name
        print_line(f"{name}: the event at {position} is to be delivered again{later}")
    else:
        print_line(f"{name}: the event at {position} was to be delivered again before")


def _states(reader: LogReader) -> list[tuple[str, SubscriptionState]]:
    fold: Fold[SubscriptionState] = Fold(reader, SubscriptionBehavior())
    rows = streams_of(reader, _PREFIX, only_open=True)
    return [(row.stream.removeprefix(_PREFIX), fold.state(row.stream)) for row in rows]


def _line(name: str, state: SubscriptionState, last: int) -> Line:
    wanted: dict[str, Any] = msgspec.json.decode(state.wanted or "{}")
    retry_at = None if state.trouble is None else iso(state.trouble.retry_at)
    raw = msgspec.Raw((state.wanted or "null").encode())
    events = tuple(wanted.get("tags", ()))
    return Line(name, events, raw, state.until, last - state.until, retry_at, len(state.letters))


def _row(one: Line) -> tuple[str, ...]:
    events = shorten(", ".join(one.events), _WIDTH)
    return (one.subscription, events, str(one.position), str(one.behind), one.retry_at or "", str(one.dead))


def _letter_row(name: str, letter: Any) -> tuple[str, ...]:
    who = name if letter.subscription is None else letter.subscription
    error = shorten(f"{letter.error_type}: {letter.error}", _WIDTH)
    return (who, str(letter.position), letter.event, str(letter.attempts), error)
