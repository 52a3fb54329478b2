"""`rt.state`: the shared state as the application reads and writes it, beside the runs.

Not here: what a call comes to (`actors/state/`). Invariant: a change is durable when the call returns, and so is
everything that a read rests on.
"""

from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.state.figures import StateFigures
from perdure.actors.state.history import changes_json
from perdure.actors.state.operations import Look, Looked, Wish, check_limit, look_at, shelf_or_empty
from perdure.actors.state.scopes import Permissions, Place, Scope, Sight, stream_of
from perdure.actors.state.seen import Seen, Sighting, sighting_after
from perdure.actors.state.shared_state import ChangeState, DropState, Shelf
from perdure.actors.state.view import StateChange, StateView, change_of
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.entrance import Isolation
from perdure.actors.workflows.errors import UnknownRunError
from perdure.actors.workflows.sharing import sight_of
from perdure.runtime.naming import check_principal
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery

_ISOLATIONS: Final = ("isolated", "shared", "synchronized")


class Eyes(msgspec.Struct, frozen=True, kw_only=True):
    """Through whose eyes an application looks; see `SharedState.view`."""

    run: str | None = None
    conversation: str | None = None
    stream: str | None = None
    isolation: Isolation | None = None
    who: str | None = None
    permissions: Permissions = Permissions()

    def checked(self) -> Self:
        """Return them, if there can be such.

        Raises:
            UsageError: there cannot.
        """
        if self.isolation is not None and self.isolation not in _ISOLATIONS:
            raise UsageError(f"isolation is one of {', '.join(_ISOLATIONS)}, not {self.isolation!r}")
        check_principal(self.who)
        if self.run is not None:
            checked_run_id(self.run)
        return self


class Changed(msgspec.Struct, frozen=True):
    """What a call that may change something came to, and what has been seen since by a view that takes note."""

    result: msgspec.Raw
    seen: tuple[Sighting, ...] = ()


class ApplicationState(StateView):
    """The shared state as the application sees it through somebody's eyes; see `SharedState.view`."""

    def __init__(self, machinery: "Machinery", eyes: Eyes) -> None:
        super().__init__(eyes.permissions)
        self._machinery = machinery
        self._eyes = eyes
        self._seen = Seen()

    # For another process, whose view this one stands for

    async def looked(self, look: Look) -> Looked:
        """Perform a call that changes nothing."""
        return await self._look(look)

    async def held(self, key: str, scope: Scope | None) -> Looked:
        """Return what the scope holds that a write would go to."""
        place = (await self._sight()).place(scope)
        shelves = await self._shelves((place,))
        looked = look_at(Look("read", key), (place,), shelves, self._permissions, is_synchronized=False)
        await self._durable()
        return looked

    async def changed(self, wish: Wish, scope: Scope | None, seen: tuple[Sighting, ...]) -> Changed:
        """Perform a call that may change something, in the name of a view that has seen this."""
        self._seen.add(seen)
        result = await self._change(wish, scope)
        return Changed(result, self._seen.about(wish.keys))

    # Here

    @property
    def _redaction(self) -> Redaction:
        return self._machinery.parts.redaction

    @property
    def _system(self) -> ActorSystem:
        self._machinery.check_open()
        return self._machinery.system

    async def _sight(self) -> Sight:
        """Return what it sees: of a run that it was made for, what that sees, unless it was told otherwise."""
        asked = self._eyes
        if asked.run is None:
            return Sight(None, asked.conversation, asked.stream, asked.isolation or "shared")
        state = (await self._system.directory.bring(stream_of("execution", asked.run))).state
        if state.status == "unborn":
            raise UnknownRunError(run=asked.run)
        own = sight_of(state)
        isolation: Isolation = asked.isolation or own.isolation
        return Sight(asked.run, asked.conversation or own.conversation, asked.stream or own.stream, isolation)

    async def _durable(self) -> None:
        # Durable before visible: the application stands outside.
        if (barrier := self._system.log.barrier()) is not None:
            await barrier

    async def _look(self, look: Look) -> Looked:
        sight = await self._sight()
        if look.action == "changes":
            found = await changes_json(self._system, sight.places, self._permissions, look.limit)
            return Looked(msgspec.Raw(found))
        shelves = await self._shelves(sight.places)
        is_synchronized = sight.isolation == "synchronized"
        looked = look_at(look, sight.places, shelves, self._permissions, is_synchronized=is_synchronized)
        self._seen.add(looked.seen)
        await self._durable()
        return looked

    async def _shelves(self, places: tuple[Place, ...]) -> dict[str, Shelf]:
        """Return the values at these places, all as they are now."""
        shells = await self._system.directory.bring_all([place.stream for place in places])
        return {shell.stream: _shelf(shell) for shell in shells}

    async def _change(self, wish: Wish, scope: Scope | None) -> msgspec.Raw:
        sight = await self._sight()
        place = sight.place(scope)
        shell = await self._system.directory.bring(place.stream)
        # From here on nothing is awaited until it is done.
        try:
            return self._changed(wish, place, shell, is_synchronized=sight.isolation == "synchronized")
        finally:
            await self._durable()

    def _changed(self, wish: Wish, place: Place, shell: Shell, *, is_synchronized: bool) -> msgspec.Raw:
        shelf, is_watched = _shelf(shell), is_synchronized and place.scope != "execution"
        if is_watched and wish.rests_on_what_was_seen:
            self._seen.check(place, shelf, wish.keys)
        puts, result = wish.outcome(shelf, self._redaction)
        change = ChangeState(puts, place.scope, place.name)
        self._system.transact(((shell, change),), principal=self._eyes.who)
        if is_watched and puts:
            self._seen.add((sighting_after(place, shelf, puts),))
        return result


