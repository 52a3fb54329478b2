"""What becomes of the runs of entry points: waiting for an end, cancelling, results and how long they are kept.

All of it is read from the log. Invariant: of each entry point the newest ends are kept, and what is kept is the same
after a restart.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from perdure.actors.kernel.clock import SECOND, moment_of
from perdure.actors.triggers.entry_point import EntryPointState, GetEntryPoint, entry_stream
from perdure.actors.workflows.commands import CancelRun, GetRun
from perdure.actors.workflows.errors import UnknownRunError
from perdure.actors.workflows.lines import QueueStatistics
from perdure.actors.workflows.state import RunView
from perdure.runtime.entries.entry_points import EntryPoint
from perdure.runtime.entries.results import ExecutionResult
from perdure.runtime.entries.standing import PausedRuns, standing
from perdure.store.errors import UsageError
from perdure.store.records import Query, StreamId

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery

T = TypeVar("T")

_ENDS: Final = ("run-completed", "run-failed", "run-cancelled")
_OVER: Final = frozenset({"completed", "failed", "cancelled", "blocked"})


class Outcomes:
    """Reads what the log has of the runs of entry points."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery") -> None:
        self._runtime = runtime
        self._machinery = machinery
        self._paused = PausedRuns(machinery)

    async def cancel(self, entry: str, run: str, reason: str) -> bool:
        """Ask for a run to be cancelled. See `EntryPoints.cancel`."""
        if await self._first(entry, run) is None:
            return False
        is_open: bool = await self._runtime.ask(StreamId(f"run/{run}"), CancelRun(reason))
        return is_open

    async def wait(self, entry: str, run: str, timeout: timedelta | float | None) -> ExecutionResult | None:
        """Wait for the end of a run. See `EntryPoints.wait`."""
        first = await self._first(entry, run)
        if first is None:
            raise UnknownRunError(run=run)
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if seconds is not None and not seconds >= 0:
            raise UsageError(f"a timeout is 0 seconds or more, not {timeout!r}")
        if seconds == 0:
            view = await self._last(first)
            return await self._told(entry, run, view) if view.status in _OVER or _rests(view) else None
        ended = await self._within(self._ended_or_paused(first), seconds)
        return None if ended is None else await self._told(entry, run, ended)

    async def result(self, entry: str, run: str) -> ExecutionResult | None:
        """Return how a run ended. See `EntryPoints.result`."""
        first = await self._first(entry, run)
        if first is None:
            return None
        view = await self._last(first)
        is_there = view.is_closed and await self._is_kept(entry, view)
        return await self._told(entry, run, view) if is_there else None

    async def figures(self, entries: Collection[EntryPoint]) -> dict[str, dict[str, Any]]:
        """Return the figures of entry points. See `EntryPoints.statistics`."""
        states = {each.id: await self._state(each.id) for each in entries}
        paused = await self._paused.count() if any(state.open for state in states.values()) else Counter[str]()
        queues = self._machinery.engine.queues.statistics()
        return {each.id: self._figures(each, states[each.id], queues[each.queue], paused[each.id]) for each in entries}

    def _figures(
        self, entry: EntryPoint, state: EntryPointState, queue: QueueStatistics, paused: int
    ) -> dict[str, Any]:
        return {
            "stream_id": entry.id,
            "entry_point": entry.name,
            "running": self._machinery.is_open,
            "total_executions": state.triggered,
            "active_executions": state.open,
            "completed_executions": min(state.ended, self._machinery.parts.settings.execution_result_max),
            "status_counts": {
                **msgspec.structs.asdict(standing(state.open, queue, paused)),
                "completed": state.completed,
                "failed": state.failed,
                "cancelled": state.cancelled,
            },
            "refused_triggers": state.refused,
            "max_concurrent": entry.max_concurrent,
            "available_slots": max(0, entry.max_concurrent - queue.working),
        }

    async def _ended_or_paused(self, view: RunView) -> RunView:
        """Return how a run, which stood as *view* says, stands once it is over or has paused itself."""
        ended = asyncio.ensure_future(self._runtime.ended(view.run))
        try:
            while True:
                paused = self._machinery.engine.waiters.pause_of((await self._last(view)).run)
                view = await self._last(await self._view(view.run))  # it may have come there since
                if _rests(view):
                    return view
                told = asyncio.ensure_future(paused)
                try:
                    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told.cancel()
                if ended.done():
                    return ended.result()
        finally:
            ended.cancel()

    # Reading

    async def _first(self, entry: str, run: str) -> RunView | None:
        """Return how a run stands; None where there is no such run of the entry point."""
        try:
            view = await self._view(run)
        except UnknownRunError:
            return None
        is_its = view.entrance is not None and view.entrance.entry == entry and view.parent is None
        return view if is_its else None

    async def _view(self, run: str) -> RunView:
        view: RunView = await self._runtime.ask(StreamId(f"run/{run}"), GetRun())
        return view

    async def _last(self, view: RunView) -> RunView:
        while view.continued_as is not None:
            view = await self._view(view.continued_as)
        return view

    async def _state(self, entry: str) -> EntryPointState:
        state: EntryPointState = await self._machinery.system.ref(entry_stream(entry)).ask(GetEntryPoint())
        return state

    async def _is_kept(self, entry: str, view: RunView) -> bool:
        told, settings = view.entry_told, self._machinery.parts.settings
        if told is None:
            return True  # it has ended this moment, and its entry point is about to be told
        ttl = settings.execution_result_ttl_seconds
        if ttl is not None and self._machinery.parts.clock.moment().now - told.at > ttl * SECOND:
            return False
        return (await self._state(entry)).ends - told.number < settings.execution_result_max

    async def _told(self, entry: str, run: str, view: RunView) -> ExecutionResult:
        begun = await self._runtime.read(Query(stream=StreamId(f"run/{run}"), limit=1))
        told, correlation = view.entry_told, view.entrance and view.entrance.correlation
        return ExecutionResult(
            run=run,
            entry=entry,
            status=view.status,
            output=msgspec.json.decode(view.result) if view.status == "completed" or _rests(view) else None,
            paused_at=view.paused_at if _rests(view) else None,
            error_type=view.error_type,
            error=view.error,
            correlation=correlation or run,
            started_at=moment_of(begun[0].at) if begun else None,
            ended_at=moment_of(told.at) if told is not None else await self._ended_at(view),
        )

    async def _ended_at(self, view: RunView) -> datetime | None:
        """Return when a run ended of whose end its entry point has not been told yet."""
        ends = await self._runtime.read(
            Query(stream=StreamId(f"run/{view.run}"), types=_ENDS, newest_first=True, limit=1)
        )
        return moment_of(ends[0].at) if view.is_closed and ends else None

    # Time

    async def _within(self, work: Awaitable[T], seconds: float | None) -> T | None:
        """Return what *work* comes to; None when it takes longer on the runtime's clock."""
        task = asyncio.ensure_future(work)
        over: asyncio.Future[None] = task.get_loop().create_future()
        clock = self._machinery.parts.clock
        timer = None
        if seconds is not None:
            timer = clock.call_after(int(seconds * SECOND), lambda: None if over.done() else over.set_result(None))
        either: set[asyncio.Future[Any]] = {task, over}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            over.cancel()
            if timer is not None:
                timer.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})


def _rests(view: RunView) -> bool:
    """Return whether a run has paused itself, and nothing else of it goes on."""
    return view.status == "paused" and view.paused_at is not None
