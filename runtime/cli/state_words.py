"""What the steps of a run that concern shared state say in a line of its timeline. Pure."""

from typing import Final

from perdure.runtime.cli.facts import Facts
from perdure.runtime.cli.outcomes import ANSWER_WIDTH
from perdure.runtime.cli.output import shorten
from perdure.store.records import Recorded

_WIDTH: Final = 60
_VERBS: Final = {"write": "set", "write_batch": "set", "delete": "deleted", "update": "updated"}


def state_note(event: Recorded, facts: Facts) -> str:
    """Return what a run read, wrote, or could not write."""
    match event.type:
        case "state-read" if facts.action == "read_all":
            return "read every key that it sees"
        case "state-read" if facts.action == "changes":
            return "read the newest changes"
        case "state-read" if facts.action == "has":
            return f"{facts.key} is {'' if facts.found else 'not '}there"
        case "state-read":
            value = shorten(bytes(facts.value).decode(), ANSWER_WIDTH) if facts.found else "nothing"
            return f"read {facts.key}: {value}"
        case "state-written":
            return _written(facts)
        case "state-conflicted":
            return f"did not set {facts.key}, which {facts.by} had changed since it was read"
        case _:
            return f"did not set {_keys(facts)}: {facts.error_type}: {facts.error}"


def _written(facts: Facts) -> str:
    result = bytes(facts.result).decode()
    if facts.action == "compare_and_set":
        said = f"set {_keys(facts)}" if result == "true" else f"did not set {_keys(facts)}, which was another"
    elif result == "false":
        said = f"{_keys(facts)} was not there to delete"
    else:
        value = f" to {shorten(result, ANSWER_WIDTH)}" if facts.action == "update" else ""
        said = f"{_VERBS.get(facts.action, facts.action)} {_keys(facts)}{value}"
    return f"{said} ({facts.scope})"


def _keys(facts: Facts) -> str:
    return shorten(", ".join(facts.keys), _WIDTH)
