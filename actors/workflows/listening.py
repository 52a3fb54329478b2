"""The code's side of events: publishing one as a step, and waiting for one, from the recording or live to its end.

Not here: how an event comes to a run (`triggers/exchange.py`). Invariant: an event is taken only by a wait that passed
over everything before it, so a run gets events in their order and misses none, in memory or not.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from perdure.actors.kernel.spans import check_limit
from perdure.actors.triggers.exchange import LiveWait
from perdure.actors.triggers.topic import Publish, check_type, topic_of
from perdure.actors.triggers.typed import MISFIT, Topic, check_data, name_of
from perdure.actors.triggers.wanted import Occurrence, On, PublishedEvent, Wanted
from perdure.actors.workflows.branch import Branch
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.occurrences import (
    EventAwaited,
    EventExpired,
    EventSent,
    EventTaken,
    EventWaitWithdrawn,
    taken_json,
)
from perdure.actors.workflows.reaching import interrupted, reach
from perdure.actors.workflows.subscriptions import EVENT, OpenWait
from perdure.store.errors import LogClosedError, LogWriteError, UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver

After: TypeAlias = Literal["start", "now"]
"""Whether a wait looks back to the start of the run, or only at what is published from now on."""

MAX_READER: Final = 128
"""Of the name of a reader."""

_MICROSECOND: Final = timedelta(microseconds=1)
_read_taken = msgspec.json.Decoder(PublishedEvent).decode


async def publish_event(driver: "Driver", branch: Branch, key: str, what: str | Topic[Any], data: object) -> None:
    """Publish an event once and for all. See `Context.publish`."""
    type = check_type(name_of(what))
    encoded = driver.engine.encode(data, f"the event {type}")
    check_data(what, encoded)
    made_of = digest(type, encoded)
    if branch.take(key, "publication", type, made_of) is not None:
        return
    await driver.keep_pace()
    topic = await reach(driver, branch, topic_of(type))
    came = driver.shell.state.entrance
    raw, run = msgspec.Raw(encoded), driver.run_id
    if came is None:
        publish = Publish(raw, None, run, node=key)
    else:
        publish = Publish(raw, None, run, came.entry, key, came.correlation, came.depth)
    driver.note(EventSent(key, branch.path, type, made_of), (topic, publish))


class EventWait(msgspec.Struct, frozen=True, eq=False):
    """What the code asks for."""

    wanted: Wanted
    timeout: timedelta | None
    after: After
    reader: str

    @classmethod
    def of(cls, wanted: Sequence[str | On], timeout: timedelta | None, after: After, reader: str) -> "EventWait":
        """Return what the code asks for, checked.

        Raises:
            UsageError: it cannot be waited for.
        """
        check_limit(timeout, "timeout")
        if after not in ("start", "now"):
            raise UsageError(f"after is 'start' (of the run) or 'now', not {after!r}")
        if len(reader) > MAX_READER or not reader.isprintable():
            raise UsageError(f"a reader's name is at most {MAX_READER} printable characters, not {reader!r}")
        return cls(Wanted.of(wanted), timeout, after, reader)

    @property
    def digest(self) -> str:
        """What tells it from other waits; those that are the same share their place in the events."""
        return digest(f"{self.after}:{self.reader}", self.wanted.encoded)


async def take_event(driver: "Driver", branch: Branch, key: str, wait: EventWait) -> PublishedEvent:
    """Return the next event that is wanted. See `Context.event`."""
    names = wait.wanted.names
    record = branch.take(key, "event", names, wait.digest)
    if record is None:
        await driver.keep_pace()
        _note_awaited(driver, branch, key, wait)
    elif record.progress == "completed":
        return _read_taken(record.result)
    elif record.progress == "failed":
        raise _missing(key, names)
    elif record.progress == "cancelled":
        raise branch.cut()
    elif branch.is_cut:
        driver.note(EventWaitWithdrawn(key, driver.shell.state.events.waits[key].after))
        raise branch.cut()
    until = record.until if record is not None else _until(driver, wait.timeout)
    return await _Listener(driver, branch, key, wait.wanted, until).next()


def _note_awaited(driver: "Driver", branch: Branch, key: str, wait: EventWait) -> None:
    held, position = driver.shell.state.events, driver.engine.system.log.position
    after = position if wait.after == "now" else held.place(wait.digest, driver.recording.began_at)
    until = _until(driver, wait.timeout)
    raw = msgspec.Raw(wait.wanted.encoded)
    driver.note(EventAwaited(key, branch.path, wait.wanted.names, raw, wait.reader, wait.digest, after, until))


def _until(driver: "Driver", timeout: timedelta | None) -> int | None:
    return None if timeout is None else driver.engine.clock.moment().now + timeout // _MICROSECOND


def _missing(key: str, names: str) -> StepFailedError:
    return StepFailedError(step=key, error_type="TimeoutError", error=f"no event {names} came in time", retryable=False)


def typed_event(event: PublishedEvent, topic: str | Topic[Any]) -> PublishedEvent:
    """Return an event as the code asked for it.

    Raises:
        StepFailedError: it asked for data of a type, and somebody published others under the name.
    """
    if not isinstance(topic, Topic):
        return event
    try:
        return topic.read(event)
    except msgspec.ValidationError as error:
        text = f"event {event.id} of {topic.name} is at position {event.position} and is not {topic.of!r}: {error}"
        raise StepFailedError(step=topic.name, error_type=MISFIT, error=text, retryable=False) from error


class _Listener:
    """A wait at the live edge: it looks back until it has caught up, then it is told."""

    def __init__(self, driver: "Driver", branch: Branch, key: str, wanted: Wanted, until: int | None) -> None:
        self._driver = driver
        self._branch = branch
        self._key = key
        self._wanted = wanted
        self._until = until
        self._seen = self._wait.after

    @property
    def _wait(self) -> OpenWait:
        wait: OpenWait = self._driver.shell.state.events.waits[self._key]
        return wait

    async def next(self) -> PublishedEvent:
        while True:
            event = await self._look_back()
            if event is None and self._is_over():
                self._driver.note(EventExpired(self._key, self._seen))
                raise _missing(self._key, self._wanted.names)
            event = event or await self._be_told()
            if event is not None and (taken := self._take(event)) is not None:
                return taken

    async def _look_back(self) -> Occurrence | None:
        """Return the first event that fits among those of which listeners were told before."""
        exchange = self._driver.engine.exchange
        while exchange.is_behind(self._wanted.types, self._seen):
            end = exchange.begun
            try:
                event = await exchange.first(self._wanted, self._seen, end, self._until)
            except asyncio.CancelledError:
                self._withdraw()
                raise
            except (LogWriteError, LogClosedError) as error:
                self._driver.log_failed(error)
            if self._driver.ending is not None:
                self._driver.events_seen[self._key] = self._seen
                raise Parked
            if event is not None:
                return event
            self._seen = max(end, self._seen)
        return None

    async def _be_told(self) -> Occurrence | None:
        """Return the first event that fits of those that come, or None when the time is over."""
        driver, exchange = self._driver, self._driver.engine.exchange
        live = LiveWait(driver.run_id, self._key, self._wanted, self._seen, self._until)
        live.wake = lambda: driver.wake(self._key)
        exchange.listen(live)
        try:
            await driver.wait(self._branch, self._until, self._key, EVENT)
        except Parked:
            driver.events_seen[self._key] = live.seen
            raise
        except asyncio.CancelledError:
            self._seen = live.seen
            self._withdraw()
            raise
        finally:
            exchange.unlisten(live)
        self._seen = live.seen
        return live.found

    def _take(self, event: Occurrence) -> PublishedEvent | None:
        driver = self._driver
        self._seen = event.position
        if event.position <= driver.shell.state.events.cursors.get(self._wait.cursor, 0):
            return None  # another wait for the same events was first
        fact = EventTaken(self._key, event.type, event.id, event.position, event.at, event.data, event.run)
        driver.note(fact)
        return _read_taken(taken_json(fact))

    def _is_over(self) -> bool:
        return self._until is not None and self._until <= self._driver.engine.clock.moment().now

    def _withdraw(self) -> None:
        driver = self._driver
        if driver.engine.is_loop_ending:
            return
        interrupted(driver, self._branch)
        driver.note(EventWaitWithdrawn(self._key, self._seen))
