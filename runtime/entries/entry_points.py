"""What an application declares of an entry point: its workflow, its trigger, its limits. Data, checked when made.

Not here: what is registered (`registry.py`) and what a trigger does (`triggering.py`). Invariant: an entry point that
exists is sound in itself; whether its workflow exists is checked when it is registered.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from perdure.actors.triggers.kinds import Api, Manual, OnEvent, Schedule, Trigger, Webhook
from perdure.actors.workflows.children import MAX_ID
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.entries.spec import trigger_of
from perdure.runtime.naming import MAX_PRIORITY, is_name
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

ENTRY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,49}")
"""What an entry point may be called: it is part of the names of streams, of its queue and of its runs."""

QUEUE_PREFIX = "entry:"
"""The queue of an entry point is called by this and its id."""

Target: TypeAlias = Workflow[..., Any] | str


class EntryPoint(msgspec.Struct, frozen=True):
    """A way in: what starts runs of a workflow, how many at a time, and what of the shared state they see."""

    id: str
    """1 to 50 letters, digits and . _ + -; the name of the scope `stream` of the shared state."""
    workflow: Target
    """A workflow, or the name of a registered one."""
    trigger: Trigger | Literal["manual", "api"] = Manual()
    """`Manual()`, `Api()`, `OnEvent(…)`, `Webhook(…)`, `Schedule(…)`; whatever it is, `Runtime.trigger` works too."""
    name: str = ""
    """For people; the id when left out."""
    node: str | None = None
    """The step of a definition to start at; its own first step when left out."""
    isolation: Isolation = "shared"
    max_concurrent: int = 10
    """Runs of it at work at a time; more wait in the log."""
    priority: int = 0
    """Of its runs that wait: larger ones come first, also before those of other entry points."""
    description: str = ""

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.trigger, str):  # others may hold conditions, which have no hash
            msgspec.structs.force_setattr(self, "trigger", _BY_NAME[self.trigger])
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.id)
        check_fields(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], workflow: Target) -> "EntryPoint":
        """Return an entry point that is described in the words of `EntryPointSpec`; see docs/entry-points.md.

        `id`, `name`, `entry_node`, `trigger_type`, `trigger_config`, `isolation_level`, `priority`, `max_concurrent`. A
        timer whose configuration cannot be right is told of in a warning, and then nothing but a caller starts it.

        Raises:
            UsageError: a word is unknown, or its value cannot be that.
        """
        known = {"id", "name", "entry_node", "trigger_type", "trigger_config", "isolation_level", "priority",
                 "max_concurrent"}  # fmt: skip
        if strange := sorted(spec.keys() - known):
            raise UsageError(f"an entry point has no {', '.join(strange)}: its words are {', '.join(sorted(known))}")
        return cls(
            spec.get("id", ""),
            workflow,
            trigger_of(spec.get("trigger_type", "manual"), spec.get("trigger_config") or {}, spec.get("id", "")),
            name=spec.get("name") or "",
            node=spec.get("entry_node"),
            isolation=spec.get("isolation_level", "shared"),
            max_concurrent=spec.get("max_concurrent", 10),
            priority=spec.get("priority", 0),
        )

    @property
    def wired(self) -> Trigger:
        """Its trigger."""
        return cast("Trigger", self.trigger)

    @property
    def workflow_name(self) -> str:
        """The name of its workflow."""
        return self.workflow if isinstance(self.workflow, str) else self.workflow.name

    @property
    def queue(self) -> str:
        """The name of the queue in which its runs wait for their turn."""
        return QUEUE_PREFIX + self.id


_BY_NAME: dict[Any, Trigger] = {"manual": Manual(), "api": Api()}


def _check(one: EntryPoint) -> None:
    id: Any = one.id
    if not isinstance(id, str) or not ENTRY_ID.fullmatch(id):
        shape = "1 to 50 letters, digits and the characters . _ + -, a letter or a digit first"
        raise UsageError(f"the id of an entry point is {shape}, not {one.id!r}")
    if not isinstance(one.workflow, (str, Workflow)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"EntryPoint({one.id!r}, workflow): a workflow or its name, not {one.workflow!r}")
    if not isinstance(one.trigger, (Manual, Api, OnEvent, Webhook, Schedule)) and str(one.trigger) not in _BY_NAME:
        known = "Manual(), Api(), OnEvent(…), Webhook(…), Schedule(…), 'manual' or 'api'"
        raise UsageError(f"the trigger of entry point {one.id} is {known}, not {one.trigger!r}")
    for what in ("name", "description"):
        if not isinstance(getattr(one, what), str):
            raise UsageError(f"the {what} of entry point {one.id} is a text, not {getattr(one, what)!r}")
    if one.isolation not in get_args(Isolation):
        raise UsageError(
            f"the isolation of entry point {one.id} is isolated, shared or synchronized, not {one.isolation!r}"
        )
    if type(one.max_concurrent) is not int or one.max_concurrent < 1:
        raise UsageError(f"entry point {one.id} lets at least 1 run work at a time: max_concurrent=…")
    if type(one.priority) is not int or abs(one.priority) > MAX_PRIORITY:
        raise UsageError(f"a priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {one.priority!r}")


def check_correlation(correlation: str | None) -> None:
    """Check what a run is tied to; None is its own id.

    Raises:
        UsageError: it cannot be called that.
    """
    if correlation is not None and not is_name(correlation):
        raise UsageError(f"a correlation id is 1 to {MAX_ID} printable characters, not {correlation!r}")
