"""What runs in the slots of a sandbox server, and for whom. Knows no HTTP.

A slot does one thing after another in the order in which it was asked. Invariants: a holder whose lease is over moves
nothing; once a slot has changed hands nothing that was asked before still begins; an id that was cancelled never does.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final
from uuid import uuid4

import msgspec

from perdure.actors.slots.errors import SlotError, StaleLeaseError
from perdure.runtime.sandbox.backend import Backend, Execution, ExecutionResult, Unfinished
from perdure.runtime.serving.payloads import OutcomeReply, Refusal, SandboxReply, SandboxRequest

MAX_JOBS: Final = 10_000
"""Executions that may wait for one slot."""

KEPT_IDS: Final = 1_000
"""Executions of those who name no lease: as long as one is kept, its id is not executed again."""

CANCELLED_IDS: Final = 10_000
"""Ids that were cancelled before they came."""

Emit = Callable[[int, SandboxReply], None]
"""Takes a result, with the place of its execution in the request."""

_MISSING: Final = ExecutionResult(execution_id="", success=False, error="Missing result in batch response")
_CANCELLED: Final = ExecutionResult(
    execution_id="", success=False, error="cancelled", metadata={"cancelled": True, "was_begun": False}
)
_ENDED: Final = ExecutionResult(
    execution_id="", success=False, error="cancelled: it was ended", metadata={"cancelled": True, "was_begun": True}
)


class _Job:
    """One execution on its way."""

    def __init__(self, place: int, request: SandboxRequest) -> None:
        self.place = place
        self.has_lease = request.lease is not None
        self.is_anonymous = request.execution_id is None
        self.is_sent = False
        self.ended: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()
        self.execution = Execution(
            slot=request.slot_id,
            lease=request.lease or 0,
            execution_id=request.execution_id or str(uuid4()),
            tool=request.tool,
            arguments=request.args,
            timeout_seconds=request.timeout,
        )

    @property
    def id(self) -> str:
        return self.execution.execution_id


class _Slot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = asyncio.Lock()  # first come, first served
        self.lease = 0
        self.is_ready = False
        """Whether it was made ready for those who name no lease."""
        self.jobs: dict[str, _Job] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.current: str | None = None
        self.cancelled: OrderedDict[str, None] = OrderedDict()
        self.kept: deque[str] = deque()


class SlotJobs:
    """The slots of a backend, as a server has them."""

    def __init__(self, backend: Backend, slots: int) -> None:
        self._backend = backend
        self._slots = {name: _Slot(name) for name in map(backend.slot_name, range(slots))}

    @property
    def names(self) -> list[str]:
        """The slots, in their order."""
        return list(self._slots)

    def __contains__(self, slot: str) -> bool:
        return slot in self._slots

    def current(self, slot: str) -> str | None:
        """Return the execution that runs in a slot."""
        return self._slots[slot].current

    async def close(self) -> None:
        """End everything that runs and waits."""
        for slot in self._slots.values():
            await _drop(slot)

    # Executions

    async def run(self, requests: Sequence[SandboxRequest], emit: Emit) -> None:
        """Perform executions: those of one slot one after another, those of different slots at once.

        Each result is emitted as soon as it is there. Cancelled, what has not ended is ended.
        """
        groups: dict[str, list[_Job]] = {}
        tasks: list[asyncio.Task[None]] = []
        for place, request in enumerate(requests):
            slot = self._slots.get(request.slot_id)
            if slot is None or len(slot.jobs) >= MAX_JOBS:
                text = f"Unknown slot: {request.slot_id}" if slot is None else f"{MAX_JOBS} executions wait already"
                emit(place, SandboxReply(success=False, error=text, execution_id=request.execution_id))
                continue
            job = _Job(place, request)
            known = slot.jobs.setdefault(job.id, job)
            if known is job:
                groups.setdefault(slot.name, []).append(job)
            else:  # asked for again while it runs
                tasks.append(asyncio.create_task(_follow(known, place, emit)))
        for name, jobs in groups.items():
            tasks.append(task := asyncio.create_task(self._run_group(self._slots[name], jobs, emit)))
            self._slots[name].tasks.add(task)
            task.add_done_callback(self._slots[name].tasks.discard)
        try:
            await _all(tasks)
        finally:
            for name, jobs in groups.items():  # of a task that was cancelled before it began
                self._end_all(self._slots[name], jobs, _CANCELLED, emit)

    async def _run_group(self, slot: _Slot, jobs: list[_Job], emit: Emit) -> None:
        otherwise = _CANCELLED
        try:
            async with slot.turn:
                otherwise = _ENDED
                await self._perform(slot, jobs, emit)
            otherwise = _MISSING
        except Exception as error:  # noqa: BLE001 - told in every result that is missing
            otherwise = _refused(error)
        finally:
            if slot.current in {job.id for job in jobs}:
                slot.current = None
            self._end_all(slot, jobs, otherwise, emit)

    async def _perform(self, slot: _Slot, jobs: list[_Job], emit: Emit) -> None:
        for job in jobs:
            if job.id in slot.cancelled:
                self._end(slot, job, _CANCELLED, emit)
        live = {job.id: job for job in jobs if not job.ended.done()}
        if not live:
            return
        await self._make_ready(slot, live.values())
        for job in live.values():
            job.is_sent = True
        slot.current = next(iter(live))
        results = self._backend.execute_batch([job.execution for job in live.values()])
        try:
            async for result in results:
                if (ended := live.pop(result.execution_id, None)) is not None:
                    self._end(slot, ended, result, emit)
                    slot.current = next(iter(live), None)
        finally:
            if (close := getattr(results, "aclose", None)) is not None:
                await close()
        await self._forget_some(slot, jobs)

    async def _make_ready(self, slot: _Slot, jobs: Iterable[_Job]) -> None:
        """Make the slot ready for those who name no lease, who have nobody else to do it."""
        slot.lease = max(slot.lease, *(job.execution.lease for job in jobs), 0)
        if not slot.is_ready and not all(job.has_lease for job in jobs):
            await self._backend.acquire(slot.name, 0)
            slot.is_ready = True

    def _end_all(self, slot: _Slot, jobs: Iterable[_Job], result: ExecutionResult, emit: Emit) -> None:
        for job in jobs:
            if not job.ended.done():
                self._end(slot, job, _CANCELLED if result is _ENDED and not job.is_sent else result, emit)

    def _end(self, slot: _Slot, job: _Job, result: ExecutionResult, emit: Emit) -> None:
        result = msgspec.structs.replace(result, execution_id=job.id)
        slot.jobs.pop(job.id, None)
        job.ended.set_result(result)
        emit(job.place, as_reply(result))

    async def _forget_some(self, slot: _Slot, jobs: Iterable[_Job]) -> None:
        """Drop what nobody else would: outcomes of those who name no lease, and so never forget any."""
        gone = [job.id for job in jobs if job.is_anonymous]
        slot.kept.extend(job.id for job in jobs if not job.is_anonymous and not job.has_lease)
        while len(slot.kept) > KEPT_IDS:
            gone.append(slot.kept.popleft())
        if gone:
            await self._backend.forget(slot.name, gone)

    async def cancel(self, name: str, execution_id: str) -> None:
        """End an execution, begun or not; one that never came will not be made when it comes."""
        slot = self._slots[name]
        job = slot.jobs.get(execution_id)
        if job is not None and job.is_sent:
            await self._backend.cancel(name, execution_id)
            return
        slot.cancelled[execution_id] = None
        while len(slot.cancelled) > CANCELLED_IDS:
            slot.cancelled.popitem(last=False)

    async def outcome(self, name: str, execution_id: str, wait_seconds: float) -> OutcomeReply:
        """Return what became of an execution; one that runs is waited for."""
        slot = self._slots[name]
        job = slot.jobs.get(execution_id)
        if job is not None:
            await asyncio.wait((job.ended,), timeout=wait_seconds)
            if not job.ended.done():
                return OutcomeReply(state="running")
            return OutcomeReply(state="ended", result=as_reply(job.ended.result()))
        found = await self._backend.outcome(name, execution_id)
        match found:
            case ExecutionResult():
                return OutcomeReply(state="ended", result=as_reply(found))
            case Unfinished(reason=reason):
                return OutcomeReply(state="unfinished", reason=reason)
            case None if execution_id in slot.cancelled:
                never = msgspec.structs.replace(_CANCELLED, execution_id=execution_id)
                return OutcomeReply(state="ended", result=as_reply(never))
            case None:
                return OutcomeReply(state="unknown")

    async def forget(self, name: str, execution_ids: Sequence[str]) -> None:
        """Drop what is kept of executions."""
        for execution_id in execution_ids:
            self._slots[name].cancelled.pop(execution_id, None)
        await self._backend.forget(name, execution_ids)

    # Holders

    async def acquire(self, name: str, lease: int) -> None:
        """Make a slot ready for a holder; what was asked with an older lease is ended.

        Raises:
            StaleLeaseError: a newer one was seen.
        """
        if lease != self._slots[name].lease:
            await self.hand_over(name, lease, self._backend.acquire)
        else:
            await self._backend.acquire(name, lease)

    async def hand_over(self, name: str, lease: int, move: Callable[[str, int], Awaitable[None]]) -> None:
        """End everything that was asked of a slot, then make a move of the backend with it.

        Raises:
            StaleLeaseError: a newer lease was seen; nothing was ended.
            Whatever the move raises.
        """
        slot = self._slots[name]
        if lease < slot.lease:
            raise StaleLeaseError(slot=name, lease=lease, current=slot.lease)
        slot.lease = lease
        await _drop(slot)
        async with slot.turn:
            slot.is_ready = False
            await move(name, lease)

    async def reset(self, name: str, lease: int) -> None:
        """Empty a slot. See `hand_over`."""
        await self.hand_over(name, lease, self._backend.reset)
        self._slots[name].kept.clear()

    async def remove(self, name: str) -> None:
        """Delete a slot with its files."""
        slot = self._slots[name]
        await _drop(slot)
        async with slot.turn:
            slot.is_ready = False
            slot.kept.clear()
            await self._backend.remove(name)


def as_reply(result: ExecutionResult) -> SandboxReply:
    """Return a result as it is sent."""
    return SandboxReply(
        success=result.success,
        output=result.output,
        error=result.error,
        execution_id=result.execution_id,
        metadata=result.metadata,
    )


def refusal_of(error: SlotError) -> Refusal:
    """Return an error of a slot as it is sent."""
    return Refusal(error=str(error), kind=type(error).__name__, data=dict(vars(error)))


def _refused(error: Exception) -> ExecutionResult:
    text = str(error) if isinstance(error, SlotError) else f"Batch execution failed: {error}"
    return ExecutionResult(execution_id="", success=False, error=text)


async def _follow(job: _Job, place: int, emit: Emit) -> None:
    await asyncio.wait((job.ended,))
    emit(place, as_reply(job.ended.result()))


async def _drop(slot: _Slot) -> None:
    """End what runs and what waits."""
    for task in list(slot.tasks):
        task.cancel()
    if slot.tasks:
        await asyncio.wait(set(slot.tasks))


async def _all(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Wait for all; cancelled, cancel all and wait for them."""
    if not tasks:
        return
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
