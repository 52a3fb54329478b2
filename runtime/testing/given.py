"""given / when / then for the pure core of an actor: decide and evolve, without a runtime, a loop or a log.

The invariant: every event that passes through here was encoded and decoded, so a test sees what the log would give.
"""

import difflib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from perdure.actors.kernel.behavior import Behavior
from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.store.codec import Codec, blob_hashes
from perdure.store.errors import PerdureError
from perdure.store.records import Recorded, StreamId

S = TypeVar("S")
E = TypeVar("E", bound=PerdureError)

_ANYTHING: Final = object()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def given(behavior: Behavior[S], events: Iterable[Event] = (), *, stream: str | None = None) -> "Given[S]":
    """Begin with an actor to which *events* have happened.

    Args:
        behavior: its rules.
        events: what happened, oldest first.
        stream: its name, `kind/test` when left out.
    """
    name = StreamId(stream or f"{behavior.kind}/test")
    state = behavior.initial(name)
    return Given(behavior, name, _evolved(behavior, state, events), _moment(_BEGIN, None))


class Given(Generic[S]):
    """An actor in a state; `when` sends it a command."""

    def __init__(self, behavior: Behavior[S], stream: StreamId, state: S, moment: Moment) -> None:
        self._behavior = behavior
        self._stream = stream
        self._moment = moment
        self.state = state
        """The fold of what has happened."""

    @property
    def index(self) -> Index:
        """What the index of open work says of the actor."""
        return self._behavior.index(self.state)

    def at(self, now: datetime, steady: timedelta | None = None) -> "Given[S]":
        """Return the same at another time; *steady*, since 1970, is the same time when left out."""
        return Given(self._behavior, self._stream, self.state, _moment(now, steady))

    def after(self, duration: timedelta) -> "Given[S]":
        """Return the same a while later."""
        micros = duration // timedelta(microseconds=1)
        moment = Moment(self._moment.now + micros, self._moment.steady + micros)
        return Given(self._behavior, self._stream, self.state, moment)

    def when(self, command: Command) -> "Then[S]":
        """Let the actor decide *command*; what comes of it is checked with `then` or `then_refused`."""
        try:
            decision = self._behavior.decide(self.state, command, self._moment)
        except PerdureError as refusal:
            return Then(self._behavior, self, command, None, refusal)
        return Then(self._behavior, self, command, decision, None)

    def evolved(self, events: Iterable[Event]) -> "Given[S]":
        """Return the actor after *events*."""
        return Given(self._behavior, self._stream, _evolved(self._behavior, self.state, events), self._moment)


class Then(Generic[S]):
    """What a command led to."""

    def __init__(
        self,
        behavior: Behavior[S],
        before: Given[S],
        command: Command,
        decision: Decision[Any] | None,
        refusal: PerdureError | None,
    ) -> None:
        self._behavior = behavior
        self._before = before
        self._command = command
        self._decision = decision
        self._refusal = refusal

    def then(
        self, events: Sequence[Event], *, reply: object = _ANYTHING, effects: Sequence[Effect] | None = None
    ) -> Given[S]:
        """Check that the command led to exactly *events*; return the actor after them, for the next `when`.

        Args:
            events: all of them, in order; empty when nothing is to happen.
            reply: what the asker gets; not looked at when left out.
            effects: what is to be done outside the log; not looked at when left out.

        Raises:
            AssertionError: it led to something else; shows both, line by line.
        """
        decision = self._decision
        if decision is None:
            raise AssertionError(f"{self._command!r} was refused: {_named(self._refusal)}") from self._refusal
        self._compare("events", events, decision.events)
        if reply is not _ANYTHING:
            self._compare("reply", [reply], [decision.reply])
        if effects is not None:
            self._compare("effects", effects, decision.effects)
        return self._before.evolved(decision.events)

    def then_refused(self, error_type: type[E]) -> E:
        """Check that the command was refused with *error_type*, and nothing happened; return the error.

        Raises:
            AssertionError: it was not refused, or with another error.
        """
        if self._refusal is None:
            assert self._decision is not None  # noqa: S101 - either of them is there
            happened = "\n  ".join(repr(event) for event in self._decision.events) or "no event"
            raise AssertionError(f"{self._command!r} was not refused, it led to:\n  {happened}")
        if not isinstance(self._refusal, error_type):
            text = f"{self._command!r} was refused with {_named(self._refusal)}, not with {error_type.__name__}"
            raise AssertionError(text) from self._refusal  # noqa: TRY004 - it is what a test fails with
        return self._refusal

    def _compare(self, what: str, expected: Sequence[object], actual: Sequence[object]) -> None:
        if list(expected) == list(actual):
            return
        before, after = ([repr(item) for item in items] for items in (expected, actual))
        lines = difflib.ndiff(before, after)
        shown = "\n".join(f"  {line.rstrip()}" for line in lines)
        raise AssertionError(f"{self._command!r} led to other {what} (- expected, + actual):\n{shown}")


def _evolved(behavior: Behavior[S], state: S, events: Iterable[Event]) -> S:
    codec = Codec(behavior.events)
    for event in events:
        state = behavior.evolve(state, _through_the_log(codec, event))
    return state


def _through_the_log(codec: Codec, event: Event) -> Event:
    new, blobs = codec.encode(event)
    recorded = Recorded(
        1, StreamId("a/test"), 1, new.type, new.type_version, 0, new.data.decode(),
        None if new.blobs is None else new.blobs.decode(),
    )  # fmt: skip
    contents = {blob.sha256: blob.data for blob in blobs}
    return codec.decode(recorded, {sha256: contents[sha256] for sha256 in blob_hashes([recorded])})


def _moment(now: datetime, steady: timedelta | None) -> Moment:
    micros = (now - _EPOCH) // timedelta(microseconds=1)
    return Moment(micros, micros if steady is None else steady // timedelta(microseconds=1))


def _named(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"
