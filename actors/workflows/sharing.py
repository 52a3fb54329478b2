"""`ctx.state`: the code's side of shared state, from the recording or live, each call a recorded step.

Not here: the values (`state/`). Invariant: what a call reads or changes is looked at and recorded in one turn of the
loop, the change in one unit with the step; so nothing comes in between, and a crash leaves both or neither.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.shell import Shell
from perdure.actors.state.errors import StateConflictError, StateError, StateFullError
from perdure.actors.state.history import changes_json
from perdure.actors.state.operations import Look, Looked, Wish, look_at, shelf_or_empty
from perdure.actors.state.scopes import Place, Scope, Sight
from perdure.actors.state.seen import Seen, Sighting, sighting_after
from perdure.actors.state.shared_state import ChangeState, Put, Shelf
from perdure.actors.state.view import StateView
from perdure.actors.tools.outcome import recordable
from perdure.actors.workflows.branch import Branch, enter
from perdure.actors.workflows.commands import WriteState
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.holdings import StateConflicted, StateRead, StateRefused, StateWritten
from perdure.actors.workflows.reaching import passing, reach
from perdure.actors.workflows.state import RunState

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.step_record import StepRecord

_OWN: Final[Mapping[str, type[StateError]]] = MappingProxyType(
    {kind.__name__: kind for kind in (StateConflictError, StateFullError)}
)
"""Errors that a replay builds again."""


def sight_of(state: RunState) -> Sight:
    """Return what a run sees: one that came by no entry point has the name of its workflow for its stream."""
    entrance = state.entrance
    if entrance is None:
        return Sight(state.run, state.conversation, state.workflow)
    return Sight(state.run, state.conversation, entrance.entry, entrance.isolation)


class WorkflowState(StateView):
    """The shared state as the code of one run sees it."""

    def __init__(self, driver: "Driver", key: str | None) -> None:
        super().__init__()
        self._driver = driver
        self._key = key
        """That the code gives to the step."""

    @property
    def _redaction(self) -> Redaction:
        return self._driver.engine.redaction

    @property
    def _sight(self) -> Sight:
        return sight_of(self._driver.shell.state)

    # Reading

    async def _look(self, look: Look) -> Looked:
        branch = enter()
        try:
            key, made_of = self._step(branch, look.action), digest(f"{look.action}:{look.limit}", look.key.encode())
            record = branch.take(key, "state", look.action, made_of)
            if record is not None:
                return Looked(record.result, bool(record.count))
            looked = await self._look_live(branch, look)
            fact = StateRead(key, branch.path, look.action, made_of, look.key, looked.value, looked.found, looked.seen)
            self._driver.note(fact)
            if looked.seen:
                self._seen.add(looked.seen)
            return looked
        finally:
            branch.is_inside = False

    async def _look_live(self, branch: Branch, look: Look) -> Looked:
        driver, sight = self._driver, self._sight
        driver.at_edge()
        await driver.keep_pace()
        if look.action == "changes":
            found = changes_json(driver.engine.system, sight.places, self._permissions, look.limit)
            value = msgspec.Raw(await passing(driver, branch, found))
            if driver.ending is not None:
                raise Parked
            return Looked(value)
        places = sight.places
        if look.action != "read_all" and look.key in self._own.entries:
            places = places[:1]  # nothing that comes after it counts
        shelves = await self._shelves(branch, places)
        is_synchronized = sight.isolation == "synchronized"
        return look_at(look, places, shelves, self._permissions, is_synchronized=is_synchronized)

    async def _shelves(self, branch: Branch, places: tuple[Place, ...]) -> dict[str, Shelf]:
        """Return the values at these places, all as they are now."""
        shared = [place.stream for place in places if place.scope != "execution"]
        directory = self._driver.engine.system.directory
        while away := [stream for stream in shared if directory.active(stream) is None]:
            await reach(self._driver, branch, away[0])
        shelves: dict[str, Shelf] = {place.stream: self._own for place in places if place.scope == "execution"}
        for stream in shared:
            if (shell := directory.active(stream)) is not None:
                shelves[stream] = shell.state
        return shelves

    @property
    def _own(self) -> Shelf:
        """The values of the run itself."""
        return shelf_or_empty(self._driver.shell.state.shelf)

    # Writing

    async def _change(self, wish: Wish, scope: Scope | None) -> msgspec.Raw:
        branch = enter()
        try:
            place = self._sight.place(scope)
            call = _Call(self._step(branch, wish.action), branch.path, wish, place)
            record = branch.take(call.key, "state", wish.action, call.digest)
            if record is not None:
                return _recorded(record, call.key)
            driver = self._driver
            driver.at_edge()
            await driver.keep_pace()
            shell = driver.shell if place.scope == "execution" else await reach(driver, branch, place.stream)
            return self._change_live(call, shell)
        finally:
            branch.is_inside = False

    def _change_live(self, call: "_Call", shell: Shell) -> msgspec.Raw:
        shelf: Shelf = self._own if shell is self._driver.shell else shell.state
        wish, is_watched = call.wish, self._is_watched(call.place)
        if is_watched and wish.rests_on_what_was_seen:
            self._check(call, shelf)
        try:
            puts, result = wish.outcome(shelf, self._redaction)
        except Exception as error:
            raise self._failed(call, error) from error
        seen = (sighting_after(call.place, shelf, puts),) if is_watched and (puts or wish.action == "update") else ()
        self._record(call, shell, puts, call.written(result, seen))
        if seen:
            self._seen.add(seen)
        return result

    def _is_watched(self, place: Place) -> bool:
        return place.scope != "execution" and self._sight.isolation == "synchronized"

    def _check(self, call: "_Call", shelf: Shelf) -> None:
        """Check that nobody has changed what is to be overwritten since the run saw it.

        Raises:
            StateConflictError: somebody has; it is recorded.
        """
        try:
            self._seen.check(call.place, shelf, call.wish.keys)
        except StateConflictError as conflict:
            self._driver.note(call.conflicted(conflict))
            raise

    def _record(self, call: "_Call", shell: Shell, puts: tuple[Put, ...], fact: StateWritten) -> None:
        driver = self._driver
        entrance = driver.shell.state.entrance
        entry = None if entrance is None else entrance.entry
        change = ChangeState(puts, call.place.scope, call.place.name, driver.run_id, entry, call.key)
        try:
            if not puts:
                driver.note(fact)
            elif shell is driver.shell:
                driver.record((shell, WriteState(fact, change)))
            else:
                driver.note(fact, (shell, change))
        except StateFullError as full:
            driver.note(call.refused(full, msgspec.json.encode(vars(full))))
            raise

    def _failed(self, call: "_Call", error: Exception) -> StepFailedError:
        fact = call.refused(error)
        self._driver.note(fact)
        return StepFailedError(step=call.key, error_type=fact.error_type, error=fact.error, retryable=False)

    # Both

    def _step(self, branch: Branch, action: str) -> str:
        return branch.key(f"state.{action}") if self._key is None else branch.named_key(self._key)

    @property
    def _seen(self) -> Seen:
        return self._driver.seen


class _Call(msgspec.Struct, frozen=True, eq=False):
    """A change that the code asks for, and the facts that it can become."""

    key: str
    path: str
    wish: Wish
    place: Place

    @property
    def digest(self) -> str:
        return digest(f"{self.wish.action}:{self.place.scope}", self.wish.data)

    def written(self, result: msgspec.Raw, seen: tuple[Sighting, ...]) -> StateWritten:
        wish = self.wish
        return StateWritten(
            self.key,
            self.path,
            wish.action,
            self.digest,
            self.place.scope,
            wish.keys,
            result,
            seen,
        )

    def conflicted(self, conflict: StateConflictError) -> StateConflicted:
        action, scope = self.wish.action, self.place.scope
        return StateConflicted(
            self.key, self.path, action, self.digest, scope, conflict.key, conflict.place, conflict.by
        )

    def refused(self, error: Exception, details: bytes = b"null") -> StateRefused:
        wish, kind, text = self.wish, type(error).__name__, recordable(str(error))
        scope, raw = self.place.scope, msgspec.Raw(details)
        return StateRefused(self.key, self.path, wish.action, self.digest, scope, wish.keys, kind, text, raw)


def _recorded(record: "StepRecord", key: str) -> msgspec.Raw:
    """Return what a call came to, or raise what it raised."""
    if record.progress != "failed":
        return record.result
    own = _OWN.get(record.error_type)
    details = msgspec.json.decode(record.result)
    if own is not None and details is not None:
        raise own(**details)
    raise StepFailedError(step=key, error_type=record.error_type, error=record.error, retryable=False)
