"""What a run knows of its children, and a child of its parent: who is awaited, whom an end is owed to. Pure.

Not here: the code that waits (`child_steps.py`) and the way between the two actors (`kin.py`). Invariant: a run takes
the end of each awaited child once, and is open work until it has told its own parent and its last awaited child has
ended.
"""

import hashlib
import re
from typing import Any, Final, TypeAlias, cast

import msgspec

from perdure.actors.kernel.messages import Decision, Event, Moment
from perdure.actors.workflows.commands import ChildReported, EndChild
from perdure.actors.workflows.events import RunCancelled, RunCompleted, RunFailed, RunParked
from perdure.actors.workflows.links import ChildEnded, ChildStarted, Parent, ParentTold
from perdure.store.errors import UsageError

CHILD: Final = "child"
"""What a run waits on that only waits for its children."""
MAX_ID: Final = 128
"""Of a run's id, so that idempotency keys stay below the limits of the services that they are sent to (255)."""
_HASH_BYTES: Final = 12
_MARK_BYTES: Final = 6
"""Length of the hash that tells the children of one fork from those of another."""
_MADE: Final = re.compile(r"(?:~f[0-9a-f]{12})?(?:~r\d+)?\Z")
"""What may follow the id that the code gives a child."""
_STILL: Final = frozenset({"blocked", "paused"})
"""A run that nothing wakes: what comes is kept."""

RunEnd: TypeAlias = RunCompleted | RunFailed | RunCancelled


class Children(msgspec.Struct, frozen=True):
    """The awaited children of a run that have not ended, by the step that awaits each."""

    awaited: dict[str, str] = {}

    def after(self, event: Event) -> "Children":
        """Return the children after *event*."""
        match event:
            case ChildStarted(is_awaited=True):
                return Children({**self.awaited, event.step: event.run})
            case ChildEnded():
                return Children({step: run for step, run in self.awaited.items() if step != event.step})
            case _:
                return self


CHILD_EVENTS: Final = (ChildStarted, ChildEnded)


def end_child(children: Children, status: str, command: EndChild, moment: Moment) -> Decision[bool]:
    """Take the end of a child; answered with whether it is news."""
    ended = command.ended
    if ended.step not in children.awaited:
        return Decision((), reply=False)
    if status in ("running", "waiting"):
        # A run that left memory is due at once, so that the next life wakes it too, should this one end before the
        # effect.
        woken = (RunParked(moment.now, None),) if status == "waiting" else ()
        return Decision((*woken, ended), reply=True, effects=(ChildReported(ended),))
    return Decision((ended,), reply=True)


def tell_parent(parent: Parent | None) -> Decision[bool]:
    """Note that the parent knows how the run ended; *parent* is None when it knew already, or is not to be told."""
    return Decision((), reply=False) if parent is None else Decision((ParentTold(parent.run, parent.step),), reply=True)


def ending(run: str, step: str, fact: RunEnd) -> ChildEnded:
    """Return what the parent is told of a child's end."""
    match fact:
        case RunCompleted(result=result):
            return ChildEnded(step, run, "completed", result)
        case RunFailed(error_type=error_type, error=error):
            return ChildEnded(step, run, "failed", msgspec.Raw(b"null"), error_type, error)
        case RunCancelled(reason=reason):
            detail = f"run {run} was cancelled: {reason}"
            return ChildEnded(step, run, "cancelled", msgspec.Raw(b"null"), "RunCancelledError", detail)


def checked_run_id(run: str) -> str:
    """Return a run's id if it can be one.

    Raises:
        UsageError: it cannot.
    """
    given = cast("Any", run)  # not every caller is checked
    if not isinstance(given, str) or not given or len(given) > MAX_ID or not all("!" <= c <= "~" for c in given):
        raise UsageError(f"a run's id is 1 to {MAX_ID} printable ASCII characters without a space, not {run!r}")
    return run


def child_id(parent: str, step: str, attempt: int = 1) -> str:
    """Return the id of the child that a step starts; *attempt* counts ids that were taken.

    It is the parent's id and the step's key, shortened by a hash where that is too long.
    """
    return _fitting(f"{parent}/{step}", "" if attempt == 1 else f"~r{attempt}")


def named_child_id(given: str, attempt: int, parent: str | None = None) -> str:
    """Return the id of a child that the code names; *attempt* counts those that its parent, retried, had before.

    *parent* is named where the id itself is a child's of a run that it was forked from, or that was forked from it.
    """
    own = "" if parent is None else f"~f{hashlib.blake2b(parent.encode(), digest_size=_MARK_BYTES).hexdigest()}"
    suffix = own if attempt == 1 else f"{own}~r{attempt}"
    return _fitting(given, suffix) if suffix else given


def has_name(run: str, given: str) -> bool:
    """Return whether a child has the id that the code gives it, or one that a retry or a fork made of that."""
    made = _MADE.search(run)
    return run == given or (made is not None and run == _fitting(given, made[0]))


def continued_id(first: str, number: int) -> str:
    """Return the id of the how-many-th run of a chain."""
    return _fitting(first, f"~{number}")


def _fitting(name: str, suffix: str) -> str:
    if len(name) + len(suffix) <= MAX_ID:
        return name + suffix
    digest = hashlib.blake2b(name.encode(), digest_size=_HASH_BYTES).hexdigest()
    return f"{name[: MAX_ID - len(suffix) - len(digest) - 1]}-{digest}{suffix}"
