"""The command that publishes an event: publish.

It needs no application code. Invariant: the event is durable in the log when the command says so; the runs that wait
for it get it from the log's owner where there is one, and otherwise when they are resumed.
"""

from pathlib import Path

import click

from perdure.actors.triggers.errors import PublicationConflictError
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.hosting import check_log
from perdure.runtime.cli.loading import read_json
from perdure.runtime.cli.options import db_option, json_option, who_option
from perdure.runtime.cli.output import print_json, print_line
from perdure.runtime.cli.owner import act


@click.command(short_help="Publish an event, for the runs that wait for its type.")
@click.argument("kind", metavar="TYPE")
@click.argument("data", metavar="[JSON]", default="null")
@db_option
@click.option("--id", "event_id", metavar="ID", help="The event's own id: published again with it, it is the same one.")
@who_option
@json_option
def publish(*, kind: str, data: str, db: Path, event_id: str | None, who: str, as_json: bool) -> None:
    """Publish an event of TYPE, such as order.paid, with data.

    Every run that waits for such an event gets it, also one that comes to wait for it later: at once where a runtime
    owns the log, otherwise when the run is resumed.
    """
    given = read_json(data, "JSON")
    check_log(db)
    try:
        acted = act(db, lambda rt: rt.publish(kind, given, id=event_id, who=who), "publish events in it")
    except PublicationConflictError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if as_json:
        print_json({"type": kind, "id": event_id, "is_new": acted.answer})
    elif acted.answer:
        print_line(f"{kind} is published{acted.then('who waits for it goes on', db)}")
    else:
        print_line(f"{kind} {event_id} was published before; nothing is published")
