"""The one table of names: what document 003 calls an event, and what the log does. Pure.

Invariant: a name that is in the table can be asked for as either; one that is not is asked for as it is.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from perdure.actors.workflows.forms import question_type
from perdure.actors.workflows.steering import INTERRUPTED

Data = Mapping[str, Any]

RECEIVED: Final = "webhook_received"
"""The type of the event that a delivery becomes: the only one that the runtime publishes itself. Its ids are those by
which deliveries are known again, so nobody else gives one."""

NAMES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("execution_started", ("run-started",)),
    ("execution_completed", ("run-completed",)),
    ("execution_failed", ("run-failed",)),
    ("execution_paused", ("run-paused", "pause-reached", "run-interrupted")),
    ("execution_resumed", ("run-unpaused", "pause-resumed")),
    ("execution_cancelled", ("run-cancelled",)),
    ("state_changed", ("state-changed",)),
    ("state_conflict", ("state-conflicted",)),
    ("goal_progress", ("goal-progressed",)),
    ("goal_achieved", ("goal-achieved",)),
    ("constraint_violation", ("constraint-violated",)),
    ("stream_started", ("entry-opened",)),
    ("stream_stopped", ("entry-closed",)),
    ("tool_call_started", ("step-started",)),
    ("tool_call_completed", ("step-completed", "step-failed")),
    ("node_retry", ("attempt-failed",)),
    ("client_input_requested", ("question-asked",)),
    ("edge_traversed", ("path-taken",)),
)
"""Document 003's name, and the tags of the log that it stands for. `webhook_received`, `custom` and whatever else is
published keep their names; those of models and their loops come with what brings them about."""

_TAGS: Final[dict[str, tuple[str, ...]]] = dict(NAMES)
_DOCUMENT: Final = {tag: name for name, tags in NAMES for tag in tags}


def tags_of(name: str) -> tuple[str, ...]:
    """Return what an event that is asked for by *name* is called in the log."""
    return _TAGS.get(name, (name,))


def document_name(tag: str) -> str:
    """Return document 003's name of a tag of the log; the tag where it has none."""
    return _DOCUMENT.get(tag, tag)


def all_tags(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags for several names, each once."""
    return tuple(dict.fromkeys(tag for name in names for tag in tags_of(name)))


def document_data(tag: str, data: Any) -> Any:
    """Return the data of one of the runtime's own events under the keys of document 003, where that has keys."""
    made = _DATA.get(tag)
    return data if made is None or not isinstance(data, dict) else made(cast("Data", data))


def _tool(step: Any) -> str:
    # The key of a step is the path of its branch, the tool's name and an ordinal, or what the code calls it.
    return str(step).rpartition("/")[2].partition("#")[0]


def _ended(data: Data, result: Any, *, is_error: bool) -> dict[str, Any]:
    step = data.get("step")
    return {"tool_use_id": step, "tool_name": _tool(step), "result": result, "is_error": is_error}


def _error(data: Data) -> str:
    return f"{data.get('error_type')}: {data.get('error')}"


_DATA: Final[dict[str, Callable[[Data], dict[str, Any]]]] = {
    "run-started": lambda data: {"input": data.get("input")},
    "run-completed": lambda data: {"output": data.get("result")},
    "run-failed": lambda data: {"error": _error(data)},
    "run-paused": lambda data: {"reason": data.get("reason")},
    "run-unpaused": lambda _: {},
    "run-cancelled": lambda data: {"reason": data.get("reason")},
    "step-started": lambda data: {
        "tool_use_id": data.get("step"),
        "tool_name": data.get("tool"),
        "tool_input": data.get("arguments"),
    },
    "step-completed": lambda data: _ended(data, data.get("result"), is_error=False),
    "step-failed": lambda data: _ended(data, _error(data), is_error=True),
    "attempt-failed": lambda data: {"retry_count": data.get("attempt"), "error": _error(data)},
    "question-asked": lambda data: {
        "prompt": data.get("text"),
        "request_id": data.get("id"),
        "question_type": question_type(data.get("schema", {}), data.get("choices"), tool=data.get("tool", "")),
        "choices": data.get("choices"),
    },
    "pause-reached": lambda data: {
        "reason": data.get("name"),
        "paused_at": data.get("name"),
        "request_id": data.get("id"),
        "output": data.get("result"),
    },
    "pause-resumed": lambda data: {"request_id": data.get("id"), "answer": data.get("answer")},
    "run-interrupted": lambda _: {"reason": INTERRUPTED},
    "entry-opened": lambda data: {"entry_point": data.get("name")},
    "entry-closed": lambda _: {},
    "state-changed": lambda data: {
        "key": data.get("key"),
        "old_value": data.get("old"),
        "new_value": data.get("new"),
        "scope": data.get("scope"),
    },
    "constraint-violated": lambda data: {
        "constraint_id": data.get("constraint"),
        "description": data.get("description", ""),
        "details": data.get("details", ""),
    },
    "goal-progressed": lambda data: {
        "progress": data.get("progress"),
        "criteria_status": data.get("criteria_status"),
        "recommendation": data.get("recommendation"),
    },
    "path-taken": lambda data: {
        "source_node": data.get("left"),
        "target_node": data.get("next"),
        "edge_condition": data.get("because"),
    },
}
