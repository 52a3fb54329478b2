"""One task of a run: its place in the recording, and the guard that lets it wait on nothing but the context.

Invariant: a `ctx` call belongs to the branch whose own task makes it; every other task is refused. So the order of
steps within a branch is the order of the code, live and replayed.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from perdure.actors.workflows.errors import Parked
from perdure.actors.workflows.step_record import StepRecord
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.saga import Saga

CURRENT: ContextVar["Branch | None"] = ContextVar("perdure_branch", default=None)

_ELSEWHERE = (
    "a ctx call was made from a task that the run does not know, so a replay could not tell its order: "
    "use ctx.gather(…) or ctx.map(…) in place of asyncio.gather, create_task, wait_for or as_completed"
)
_FOREIGN_WAIT = (
    "the workflow waits on something that is not recorded: wait through ctx (ctx.call, ctx.step, ctx.sleep, "
    "ctx.gather, ctx.map); put other waits into a tool or a step"
)
_NESTED = "a step or tool must not call ctx: return what the workflow needs, and let the workflow make the next call"


class Branch:
    """A numbered task of a run."""

    __slots__ = (
        "_is_cut", "_ordinals", "driver", "is_at_edge", "is_cancelled", "is_inside", "is_told", "is_within_spared",
        "path", "pivots", "place", "saga", "shields", "task", "took", "turn",
    )  # fmt: skip

    def __init__(self, driver: "Driver", path: str, *, is_cut: bool = False) -> None:
        self.driver = driver
        self.path = path
        """Prefix of the keys of its steps: empty for the root, `map#1.4/` for a branch of a map."""
        self._is_cut = is_cut
        self.is_cancelled = False
        """Whether the run itself cancelled it; any other cancellation is foreign."""
        self.is_inside = False
        """Whether a ctx call is under way."""
        self.is_at_edge = False
        """Whether a rehearsal has come to where it would go on: nothing that its code does now counts."""
        self.task: asyncio.Task[Any] | None = None
        self.took = 0
        """How long (microseconds) the last attempt of its last step took, live as replayed."""
        self._ordinals: dict[str, int] = {}
        self.turn = 0
        """How many ctx calls its code has made."""
        self.place: tuple[int, ...] = ()
        """Where in the code of the run it was opened: the turn of the branch that opened it, its number, and so on."""
        self.saga: Saga | None = None
        """The innermost saga that its code is in."""
        self.pivots = 0
        """How many sagas that its code is in are past their pivot."""
        self.shields = 0
        """As long as there is one a cancel waits: what is under way is to come to its end."""
        self.is_told = False
        """Whether its code has got the cancellation, and cleans up."""
        self.is_within_spared = False
        """Whether the branch that opened it was spared: a cancel of the run ends there, and does not come here."""

    def child(self, path: str, number: int, *, is_cut: bool) -> "Branch":
        """Return a branch that the call under way opens, the one of that number."""
        child = Branch(self.driver, path, is_cut=is_cut)
        child.place = (*self.place, self.turn, number)
        child.saga, child.pivots = self.saga, self.pivots
        child.is_within_spared = self.is_spared
        return child

    @property
    def is_spared(self) -> bool:
        """Whether a cancel of the run does not interrupt its code: it came before, or waits for what is under way."""
        return self.is_told or self.shields > 0 or self.is_within_spared

    @property
    def is_cut(self) -> bool:
        """Whether it ends, cancelled, where its recording ends; not as long as it is shielded."""
        return self._is_cut and not self.shields

    @is_cut.setter
    def is_cut(self, value: bool) -> None:
        self._is_cut = value

    @property
    def is_replaying(self) -> bool:
        """Whether recorded steps of the branch are left."""
        return self.driver.recording.has_left_in(self.path)

    def key(self, name: str) -> str:
        """Return the key of the next step called *name*: the name and its ordinal within the branch."""
        ordinal = self._ordinals[name] = self._ordinals.get(name, 0) + 1
        return f"{self.path}{name}#{ordinal}"

    def named_key(self, name: str) -> str:
        """Return the key of a step that the code names itself.

        Raises:
            UsageError: the branch used the name before.
        """
        if name in self._ordinals:
            raise UsageError(f"the key {name!r} was used before in this branch: a key names one step")
        self._ordinals[name] = 0
        return f"{self.path}{name}"

    def cancel(self) -> None:
        """Cancel its code, once: now, or while it is being replayed where its recording ends.

        A branch that was cancelled before, in this life or a former one, is cleaning up and is left to it. One that is
        shielded is cancelled at its first call after that.
        """
        if self.driver.ending is not None:  # the run leaves memory: nothing is waited for
            if self.task is not None:
                self.task.cancel()
            return
        if self.is_cancelled:
            return
        self.is_cancelled = True
        if self.is_replaying or self.shields:
            self.is_cut = True
        elif self.task is not None:
            self.task.cancel()

    def cut(self) -> asyncio.CancelledError:
        """Return the cancellation that the branch gets where its recording ends: once, so that it can clean up."""
        self.is_cut, self.is_cancelled, self.is_told = False, True, True
        return asyncio.CancelledError()

    def take(self, key: str, what: str, name: str, digest: str = "", *, data: bytes = b"") -> StepRecord | None:
        """Return what is recorded of a step that the code asks for, or None when it is new.

        Raises:
            Parked: the code does not fit the recording; the driver parks the run with an account of it.
        """
        driver = self.driver
        if driver.ending is not None:
            raise Parked
        if not driver.recording.steps and not self.is_cut:
            return None
        record = driver.recording.take(key)
        if record is None:
            left = driver.recording.left_in(self.path)
            if self.is_cut:
                # What is left was recorded when the code, cancelled here, cleaned up; if it is not, the code changed.
                driver.suspect(key, f"the code asks for {what} {name}", left)
                raise self.cut()
            if left:
                driver.mismatch(key, f"the code asks for {what} {name}", left)
            return None
        if (record.what, record.name) != (what, name):
            driver.mismatch(key, f"the code asks for {what} {name}", [(key, record)])
        if record.digest != digest:
            driver.mismatch(key, f"the code asks for {name} with other arguments", [(key, record)], data)
        return record


def enter() -> Branch:
    """Return the branch whose task is running, and mark that a ctx call is under way.

    Raises:
        UsageError: the call is made by another task, or inside a step.
        Parked: the run is leaving memory.
    """
    branch = CURRENT.get()
    if branch is None or branch.task is not asyncio.current_task():
        raise UsageError(_ELSEWHERE)
    if branch.is_inside:
        raise UsageError(_NESTED)
    if branch.driver.ending is not None or branch.is_at_edge:
        raise Parked
    branch.is_inside = True
    branch.turn += 1
    return branch


@types.coroutine
def guarded(coroutine: Coroutine[Any, Any, Any], branch: Branch) -> Generator[Any, Any, Any]:
    """Drive the workflow's code; a wait that no ctx call stands behind gets a `UsageError` at that place.

    Raises:
        Whatever the code raises.
    """
    error: BaseException | None = None
    try:
        while True:
            try:
                wait = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            if not branch.is_inside:
                _disown(wait)
                error = UsageError(_FOREIGN_WAIT)
                continue
            try:
                yield wait
            except BaseException as thrown:  # noqa: BLE001 - a driver hands everything on to the code it drives
                error = thrown
                if branch.is_cancelled and isinstance(thrown, asyncio.CancelledError):
                    branch.is_told = True
    finally:
        coroutine.close()


def _disown(wait: Any) -> None:
    """Cancel what nobody will wait for, so that asyncio does not complain of it later."""
    if isinstance(wait, asyncio.Future):
        future = cast("asyncio.Future[object]", wait)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        future.cancel()
