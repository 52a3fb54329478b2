"""How a trigger becomes a run: one unit, `entry-triggered` in the entry point's stream, `run-started` in the run's.

Not here: what is registered (`registry.py`), and when triggers come. Invariant: what has a key of its own starts one
run, however often and after however many crashes it is asked for.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.state.conversation import JoinConversation, conversation_stream
from perdure.actors.triggers.entry_point import (
    EntryTriggered,
    RefuseTrigger,
    TriggerEntry,
    TriggerRefused,
    entry_stream,
)
from perdure.actors.triggers.errors import TriggerRefusedError
from perdure.actors.workflows.children import MAX_ID
from perdure.actors.workflows.entrance import Entrance, TriggerKind
from perdure.actors.workflows.errors import RunConflictError
from perdure.actors.workflows.state import RunState
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.starting_at import Starts
from perdure.runtime.options import OptionValues
from perdure.store.records import StreamId, stream_id

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.beginning import Beginnings
    from perdure.runtime.machinery import Machinery

_DIGEST_BYTES: Final = 12
_BY_CALL: Final[tuple[TriggerKind, ...]] = ("api", "manual")
_log = logger("perdure.entries")

Beside: TypeAlias = tuple[StreamId, Callable[[str], Command]]
"""Who takes note of a run in the unit that starts it, and what it is told, given the run's id."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger asks for."""

    run: str
    data: Mapping[str, Any]
    kind: TriggerKind
    is_once: bool
    """Whether the run's id says all: a run that is there already is the same, whatever its data."""
    correlation: str | None = None
    depth: int = 0
    cause: int | None = None
    conversation: str | None = None
    priority: int | None = None
    who: str | None = None
    beside: Beside | None = None


def fired_id(entry: str, key: str) -> str:
    """Return the id of the run that a trigger's key stands for: both, shortened by a hash where that is no id.

    Anybody who may start runs could have given it to another one: see `other_id`.
    """
    plain = f"{entry}:{key}"
    if len(plain) <= MAX_ID and all("!" <= c <= "~" for c in plain):
        return plain
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    legible = "".join(c if "!" <= c <= "~" else "_" for c in key)[: MAX_ID - len(entry) - len(digest) - 2]
    return f"{entry}:{legible}~{digest}"


def other_id(run: str, attempt: int) -> str:
    """Return what the run of a trigger is called in place of *run*, which was taken, as all before *attempt* were."""
    suffix = f"~t{attempt}"
    if len(run) + len(suffix) <= MAX_ID:
        return run + suffix
    digest = hashlib.blake2b(run.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{run[: MAX_ID - len(suffix) - len(digest) - 1]}-{digest}{suffix}"


class Triggers:
    """Starts the runs of the entry points of a runtime."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery", beginnings: "Beginnings", starts: Starts) -> None:
        self._runtime = runtime
        self._starts = starts
        self._machinery = machinery
        self._beginnings = beginnings

    async def start(self, entry: EntryPoint, asked: Asked) -> str:
        """Start the run that is asked for, or find it; return its id, which is durable.

        Raises:
            TriggerRefusedError: too many runs led to it.
            RunConflictError: the id belongs to another run.
            UnknownWorkflowError, InvalidArgumentsError, UnencodableError: it cannot be started; nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
            PerdureError: as who takes note of it beside.
        """
        name = entry.workflow_name
        data = self._starts.input(entry, self._runtime.workflow(name), asked.data)
        entrance = Entrance(entry.id, asked.kind, entry.isolation, asked.correlation, asked.depth, asked.cause)
        options = OptionValues(
            id=asked.run,
            conversation=asked.conversation,
            principal=asked.who,
            queue=entry.queue,
            priority=entry.priority if asked.priority is None else asked.priority,
            entrance=entrance,
        )
        starting = self._beginnings.command(name, data, options)
        meant = asked.run
        asked, (gate, run, *others) = await self._brought(entry, asked)
        told = () if asked.beside is None else ((others[0], asked.beside[1](asked.run)),)
        system, state = self._machinery.system, run.state
        if state.status != "unborn":
            _check_is_same(state, entry)
            moves: tuple[tuple[Shell, Command], ...] = () if asked.is_once else ((run, starting),)
            done = system.transact((*moves, *told), correlation=asked.run, principal=asked.who)
        elif asked.depth > self._machinery.parts.settings.max_trigger_depth:
            raise await self._refused(entry, gate, asked)
        else:
            fact = EntryTriggered(asked.run, asked.kind, asked.correlation, asked.depth, asked.cause)
            joins = ((shell, JoinConversation(asked.run, name)) for shell in others[len(told) :])
            moves = ((gate, TriggerEntry(fact)), (run, starting), *joins)
            done = system.transact((*moves, *told), correlation=asked.run, principal=asked.who)
            if asked.run != meant:
                _log.warning("the id of a trigger's run was taken", entry_point=entry.id, run=meant, instead=asked.run)
        if done.ticket is not None:
            await done.ticket
        return asked.run

    async def _brought(self, entry: EntryPoint, asked: Asked) -> tuple[Asked, list[Shell]]:
        """Return what is asked for, and who takes part: entry point, run, who takes note of it, conversation.

        They are in memory as long as nothing is awaited. Of a trigger the run is one that it started, or one that has
        not begun: who has taken the id that was meant for that has taken an id, and nothing is lost by it.
        """
        beside = () if asked.beside is None else (asked.beside[0],)
        joined = () if asked.conversation is None else (conversation_stream(asked.conversation),)
        meant, attempt = asked.run, 1
        while True:
            streams = [entry_stream(entry.id), stream_id(f"run/{asked.run}"), *beside, *joined]
            shells = await self._machinery.system.directory.bring_all(streams)
            state: RunState = shells[1].state
            if not asked.is_once or state.status == "unborn" or _was_fired(state, entry, asked.kind):
                return asked, list(shells)
            attempt += 1
            asked = msgspec.structs.replace(asked, run=other_id(meant, attempt))

    async def _refused(self, entry: EntryPoint, gate: Shell, asked: Asked) -> TriggerRefusedError:
        """Record that a trigger is refused, and return what its caller is told."""
        reason = f"{asked.depth} runs led to it, each by an event of the one before: that is taken for a circle"
        fact = TriggerRefused(asked.run, asked.kind, reason, asked.depth, asked.cause)
        done = self._machinery.system.transact(((gate, RefuseTrigger(fact)),), principal=asked.who)
        if done.ticket is not None:
            await done.ticket
        return TriggerRefusedError(entry=entry.id, reason=reason)


def _was_fired(state: RunState, entry: EntryPoint, kind: TriggerKind) -> bool:
    """Return whether a run was started by a trigger of the entry point's, and not by somebody who gave it that id.

    Those who call `trigger` say the id themselves; children, forks and runs that go on have the entrance of another.
    """
    came = state.entrance
    if came is None or came.entry != entry.id or (came.kind in _BY_CALL and kind not in _BY_CALL):
        return False
    return state.parent is None and state.forked_from is None and state.chain is None


def _check_is_same(state: RunState, entry: EntryPoint) -> None:
    """Check that a run that is there already is one of the entry point's own.

    Raises:
        RunConflictError: it is not.
    """
    if state.entrance is None or state.entrance.entry != entry.id:
        whose = "no entry point" if state.entrance is None else f"entry point {state.entrance.entry}"
        raise RunConflictError(detail="", run=state.run, workflow=state.workflow, difference=f"{whose} behind it")
