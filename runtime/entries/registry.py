"""The entry points of a runtime, as the application asks of them: what is there, start, wait, cancel, results.

Not here: how a trigger becomes a run (`triggering.py`). Invariant: what is registered does not change while the runtime
is open.
"""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

import uuid_utils

from perdure.actors.triggers.entry_point import CloseEntry, EntryOpened, OpenEntry, entry_stream
from perdure.actors.triggers.errors import UnknownEntryPointError
from perdure.actors.triggers.kinds import in_words
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.entrance import TriggerKind
from perdure.actors.workflows.queue import Queue
from perdure.actors.workflows.queues import Shared
from perdure.runtime.entries.checking import check_trigger
from perdure.runtime.entries.entry_points import QUEUE_PREFIX, EntryPoint, check_correlation
from perdure.runtime.entries.outcomes import Outcomes
from perdure.runtime.entries.results import ExecutionResult, TriggerOptions
from perdure.runtime.entries.starting_at import Starts
from perdure.runtime.entries.triggering import Asked, Beside, Triggers, fired_id
from perdure.runtime.naming import check_conversation, check_principal, check_priority
from perdure.store.errors import PerdureError, UsageError
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.beginning import Beginnings
    from perdure.runtime.machinery import Machinery


@checked_but("__init__")
class EntryPoints:
    """The entry points of a runtime: `rt.entry_points`."""

    def __init__(
        self, runtime: "Runtime", machinery: "Machinery", beginnings: "Beginnings", entry_points: Iterable[EntryPoint]
    ) -> None:
        self._runtime = runtime
        self._machinery = machinery
        self._known: dict[str, EntryPoint] = {}
        self._starts = Starts(runtime.workflows, runtime.redaction)
        self._triggers = Triggers(runtime, machinery, beginnings, self._starts)
        self._outcomes = Outcomes(runtime, machinery)
        for each in entry_points:
            self.register(each)

    # What there is

    def register(self, entry_point: EntryPoint) -> EntryPoint:
        """Add an entry point, before the runtime opens, and its workflow where that is not registered; return it.

        Raises:
            UsageError: the id is taken, its workflow or its step is not there, what starts it cannot be (a type of
                events, a condition, a route; a schedule that is never due or needs a package that is missing), its
                workflow does not take the `event` that it is started with, or the runtime is open.
        """
        self._check_closed("register")
        if entry_point.id in self._known:
            raise UsageError(f"entry point {entry_point.id!r} is already registered")
        if entry_point.queue in self._machinery.parts.queues:
            raise UsageError(
                f"names of queues that begin with {QUEUE_PREFIX} are for entry points: {entry_point.queue}"
            )
        if isinstance(entry_point.workflow, Workflow):
            self._runtime.workflows.register(entry_point.workflow)
        check_trigger(entry_point, self._starts.check(entry_point))
        self._known[entry_point.id] = entry_point
        return entry_point

    def unregister(self, id: str) -> bool:
        """Take an entry point out, before the runtime opens; return whether it was there.

        Its runs that wait for their turns wait until it is registered again.

        Raises:
            UsageError: the runtime is open.
        """
        self._check_closed("unregister")
        return self._known.pop(id, None) is not None

    def _check_closed(self, verb: str) -> None:
        if self._machinery.is_open:
            raise UsageError(f"the runtime is running: {verb} entry points before it is opened")

    def get(self, id: str) -> EntryPoint | None:
        """Return an entry point, or None."""
        return self._known.get(id)

    def list(self) -> tuple[EntryPoint, ...]:
        """Return all of them, in the order of registration."""
        return tuple(self._known.values())

    def queues(self) -> tuple[Queue, ...]:
        """Return the queues in which their runs wait."""
        return tuple(Queue(each.queue, each.max_concurrent) for each in self._known.values())

    def shared(self) -> Shared | None:
        """Return how many runs of all of them may be at work."""
        if not self._known:
            return None
        places = self._machinery.parts.settings.max_concurrent_executions
        return Shared(places, frozenset(each.queue for each in self._known.values()))

    # Starting

    async def trigger(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        correlation_id: str | None = None,
        id: str | None = None,
        conversation: str | None = None,
        priority: int | None = None,
        who: str | None = None,
    ) -> str:
        """Start a run by an entry point and return its id, as soon as that is durable: before its code runs.

        Args:
            entry: the entry point's id.
            data: the workflow's input: its arguments by name, or of a definition the data.
            correlation_id: what the run is tied to; its own id when left out.
            id: the run's own; triggering it again is the same run, with other data an error. A UUIDv7 when left out.
            conversation: as of `Runtime.with_options`.
            priority: among those that wait; the entry point's own when left out.
            who: who asks, as the log is to name them.

        Raises:
            UsageError: the runtime is not running, there is no such entry point, or something cannot be called that.
            RunConflictError: the id belongs to another run.
            InvalidArgumentsError, UnencodableError, PayloadTooLargeError: the data do not fit; nothing was recorded.
            LogWriteError, BacklogFullError: the log refused.
        """
        found = self._running(entry)
        check_correlation(correlation_id)
        check_conversation(conversation)
        check_principal(who)
        check_priority(priority)
        asked = Asked(
            run=str(uuid_utils.uuid7()) if id is None else checked_run_id(id),
            data=data or {},
            kind="manual" if found.wired.kind == "manual" else "api",
            is_once=False,
            correlation=correlation_id,
            conversation=conversation,
            priority=priority,
            who=who,
        )
        return await self._triggers.start(found, asked)

    async def trigger_and_wait(
        self,
        entry: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout: timedelta | float | None = None,
        **options: Unpack[TriggerOptions],
    ) -> ExecutionResult | None:
        """Start a run and wait until it ends or pauses itself; None when *timeout* (seconds) is over first.

        With an *id* of the caller's the run can be asked for then: `wait`, `result`, `cancel`, `Runtime.run`.

        Raises:
            As `trigger` and `wait`.
        """
        return await self.wait(entry, await self.trigger(entry, data, **options), timeout=timeout)

    async def fire(  # noqa: PLR0913 - what a trigger may say, all by keyword
        self,
        entry: str,
        data: Mapping[str, Any],
        *,
        kind: TriggerKind,
        key: str,
        correlation: str | None = None,
        depth: int = 0,
        cause: int | None = None,
        conversation: str | None = None,
        who: str | None = None,
        beside: Beside | None = None,
    ) -> str:
        """Start the run that a trigger stands for, once by its key, and return its id; durable on return.

        A second call with the same key is the same run and changes nothing, whatever its data. With *beside*, another
        actor takes note of the run in the same unit; what it refuses is not started.

        Raises:
            TriggerRefusedError: *depth* runs led to it, more than `Settings.max_trigger_depth`; that is recorded.
            As `trigger`.
        """
        found = self._running(entry)
        asked = Asked(
            run=fired_id(entry, key),
            data=data,
            kind=kind,
            is_once=True,
            correlation=correlation,
            depth=depth,
            cause=cause,
            conversation=conversation,
            who=who,
            beside=beside,
        )
        return await self._triggers.start(found, asked)

    def _running(self, entry: str) -> EntryPoint:
        """Return an entry point that can be triggered.

        Raises:
            UsageError: the runtime is not running, or there is none of that id.
        """
        if not self._machinery.is_open:
            raise UsageError("the runtime is not running: open it first, `async with Runtime(…) as rt:`")
        self._machinery.check_open()
        found = self._known.get(entry)
        if found is None:
            raise UnknownEntryPointError(detail="", entry=entry, known=", ".join(sorted(self._known)) or "none")
        return found

    # What becomes of it

    async def cancel(self, entry: str, run: str, reason: str = "cancelled by the application") -> bool:
        """Ask for a run of an entry point to be cancelled; False if it is none of its runs, or has ended.

        The request is durable when this returns. One that waits for its turn has ended by then.

        Raises:
            UsageError: the runtime is not open.
        """
        return await self._outcomes.cancel(entry, run, reason)

    async def wait(self, entry: str, run: str, *, timeout: timedelta | float | None = None) -> ExecutionResult | None:
        """Wait for a run of an entry point to end, or to pause itself; None when *timeout* (seconds) is over first.

        0 waits for nothing: it says how a run ended that has ended. The time is that of the runtime's clock.

        Raises:
            UnknownRunError: it is no run of the entry point.
            UsageError: the runtime is not open, or was closed meanwhile; the timeout is less than 0.
        """
        return await self._outcomes.wait(entry, run, timeout)

    async def result(self, entry: str, run: str) -> ExecutionResult | None:
        """Return how a run of an entry point ended; None if it has not, is none of its runs, or its result is gone.

        Of each entry point the newest results are kept, so many and so long as the settings say; what is gone here is
        still in the log: `Runtime.run(id).status()`.

        Raises:
            UsageError: the runtime is not open.
        """
        return await self._outcomes.result(entry, run)

    async def statistics(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each entry point by its id; those of runs are folds of the log.

        The keys: `stream_id`, `entry_point` (its name), `running`, `total_executions` (ever), `active_executions`
        (those that have not ended), `completed_executions` (results that are kept), `status_counts` (`pending`,
        `running`, `waiting`, `paused`, which are the active ones, `completed`, `failed`, `cancelled`),
        `refused_triggers`, `max_concurrent`, `available_slots`.

        Raises:
            UsageError: the runtime is not open.
        """
        return await self._outcomes.figures(tuple(self._known.values()))

    # As long as the runtime is open

    async def open(self) -> None:
        """Record which entry points there are."""
        system = self._machinery.system
        asked = [system.ref(entry_stream(each.id)).ask(OpenEntry(_declared(each))) for each in self._known.values()]
        for answer in asked:  # all of them are on their way: one commit for many
            await answer

    async def close(self) -> None:
        """Record that they close. Idempotent."""
        with contextlib.suppress(PerdureError):  # a log that fails at the end is told to who closes it
            system = self._machinery.system
            for answer in [system.ref(entry_stream(each)).ask(CloseEntry()) for each in self._known]:
                await answer

    async def abandon(self) -> None:
        """Do nothing: as after a crash."""

    def log_failed(self) -> None:
        """Do nothing: there is nothing to take down."""


def _declared(one: EntryPoint) -> EntryOpened:
    return EntryOpened(
        name=one.name,
        workflow=one.workflow_name,
        trigger=one.wired.kind,
        when=in_words(one.wired),
        isolation=one.isolation,
        max_concurrent=one.max_concurrent,
        priority=one.priority,
        node=one.node,
        description=one.description,
    )
