"""Which actors are in memory: activation on demand, one activation per stream, passivation when idle.

Invariant: a stream has at most one shell, and a shell leaves only when nothing works for it and its events are durable.
"""

import asyncio
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.clock import SECOND, Timer
from perdure.actors.kernel.errors import ActorFailedError, ActorStoppedError
from perdure.actors.kernel.replay import Core, check_behaviors
from perdure.actors.kernel.shell import Envelope, Shell
from perdure.actors.kernel.supervision import Record
from perdure.store.errors import PerdureError, UsageError
from perdure.store.records import Loaded, StreamId

if TYPE_CHECKING:
    from perdure.actors.kernel.system import ActorSystem

LOAD_AT_ONCE = 200
"""Streams asked for in one query: a page that the reader answers in milliseconds."""


class Directory:
    """The actors in memory, and the messages that wait for those that are not yet."""

    def __init__(self, system: "ActorSystem", behaviors: Sequence[Behavior[Any]], *, idle_seconds: float) -> None:
        self._system = system
        self._cores = check_behaviors(behaviors)
        self._idle = int(idle_seconds * SECOND)
        self._active: dict[StreamId, Shell] = {}
        self._held: dict[StreamId, deque[Envelope]] = {}
        self._wanted: dict[StreamId, Answer[Shell]] = {}
        self._records: dict[StreamId, Record] = {}
        self._resting: set[StreamId] = set()
        self._readings: list[set[StreamId]] = []
        self._loading: asyncio.Task[None] | None = None
        self._sweeper: Timer | None = None

    def __len__(self) -> int:
        """Return how many actors are in memory."""
        return len(self._active)

    def active(self, stream: StreamId) -> Shell | None:
        """Return the actor if it is in memory."""
        return self._active.get(stream)

    def shells(self, prefix: str) -> list[Shell]:
        """Return the actors in memory whose stream starts with *prefix*."""
        return [shell for stream, shell in self._active.items() if stream.startswith(prefix)]

    def parked(self) -> dict[StreamId, str]:
        """Return the actors that failed too often, and why."""
        return {stream: record.reason for stream, record in self._records.items() if record.is_parked}

    def core(self, stream: StreamId) -> Core[Any]:
        """Return the core for the kind of *stream*.

        Raises:
            UsageError: no behavior of that kind is registered.
        """
        kind = stream.partition("/")[0]
        try:
            return self._cores[kind]
        except KeyError:
            raise UsageError(f"no actor of the kind {kind!r}; there are {', '.join(sorted(self._cores))}") from None

    # Activation

    async def activate(self, stream: StreamId) -> Shell:
        """Return the actor of *stream*, brought back from the log if need be.

        Concurrent calls in one turn of the loop share one query.

        Raises:
            UnknownTagError, UndecodableEventError: the stream cannot be read; nothing else is affected.
            ActorFailedError: the actor is parked.
            UsageError: no behavior of that kind is registered.
        """
        shell = self._active.get(stream)
        return shell if shell is not None else await self._want(stream)

    async def activate_many(self, streams: Iterable[StreamId]) -> list[Shell | BaseException]:
        """Return the actors of *streams*, or why one cannot be read, in their order."""
        return await asyncio.gather(*(self.activate(stream) for stream in streams), return_exceptions=True)

    async def bring(self, stream: StreamId) -> Shell:
        """Return the actor of *stream*, which stays in memory as long as nothing is awaited.

        Raises:
            As `activate`.
        """
        while (shell := self._active.get(stream)) is None:
            await self.activate(stream)
        return shell

    async def bring_all(self, streams: Sequence[StreamId]) -> list[Shell]:
        """Return the actors of *streams*, all in memory at once, where they stay as long as nothing is awaited.

        Raises:
            As `activate`, of the first that cannot be read.
        """
        while True:
            shells = [shell for stream in streams if (shell := self._active.get(stream)) is not None]
            if len(shells) == len(streams):
                return shells
            for found in await self.activate_many(streams):
                if isinstance(found, BaseException):
                    raise found

    def _want(self, stream: StreamId) -> Answer[Shell]:
        answer = self._wanted.get(stream)
        if answer is None:
            answer = self._wanted[stream] = Answer()
            if self._loading is None or self._loading.done():
                self._loading = self._system.loop.create_task(self._load_wanted())
        return answer

    async def _load_wanted(self) -> None:
        while self._wanted:
            streams = list(self._wanted)[:LOAD_AT_ONCE]
            await self._load([s for s in streams if self._may_load(s)])

    def _may_load(self, stream: StreamId) -> bool:
        record = self._records.get(stream)
        try:
            self.core(stream)
            if record is not None and record.is_parked:
                raise ActorFailedError(stream=stream, reason=record.reason)
        except PerdureError as error:
            self._settle(stream, error)
            return False
        return True

    async def _load(self, streams: list[StreamId]) -> None:
        if not streams:
            return
        try:
            with self.reading() as left:
                loaded = await self._system.log.load([(s, self.core(s).schema) for s in streams])
                needed = self._system.codec.needed_blobs(event for one in loaded for event in one.events)
                blobs = await self._system.log.blobs(needed)
        except BaseException as error:
            for stream in streams:
                self._settle(stream, error)
            if isinstance(error, Exception):
                return
            raise
        for one in loaded:
            # Somebody else may have brought it here meanwhile, and even sent it away again: then it is read once more.
            shell = self._active.get(one.stream)
            if shell is not None or one.stream not in left:
                self._settle(one.stream, shell or self._revive(one, blobs))

    @contextmanager
    def reading(self) -> Generator[set[StreamId]]:
        """Collect the streams whose actor leaves memory while the block runs: what was read of them may be old."""
        left: set[StreamId] = set()
        self._readings.append(left)
        try:
            yield left
        finally:
            self._readings = [reading for reading in self._readings if reading is not left]

    def _left(self, stream: StreamId) -> None:
        self._system.log.forget([stream])
        for reading in self._readings:
            reading.add(stream)

    def _revive(self, loaded: Loaded, blobs: Mapping[str, bytes]) -> Shell | PerdureError:
        core = self.core(loaded.stream)
        try:
            shell = Shell(self._system, core, core.revive(loaded, self._system.codec, blobs))
        except PerdureError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a bug in `evolve` blocks this stream and no other
            failure = ActorFailedError(stream=loaded.stream, reason=f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            return failure
        shell.last_used = self._system.clock.moment().now
        self._active[loaded.stream] = shell
        if self._sweeper is None:
            self._sweep_later()
        return shell

    def adopt(self, loaded: Loaded, blobs: Mapping[str, bytes]) -> Shell:
        """Return the actor of a stream that was just loaded; the one in memory, if there is one.

        Raises:
            UnknownTagError, UndecodableEventError, ActorFailedError: as `activate`.
        """
        shell = self._active.get(loaded.stream)
        outcome = shell if shell is not None else self._revive(loaded, blobs)
        if not isinstance(outcome, Shell):
            raise outcome
        self._settle(loaded.stream, outcome)
        return outcome

    def _settle(self, stream: StreamId, outcome: Shell | BaseException) -> None:
        answer = self._wanted.pop(stream, None)
        held = self._held.pop(stream, deque())
        if isinstance(outcome, Shell):
            for envelope in held:
                outcome.put(envelope)
            if answer is not None:
                answer.set(outcome)
            return
        for envelope in held:
            self._system.refuse(envelope, outcome)
        if answer is not None:
            answer.set_error(outcome)

    # Messages that wait for an actor

    def waiting(self, stream: StreamId) -> int:
        """Return how many messages wait for an actor that is not in memory."""
        return len(self._held.get(stream, ()))

    def hold(self, stream: StreamId, envelope: Envelope) -> None:
        """Keep *envelope* until the actor is in memory, and bring it there."""
        self._held.setdefault(stream, deque()).append(envelope)
        if stream not in self._resting:
            self._want(stream)

    # Failure

    def record(self, stream: StreamId) -> Record:
        """Return the recent failures of an actor."""
        return self._records.get(stream, Record())

    def drop(self, shell: Shell, record: Record) -> list[Envelope]:
        """Take a failed actor out of memory; return the messages that it had not handled."""
        self._records[shell.stream] = record
        if self._active.get(shell.stream) is shell:
            del self._active[shell.stream]
        self._left(shell.stream)
        envelopes = list(shell.actor_inbox)
        shell.actor_inbox.clear()
        shell.leave()
        return envelopes

    def hold_back(self, stream: StreamId, envelopes: Iterable[Envelope]) -> None:
        """Keep messages for a failed actor until `release`."""
        self._resting.add(stream)
        self._held.setdefault(stream, deque()).extend(envelopes)

    def release(self, stream: StreamId) -> None:
        """Let a failed actor come back: its messages wake it."""
        self._resting.discard(stream)
        if self._held.get(stream):
            self._want(stream)
        else:
            self._held.pop(stream, None)

    # Passivation

    def passivate(self, shell: Shell) -> bool:
        """Take *shell* out of memory if it is idle and what it appended is durable; return whether it left."""
        if not shell.is_idle or not shell.is_durable or self._active.get(shell.stream) is not shell:
            return False
        del self._active[shell.stream]
        self._left(shell.stream)
        shell.leave()
        return True

    def _sweep_later(self) -> None:
        clock = self._system.clock
        self._sweeper = clock.call_at(clock.moment().now + max(self._idle // 2, SECOND), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        horizon = self._system.clock.moment().now - self._idle
        for shell in [s for s in self._active.values() if s.last_used <= horizon]:
            self.passivate(shell)
        if self._active:
            self._sweep_later()

    # Stop

    async def stop(self) -> None:
        """Handle every message of the actors in memory; refuse those whose actor would have to be loaded."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        if self._sweeper is not None:  # after the loading, which sets it
            self._sweeper.cancel()
        for stream in list(self._held):
            self._settle(stream, ActorStoppedError(stream=stream))
        while any(shell.actor_inbox for shell in self._active.values()):  # noqa: ASYNC110 - a few turns, once in a life
            await asyncio.sleep(0)
        for shell in self._active.values():
            shell.leave()
        self._active.clear()
