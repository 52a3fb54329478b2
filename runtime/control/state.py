"""The shared state of a runtime that another process owns: what `Runtime.state` is there, looked at from here.

Invariant: what is returned was durable before the owner answered; an update rests on a value that nobody changed
meanwhile, so none is lost.
"""

from typing import Any

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.state.operations import Look, Looked, Wish, check_limit
from perdure.actors.state.scopes import Scope
from perdure.actors.state.seen import Seen
from perdure.actors.state.shared_state import Entry, Shelf
from perdure.actors.state.view import StateChange, StateView, change_of
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.control import state_words
from perdure.runtime.control.facets import Asking, asked
from perdure.runtime.control.messages import ChangeState, LookAtState
from perdure.runtime.state import Changed, Eyes, SharedState
from perdure.store.expected import checked_but


class OwnersView(StateView):
    """The owner's shared state through somebody's eyes.

    An `update` calls its function again if somebody was quicker.
    """

    def __init__(self, asking: Asking, redaction: Redaction, eyes: Eyes) -> None:
        super().__init__(eyes.permissions)
        self._asking = asking
        self._rules = redaction
        self._eyes = eyes
        self._seen = Seen()

    @property
    def _redaction(self) -> Redaction:
        return self._rules

    @property
    def _sent_eyes(self) -> Eyes:
        return msgspec.structs.replace(self._eyes, permissions=self._permissions)

    async def _look(self, look: Look) -> Looked:
        looked: Looked = await self._asking.request(LookAtState(self._sent_eyes, look))
        self._seen.add(looked.seen)
        return looked

    async def _change(self, wish: Wish, scope: Scope | None) -> msgspec.Raw:
        if wish.action == "update":
            return await self._update(wish, scope)
        request = ChangeState(
            eyes=self._sent_eyes,
            action=wish.action,
            values={one.key: one.value for one in wish.puts if one.value is not None},
            taken=tuple(one.key for one in wish.puts if one.value is None),
            expected=msgspec.UNSET if wish.expected is None else wish.expected,
            scope=scope,
            seen=self._seen.about(wish.keys),
        )
        changed: Changed = await self._asking.request(request)
        self._seen.add(changed.seen)
        return changed.result

    async def _update(self, wish: Wish, scope: Scope | None) -> msgspec.Raw:
        (key,) = wish.keys
        while True:
            request = LookAtState(self._sent_eyes, Look("read", key), is_held=True, scope=scope)
            held: Looked = await self._asking.request(request)
            entries = {key: Entry(bytes(held.value).decode(), 0)} if held.found else {}
            puts, result = wish.outcome(Shelf(entries), self._redaction)
            expected = held.value if held.found else None
            done = await self._change(Wish("compare_and_set", (key,), puts, expected), scope)
            if msgspec.json.decode(done):
                return result


@checked_but("update")
class OwnersState(OwnersView):
    """The shared state of the owner: itself a view of what all share, and the way to others. See `SharedState`."""

    def __init__(self, asking: Asking, redaction: Redaction) -> None:
        super().__init__(asking, redaction, Eyes())

    def view(
        self,
        *,
        run: str | None = None,
        conversation: str | None = None,
        stream: str | None = None,
        isolation: Isolation | None = None,
        who: str | None = None,
    ) -> StateView:
        """Return the state as somebody sees it. See `SharedState.view`."""
        eyes = Eyes(run=run, conversation=conversation, stream=stream, isolation=isolation, who=who)
        return OwnersView(self._asking, self._rules, eyes.checked())

    def _plain(self) -> StateView:
        return OwnersView(self._asking, self._rules, self._eyes)

    async def recent_changes(self, limit: int = 10) -> list[StateChange]:
        """Return the newest changes in all scopes. See `SharedState.recent_changes`."""
        found: list[dict[str, Any]] = await self._asking.request(state_words.RecentChanges(check_limit(limit)))
        return [change_of(one) for one in found]

    drop = asked(SharedState.drop, state_words.DropState)
    statistics = asked(SharedState.statistics, state_words.StateStatistics)
