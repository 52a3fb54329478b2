"""Deliberate changes of a workflow's code: which version of each a run goes by.

Invariant: a run goes by one version of a change from the first choice to its end, and a branch that had gone past the
place before anybody chose goes by version 0, which is the code as it was before the change was marked.
"""

from typing import TYPE_CHECKING

from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.events import VersionChosen
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

_LONGEST_NAME = 128


class Versions:
    """What was chosen in this life of a run, and what its recording shows to have been passed."""

    __slots__ = ("_chosen", "_passed")

    def __init__(self) -> None:
        self._chosen: dict[str, int] = {}
        self._passed: tuple[str, ...] = ()
        """Changes whose place some branch went past before they were marked."""

    def choose(self, driver: "Driver", branch: Branch, name: str, latest: int) -> int:
        """Return the version of the change *name* that this call goes by. See `Context.version`.

        Raises:
            CancelledError: the branch is cancelled here.
            UsageError: the name or the number is not one.
        """
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or latest < 1:
            raise UsageError("ctx.version takes a name of 1 to 128 printable characters, and a number from 1")
        if (recorded := driver.recording.version(name, branch.path)) is not None:
            return recorded
        if branch.is_replaying:
            if name not in self._passed:
                self._passed = (*self._passed, name)
            return 0
        if (chosen := self._chosen.get(name)) is not None:
            return chosen
        if branch.is_cut:
            raise branch.cut()
        chosen = self._chosen[name] = 0 if name in self._passed else latest
        driver.note(VersionChosen(name, chosen))
        return chosen
