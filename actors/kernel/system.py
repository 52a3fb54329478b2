"""The actors of one log: transactions, delivery, supervision, ordered stop.

Everything here runs on one event loop; only `post` may be called from other threads. Invariant: durable before visible.
A reply or an effect waits for the log's tail as it was when it was decided.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.clock import SECOND, Clock
from perdure.actors.kernel.directory import Directory
from perdure.actors.kernel.errors import ActorFailedError, ActorStoppedError, MailboxFullError
from perdure.actors.kernel.logs import logger
from perdure.actors.kernel.messages import Command, Decision, Effect, Moment
from perdure.actors.kernel.ref import Ref
from perdure.actors.kernel.replay import SNAPSHOT_EVERY
from perdure.actors.kernel.shell import TURN, Envelope, Shell
from perdure.actors.kernel.supervision import after_failure
from perdure.store.codec import Codec
from perdure.store.errors import PerdureError, StoreError
from perdure.store.protocols import EventLog, Ticket
from perdure.store.records import Append, Blob, NewEvent, StreamId, Unit

MAILBOX_BOUND = 10_000
"""Messages that may wait for one actor."""

Interpreter = Callable[[Shell, Any], None]
"""Performs one kind of effect; must not block and must not raise what it can report."""

_log = logger("perdure.actors")


class Transaction(msgspec.Struct, frozen=True):
    """What a transaction led to: the replies in the order of the commands, and when they may be shown outside."""

    replies: list[Any]
    ticket: Ticket | None
    """None when everything that the replies rest on is durable already."""
    at: int
    """When it was decided (microseconds)."""


class ActorSystem:
    """Brings the actors of a log to life and carries messages between them."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        clock: Clock,
        behaviors: Sequence[Behavior[Any]],
        interpreters: Mapping[type[Effect], Interpreter],
        *,
        mailbox_bound: int = MAILBOX_BOUND,
        idle_seconds: float = 60.0,
    ) -> None:
        self.log = log
        self.codec = codec
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.directory = Directory(self, behaviors, idle_seconds=idle_seconds)
        self._interpreters = interpreters
        self._mailbox_bound = mailbox_bound
        self._thread = threading.get_ident()
        self._is_open = True
        self.observer: Callable[[Unit, Ticket], None] | None = None
        """Told of each unit right after it was appended, before it is durable; must not raise."""
        self._passing = TURN
        """How many messages may still pass by empty mailboxes in this turn of the loop."""

    def ref(self, stream: StreamId) -> Ref:
        """Return a reference to the actor of *stream*, which need not be in memory."""
        return Ref(self, stream)

    # Transactions

    def transact(
        self,
        moves: Sequence[tuple[Shell, Command]],
        *,
        correlation: str | None = None,
        causation: str | None = None,
        principal: str | None = None,
        is_refusable: bool = True,
    ) -> Transaction:
        """Decide commands of several actors as one unit: all their events are appended, or none.

        Atomic, since nothing is awaited. The actors' states move at once and may run ahead of the disk; effects are
        performed when the unit is durable. *is_refusable* is False for what reports facts (the outcome of a call): the
        log takes them however much waits for the disk.

        Raises:
            PerdureError: an actor refused, or the log did; nothing happened.
        """
        moment = self.clock.moment()
        replies: list[Any] = []
        appends: list[Append] = []
        blobs: list[Blob] = []
        moved: list[tuple[Shell, Any]] = []
        effects: list[tuple[Shell, Effect]] = []
        for shell, command in moves:
            decision = shell.core.behavior.decide(shell.state, command, moment)
            replies.append(decision.reply)
            if decision.events:
                state, append = self._stage(shell, decision, blobs)
                appends.append(append)
                moved.append((shell, state))
            if decision.effects:
                effects.extend((shell, effect) for effect in decision.effects)
        if not appends:
            ticket = self.log.barrier()
        else:
            unit = Unit(tuple(appends), moment.now, correlation, causation, principal, tuple(blobs))
            ticket = self.log.append(unit, is_refusable=is_refusable)
            _swap(moved, appends, moment, ticket)
            if self.observer is not None:
                self.observer(unit, ticket)
            if effects:
                effects = [(shell, effect.placed(self.log.position)) for shell, effect in effects]
        if effects:
            self._perform_when_durable(effects, ticket)
        return Transaction(replies, ticket, moment.now)

    def _stage(self, shell: Shell, decision: Decision[Any], blobs: list[Blob]) -> tuple[Any, Append]:
        core, state = shell.core, shell.state
        behavior, encode = core.behavior, self.codec.encode
        encoded: list[NewEvent] = []
        for event in decision.events:
            new, large = encode(event)
            encoded.append(new)
            if large:
                blobs.extend(large)
            state = behavior.evolve(state, event)
        index = behavior.index(state)
        version, since = shell.version + len(encoded), shell.snapshot_version
        snapshot = None if version - since < SNAPSHOT_EVERY else core.snapshot(state, version, since)
        changed = None if index == shell.index else index
        return state, Append(shell.stream, shell.version, tuple(encoded), changed, snapshot)

    def _perform_when_durable(self, effects: list[tuple[Shell, Effect]], ticket: Ticket | None) -> None:
        for shell, _ in effects:
            shell.pins += 1  # an actor stays until its effects were started

        def settled(ticket: Ticket | None) -> None:
            for shell, effect in effects:
                shell.pins -= 1
                if ticket is None or ticket.error is None:
                    self._perform(shell, effect)

        if ticket is None:
            self.loop.call_soon(settled, None)
        else:
            ticket.on_settled(settled)

    def _perform(self, shell: Shell, effect: Effect) -> None:
        try:
            self._interpreters[type(effect)](shell, effect)
        except Exception as error:  # noqa: BLE001 - a bug in an effect is the actor's failure, not the loop's
            self.fail(shell, error)

    # Delivery

    def post(self, stream: StreamId, envelope: Envelope) -> None:
        """Send a message to the actor of *stream*; from any thread."""
        if threading.get_ident() == self._thread:
            self._deliver(stream, envelope)
            return
        try:
            self.loop.call_soon_threadsafe(self._deliver, stream, envelope)
        except RuntimeError:  # the loop is closed: nobody else can tell the asker
            self.refuse(envelope, ActorStoppedError(stream=stream))

    def _deliver(self, stream: StreamId, envelope: Envelope) -> None:
        # Whether the system is open is decided here, on the loop: a message is either handled or answered.
        if not self._is_open:
            self.refuse(envelope, ActorStoppedError(stream=stream))
            return
        shell = self.directory.active(stream)
        waiting = len(shell.actor_inbox) if shell is not None else self.directory.waiting(stream)
        if waiting >= self._mailbox_bound:
            self.refuse(envelope, MailboxFullError(stream=stream, waiting=waiting))
        elif shell is None:
            self.directory.hold(stream, envelope)
        elif waiting or not self._may_handle_now():
            shell.put(envelope)
        else:
            self.handle(shell, envelope)

    def _may_handle_now(self) -> bool:
        """Return whether a message that finds an empty mailbox may pass it by: two turns of the loop less for an ask.

        At most a turn's worth of messages may until the loop has gone round, so that nobody who asks and asks keeps the
        others from it.
        """
        if not self._passing or self.log.is_congested:
            return False
        if self._passing == TURN:
            self.loop.call_soon(self._let_pass)
        self._passing -= 1
        return True

    def _let_pass(self) -> None:
        self._passing = TURN

    def handle(self, shell: Shell, envelope: Envelope) -> bool:
        """Decide one message of *shell* and answer it; False when the actor failed and must not go on."""
        answer = envelope.reply_to
        try:
            done = self.transact(
                ((shell, envelope.message),), correlation=envelope.correlation, principal=envelope.principal
            )
        except PerdureError as refusal:
            self.refuse(envelope, refusal)
            return True
        except Exception as error:  # noqa: BLE001 - whatever a behavior raises is its failure
            self.refuse(envelope, _failed(shell, error))
            self.fail(shell, error)
            return False
        if answer is not None:
            self.reply(answer, done.replies[0], done.ticket)
        return True

    def reply(self, answer: Answer[Any], reply: Any, ticket: Ticket | None) -> None:
        """Settle *answer* once what it rests on is durable, which *ticket* tells; None: it is."""
        if ticket is None:
            answer.set(reply)
            return
        ticket.on_settled(lambda t: answer.set(reply) if t.error is None else answer.set_error(t.error))

    def refuse(self, envelope: Envelope, error: BaseException) -> None:
        """Tell the asker *error*, once what the refusal may rest on is durable."""
        answer = envelope.reply_to
        if answer is None:
            return
        barrier = self.log.barrier() if threading.get_ident() == self._thread else None
        if barrier is None:
            answer.set_error(error)
        else:
            barrier.on_settled(lambda t: answer.set_error(t.error or error))

    # Supervision

    def fail(self, shell: Shell, error: BaseException) -> None:
        """Throw the actor's state away and bring it back from the log after a while, or park it."""
        reason = f"{type(error).__name__}: {error}"
        now = self.clock.moment().now
        record, delay = after_failure(self.directory.record(shell.stream), reason, now)
        envelopes = self.directory.drop(shell, record)
        _log.error("actor failed", stream=shell.stream, reason=reason, restart_in=delay, exception=account_of(error))
        if delay is None:
            for envelope in envelopes:
                self.refuse(envelope, ActorFailedError(stream=shell.stream, reason=record.reason))
            return
        self.directory.hold_back(shell.stream, envelopes)
        self.clock.call_at(now + int(delay * SECOND), lambda: self.directory.release(shell.stream))

    # Stop

    async def stop(self) -> None:
        """Take no more messages, handle those that wait, make it all durable; every asker is answered.

        Raises:
            LogWriteError: the log failed before; what waited got the same error.
        """
        self._is_open = False
        await self.directory.stop()
        await self.log.flush()

    def refuse_held(self, stream: StreamId, envelopes: Sequence[Envelope]) -> None:
        """Answer messages whose actor will not come back in this life."""
        for envelope in envelopes:
            self.refuse(envelope, ActorStoppedError(stream=stream))


def _swap(moved: list[tuple[Shell, Any]], appends: list[Append], moment: Moment, ticket: Ticket) -> None:
    for (shell, state), append in zip(moved, appends, strict=True):
        shell.state = state
        shell.version += len(append.events)
        shell.last_used = moment.now
        shell.ticket = ticket
        if append.index is not None:
            shell.index = append.index
        if append.snapshot is not None:
            shell.snapshot_version = append.snapshot.version


def _failed(shell: Shell, error: BaseException) -> PerdureError:
    if isinstance(error, StoreError):
        return error
    failure = ActorFailedError(stream=shell.stream, reason=f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
