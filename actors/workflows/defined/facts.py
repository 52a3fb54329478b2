"""What a definition decides, recorded: which step was skipped and which way was taken. Read back, never decided again.

Decisions are pure functions of recorded data, so a replay decides the same; code that decides otherwise is a mismatch.
"""

from perdure.actors.workflows.branch import enter
from perdure.actors.workflows.events import PathTaken, StepSkipped


def note_skip(key: str, reason: str) -> None:
    """Record that the step that would have this key is not performed.

    Raises:
        Parked: the recording has it that it was.
    """
    branch = enter()
    try:
        full = branch.named_key(key)
        if branch.take(full, "skip", "skip") is None:
            branch.driver.note(StepSkipped(full, branch.path, reason))
    finally:
        branch.is_inside = False


def note_path(left: str, following: str | None, because: str) -> None:
    """Record that a conditional workflow goes from a step to the next one, or to its end.

    Raises:
        Parked: the recording has it that it went elsewhere.
    """
    branch = enter()
    try:
        key = branch.key("path")
        if branch.take(key, "path", f"{left} > {following}") is None:
            branch.driver.note(PathTaken(key, branch.path, left, following, because))
    finally:
        branch.is_inside = False