@checked_but("__init__")
class SharedState(ApplicationState):
    """The shared state of a runtime: itself a view of the values that all share (`global`), and the way to others."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery") -> None:
        super().__init__(machinery, Eyes())
        self._runtime = runtime
        self._figures = StateFigures()

    def view(
        self,
        *,
        run: str | None = None,
        conversation: str | None = None,
        stream: str | None = None,
        isolation: Isolation | None = None,
        who: str | None = None,
    ) -> StateView:
        """Return the state as a run, the runs of a conversation, or those of an entry point (*stream*) see it.

        Args:
            run: a run; what else it sees, and its isolation, are its own unless said otherwise here.
            conversation: a conversation's id.
            stream: an entry point's id, or the name of a workflow whose runs come by none.
            isolation: `shared` when left out and no run is named. A `synchronized` view remembers what it has read.
            who: in whose name it writes, as the log is to name them.

        Raises (its calls):
            UnknownRunError: there is no such run.
            RunClosedError: the run has ended: its own values are gone and can not come back.
            UsageError: an isolated view without a run.
            LogWriteError, BacklogFullError: the log refused.
        """
        return self.through(Eyes(run=run, conversation=conversation, stream=stream, isolation=isolation, who=who))

    def through(self, eyes: Eyes) -> ApplicationState:
        """Return the state as seen through these eyes. See `view`."""
        return ApplicationState(self._machinery, eyes.checked())

    def _plain(self) -> StateView:
        return self.through(self._eyes)

    async def recent_changes(self, limit: int = 10) -> list[StateChange]:
        """Return the newest changes in all scopes, those of runs included, the newest first.

        Raises:
            UsageError: the limit is not 1 to 1,000.
        """
        found: list[dict[str, Any]] = msgspec.json.decode(await self.recent_changes_json(limit))
        return [change_of(one) for one in found]

    async def recent_changes_json(self, limit: int = 10) -> bytes:
        """Return the same as JSON, for another process."""
        return await changes_json(self._system, None, limit=check_limit(limit))

    async def drop(self, *, stream: str | None = None, conversation: str | None = None, who: str | None = None) -> int:
        """Take away all values of an entry point or of a conversation; return how many there were. Durable on return.

        Runs that go on may write new ones.

        Raises:
            UsageError: not exactly one of the two is named.
        """
        if (stream is None) == (conversation is None):
            raise UsageError("rt.state.drop takes either stream=… or conversation=…")
        check_principal(who)
        name = stream_of("stream", stream) if stream is not None else stream_of("conversation", conversation or "")
        dropped: int = await self._runtime.ask(name, DropState(), principal=who)
        return dropped

    async def statistics(self) -> dict[str, int]:
        """Return `global_keys`, `stream_count`, `execution_count`, `total_changes` and `version`.

        Counted are streams and open runs that hold values; both of the last are the changes that there ever were, all
        of which the log has. The first call reads them, later ones what has come since.
        """
        await self._durable()
        await self._figures.read(self._system.log)
        return self._figures.counts()


def _shelf(shell: Shell) -> Shelf:
    state = shell.state
    return state if isinstance(state, Shelf) else shelf_or_empty(state.shelf)
