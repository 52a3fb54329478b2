"""Entry points in the words of founding document 003: its trigger types and their configurations. Pure.

Invariant: every word that it knows means here what it means there; one that it does not know is an error.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, cast

from perdure.actors.kernel.logs import logger
from perdure.actors.triggers.kinds import Api, Manual, OnEvent, Schedule, Trigger, Webhook
from perdure.actors.triggers.timetable import check_schedule
from perdure.store.errors import UsageError

_log = logger("perdure.entries")

_WORDS: Final[dict[str, frozenset[str]]] = {
    "manual": frozenset(),
    "api": frozenset(),
    "event": frozenset({"event_types", "filter_stream", "filter_node", "filter_graph", "exclude_own_graph"}),
    "timer": frozenset({"cron", "interval_minutes", "run_immediately"}),
    "webhook": frozenset({"path", "methods", "secret"}),
}
"""The trigger types, and what each may say."""


def trigger_of(kind: Any, config: Mapping[str, Any], id: str) -> Trigger:
    """Return the trigger of a type and its configuration.

    Raises:
        UsageError: there is no such type, it does not know a word, or a value cannot be that.
    """
    if kind not in _WORDS:
        raise UsageError(f"the trigger type of entry point {id} is {', '.join(_WORDS)}, not {kind!r}")
    if strange := sorted(config.keys() - _WORDS[kind]):
        known = ", ".join(sorted(_WORDS[kind])) or "none"
        raise UsageError(
            f"a trigger of type {kind} knows no {', '.join(strange)} (entry point {id}); its words: {known}"
        )
    match kind:
        case "event":
            if config.get("filter_graph"):
                raise UsageError(f"entry point {id} filters by filter_graph: name an entry point, with filter_stream")
            return OnEvent(
                _texts(config.get("event_types"), "event_types", id),
                stream=config.get("filter_stream") or None,
                node=config.get("filter_node") or None,
            )
        case "timer":
            return _timer(config, id)
        case "webhook":
            methods = _texts(config.get("methods"), "methods", id) or ("POST",)
            return Webhook(config.get("path", ""), methods=methods, secret=config.get("secret"))
        case "api":
            return Api()
        case _:
            return Manual()


def _texts(value: Any, word: str, id: str) -> tuple[str, ...]:
    given: Any = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in cast("list[object]", given)):
        raise UsageError(f"{word} of entry point {id} is a list of texts, not {value!r}")
    return tuple(each for each in cast("list[str]", given) if each)


def _timer(config: Mapping[str, Any], id: str) -> Trigger:
    immediately, cron = bool(config.get("run_immediately", False)), config.get("cron")
    try:
        if cron is not None:
            schedule = Schedule(cron=cron, run_immediately=immediately)
        else:
            every = timedelta(minutes=config.get("interval_minutes", 0))
            schedule = Schedule(every=every, run_immediately=immediately)
        check_schedule(schedule, f"the timer of entry point {id}")
    except (UsageError, TypeError, OverflowError) as error:
        _log.warning(
            "a timer cannot be set up: nothing but a caller starts the entry point", entry=id, reason=str(error)
        )
        return Manual()
    return schedule
