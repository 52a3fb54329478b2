"""What code works with that shares state: the same calls for a workflow (`ctx.state`) and an application (`rt.state`).

Not here: how a call is performed, which the two subclasses say. Invariant: values go in and come out as copies,
`decode(encode(value))`; nothing that a caller holds is held by the state.
"""

import copy
import enum
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from perdure.actors.kernel.clock import moment_of
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.state.errors import StatePermissionError
from perdure.actors.state.operations import Look, Looked, Wish, check_key, check_limit, encoded
from perdure.actors.state.scopes import Permissions, Scope
from perdure.actors.state.shared_state import Put


class Missing(enum.Enum):
    """What stands for a key that is not there, since None is a value like any other."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class StateChange(msgspec.Struct, frozen=True):
    """One change of one key, as the log has it."""

    key: str
    old: Any
    """`MISSING`: it was not there."""
    new: Any
    """`MISSING`: it was deleted."""
    scope: Scope
    place: str
    """The scope with its id: `execution/RUN`, `conversation/ID`, `stream/ENTRY`, `global`."""
    run: str | None
    """The run that changed it; None: the application did."""
    entry: str | None
    """The entry point of that run."""
    step: str | None
    who: str | None
    """The principal."""
    position: int
    at: datetime
    """In UTC."""


class StateView:
    """Reads and writes shared values as far as whoever holds it sees them; a key is 1 to 200 printable characters.

    A key is looked for in the run's own values (`execution`), then in those of its conversation, of its entry point
    (`stream`) and of all (`global`): the first that has it counts. A write goes to one scope, without one named to the
    innermost.
    """

    def __init__(self, permissions: Permissions = Permissions()) -> None:  # noqa: B008 - frozen
        self._permissions = permissions

    # What the subclasses say

    @property
    @abstractmethod
    def _redaction(self) -> Redaction:
        """What does not enter the log."""
        raise NotImplementedError

    @abstractmethod
    async def _look(self, look: Look) -> Looked:
        """Perform a call that changes nothing."""
        raise NotImplementedError

    @abstractmethod
    async def _change(self, wish: Wish, scope: Scope | None) -> msgspec.Raw:
        """Perform a call that may change something; return what it comes to, as JSON."""
        raise NotImplementedError

    # Reading

    async def read(self, key: str, default: Any = None) -> Any:
        """Return a copy of the value, or *default* where no scope has the key.

        Raises:
            StatePermissionError: the view may not read it.
        """
        looked = await self._look(Look("read", self._readable(key)))
        return msgspec.json.decode(looked.value) if looked.found else default

    async def has(self, key: str) -> bool:
        """Return whether a scope has the key, be it with None.

        Raises:
            StatePermissionError: the view may not read it.
        """
        return (await self._look(Look("has", self._readable(key)))).found

    async def read_all(self) -> dict[str, Any]:
        """Return every key that may be read with its value, each as `read` gives it."""
        values: dict[str, Any] = msgspec.json.decode((await self._look(Look("read_all"))).value)
        return values

    async def changes(self, limit: int = 10) -> list[StateChange]:
        """Return the newest changes in the scopes that the view sees, of keys that it may read, the newest first.

        Raises:
            UsageError: the limit is not 1 to 1,000.
        """
        found = (await self._look(Look("changes", limit=check_limit(limit)))).value
        return [change_of(one) for one in msgspec.json.decode(found)]

    # Writing

    async def write(self, key: str, value: Any, scope: Scope | None = None) -> None:
        """Set the value of a key.

        Raises:
            StatePermissionError: the view may not write it.
            StateConflictError: the view is synchronized, has seen the key, and somebody else changed it since.
            StateFullError: the scope would hold more than it may.
            UnencodableError, PayloadTooLargeError: the value cannot be recorded.
            UsageError: there is no such scope.
        """
        await self._change(Wish("write", (key,), self._encoded({self._writable(key): value})), scope)

    async def write_batch(self, values: Mapping[str, Any], scope: Scope | None = None) -> None:
        """Set the values of several keys (at most 1,000), of all or, when anything is refused, of none.

        Raises:
            As `write`.
        """
        for key in values:
            self._writable(key)
        await self._change(Wish("write_batch", tuple(values), self._encoded(values)), scope)

    async def delete(self, key: str, scope: Scope | None = None) -> bool:
        """Take a key out of a scope; return whether it was there.

        Raises:
            As `write`.
        """
        wish = Wish("delete", (self._writable(key),), (Put(key, None),))
        return bool(msgspec.json.decode(await self._change(wish, scope)))

    async def update(
        self, key: str, function: Callable[[Any], Any], *, default: Any = None, scope: Scope | None = None
    ) -> Any:
        """Set a key to what *function* makes of its value in that scope (*default* if missing); return the new value.

        Nothing comes in between, whoever else updates it: of 50 updates none is lost. The function is called at once,
        gets a copy, and must not be async. It is not called again in a replay.

        Raises:
            StatePermissionError: the view may not both read and write it.
            StateFullError: the scope would hold more than it may.
            StepFailedError: in a workflow, what the function raises, or why its result cannot be recorded; the same
                live and replayed. An application gets the exception itself.
            UsageError: there is no such scope.
        """
        self._readable(self._writable(key))
        wish = Wish("update", (key,), function=function, default=default)
        return msgspec.json.decode(await self._change(wish, scope))

    async def compare_and_set(self, key: str, expected: Any, new: Any, scope: Scope | None = None) -> bool:
        """Set a key if its value in that scope is *expected* (`MISSING`: it is not there); return whether it was.

        Values are equal that are the same JSON: 1 is not 1.0. With `MISSING` as the new value the key is deleted.

        Raises:
            StatePermissionError: the view may not both read and write it.
            StateFullError, UnencodableError, PayloadTooLargeError, UsageError: as `write`.
        """
        self._readable(self._writable(key))
        wanted = None if expected is MISSING else self._encoded({key: expected})[0].value
        puts = (Put(key, None),) if new is MISSING else self._encoded({key: new})
        return bool(msgspec.json.decode(await self._change(Wish("compare_and_set", (key,), puts, wanted), scope)))

    # Permissions

    def with_permissions(self, *, read: Iterable[str] | None = None, write: Iterable[str] | None = None) -> "StateView":
        """Return the same view for these keys only; an empty list allows none, left out changes nothing.

        It can only narrow: what this view may not, the new one may not either.

        Raises:
            UsageError: one is a text and not a list of keys.
        """
        narrowed = self._plain()
        narrowed._permissions = self._permissions.narrowed(read, write)  # noqa: SLF001 - a copy of itself
        return narrowed

    def _plain(self) -> "StateView":
        """Return a view of the same that leads to no other: what is narrowed must have no way round."""
        return copy.copy(self)

    def _readable(self, key: str) -> str:
        if not self._permissions.may_read(check_key(key)):
            raise StatePermissionError(verb="read", key=key)
        return key

    def _writable(self, key: str) -> str:
        if not self._permissions.may_write(check_key(key)):
            raise StatePermissionError(verb="write", key=key)
        return key

    def _encoded(self, values: Mapping[str, Any]) -> tuple[Put, ...]:
        return encoded(values, self._redaction)


def change_of(found: dict[str, Any]) -> StateChange:
    """Return a change that was read from the log as plain data."""
    values: dict[str, Any] = {"old": MISSING, "new": MISSING, **found}
    values["at"] = moment_of(found["at"])
    return StateChange(**values)
