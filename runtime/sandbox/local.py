"""Slots on this machine: `Bubblewrap(path)` and `PlainProcess(path)`, two jails in one backend.

It queues executions and keeps slots apart; it does not decide who holds one. Invariants: in one slot one execution at
a time, in the order given; a holder whose lease is over changes nothing; when a method returns, nothing runs on that
it was to end.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from perdure.actors.slots.errors import ResetFailedError, SandboxUnavailableError, StaleLeaseError
from perdure.runtime.sandbox import artifacts, leftovers
from perdure.runtime.sandbox.backend import DEFAULT_TIMEOUT_SECONDS, Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.bubblewrap import BubblewrapJail, uids_of
from perdure.runtime.sandbox.cgroup import SlotGroups, find_groups
from perdure.runtime.sandbox.emptying import empty
from perdure.runtime.sandbox.filetools import failed
from perdure.runtime.sandbox.jail import Jail, SlotFolder, make_folders
from perdure.runtime.sandbox.limits import SlotLimits
from perdure.runtime.sandbox.multiplexer import TerminalError, has_socket, started_with_network, stop_terminal
from perdure.runtime.sandbox.outcomes import Outcome
from perdure.runtime.sandbox.performing import Performer
from perdure.runtime.sandbox.place import Job, Place
from perdure.runtime.sandbox.process import PlainJail
from perdure.runtime.threads import WorkerThreads
from perdure.store.errors import StoreLockedError, UsageError
from perdure.store.expected import checked_function
from perdure.store.lock import OwnerLock

FILE_THREADS = 4
"""Deleting, measuring and archiving keep a disk busy, not processors."""
OWNER = ".owner"
"""Named after it is the lock of whoever uses the folder: two would give one slot to two holders."""
SLOT_NAME = re.compile(r"slot_(\d{1,6})")


class LocalBackend:
    """Slots in the folders of one folder of this machine. One owner at a time: *path* is locked while started."""

    def __init__(
        self,
        path: str | PathLike[str],
        jail: Jail,
        *,
        limits: SlotLimits,
        groups: SlotGroups,
        max_slots: int | None = None,
    ) -> None:
        self._root = Path(path).absolute()
        self._jail = jail
        self._limits = limits
        self._groups = groups
        if max_slots is not None and max_slots < 1:
            raise UsageError(f"max_slots is {max_slots}: there must be room for one, or None for as many as are needed")
        self._max_slots = max_slots
        self._threads: WorkerThreads | None = None
        self._lock: OwnerLock | None = None
        self._places: dict[str, Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """The kind of jail and the folder: what `open_backend` opens."""
        return f"{'bubblewrap' if self._jail.is_sandbox else 'process'}:{self._root}"

    @property
    def default_timeout_seconds(self) -> float:
        """The limit of an execution that names none."""
        return DEFAULT_TIMEOUT_SECONDS

    @property
    def max_slots(self) -> int | None:
        """How many slots there can be."""
        return self._max_slots

    def slot_name(self, number: int) -> str:
        """Return `slot_` and the number, as on the wire."""
        return f"slot_{number}"

    def folder(self, slot: str) -> SlotFolder:
        """Return where a slot is on disk; it need not be there.

        Raises:
            UsageError: no slot of this backend can have that name.
        """
        match = SLOT_NAME.fullmatch(slot)
        if match is None:
            raise UsageError(f"{slot!r} is not a slot of this backend: they are called slot_0, slot_1 …")
        return SlotFolder(slot=slot, path=self._root / slot, uid=self._jail.uid_of(int(match[1])))

    async def start(self) -> None:
        """Prove the jail by running a command in it. Idempotent.

        Raises:
            SandboxUnavailableError: it does not work here; says what is missing.
        """
        if self._threads is not None:
            return
        threads = WorkerThreads(FILE_THREADS)
        try:
            await threads.run(self._prepare)
        except OSError as error:
            threads.close()
            detail = f"{error.filename or self._root}: {error.strerror}"
            raise SandboxUnavailableError(detail=f"there can be no slots in {self._root}: {detail}") from error
        except BaseException:
            threads.close()
            raise
        self._threads = threads

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            lock = OwnerLock.acquire(self._root / OWNER)
        except StoreLockedError as error:
            detail = f"the slots in {self._root} are in use by {error.owner}: stop it, or say another folder"
            raise SandboxUnavailableError(detail=detail) from error
        try:
            self._jail.prepare(self._root)
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    async def stop(self) -> None:
        """End what runs; files and terminals stay. Idempotent."""
        for place in self._places.values():
            place.cancel_all()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        for place in self._places.values():
            self._groups.remove(place.folder.group)  # of one whose terminal lives on, it stays
        self._places = {}

    async def acquire(self, slot: str, lease: int) -> None:
        """Make the slot's folders; what is in them stays.

        Raises:
            StaleLeaseError: the lease is over.
        """
        self._ready(slot, lease)

    async def release(self, slot: str, lease: int) -> None:
        """End everything in the slot; the files stay.

        Raises:
            ResetFailedError: a process survives being killed.
            StaleLeaseError: the lease is over.
        """
        place = self._place(slot)
        place.check(lease)
        await self._end_everything(place)

    async def reset(self, slot: str, lease: int) -> None:
        """End everything in the slot and delete its files.

        Raises:
            ResetFailedError: a process or a file is left.
            StaleLeaseError: the lease is over.
        """
        place = self._place(slot)
        place.check(lease)
        await self._empty(place)
        self._ready(slot, lease)

    async def recover(self, slot: str, lease: int) -> None:
        """End what is left of commands of a former life; files and terminals stay.

        Raises:
            ResetFailedError: a process survives being killed.
            StaleLeaseError: the lease is over.
        """
        place = self._ready(slot, lease)
        async with place.queue:
            await self._end(place, spare_terminal=True)

    async def remove(self, slot: str) -> None:
        """End everything in the slot and delete it.

        Raises:
            ResetFailedError: a process or a file is left.
        """
        place = self._place(slot)
        await self._empty(place)
        self._groups.remove(place.folder.group)
        left: str | None = await self._blocking(lambda: _remove(place.folder))
        if left is not None:
            raise ResetFailedError(slot=slot, reason=left)
        self._places.pop(slot, None)

    async def execute_batch(self, executions: Sequence[Execution]) -> AsyncIterator[ExecutionResult]:
        """Perform executions; see `Backend.execute_batch`."""
        results: asyncio.Queue[ExecutionResult] = asyncio.Queue()
        by_slot: dict[str, list[Execution]] = {}
        for execution in executions:
            by_slot.setdefault(execution.slot, []).append(execution)
        tasks = [self._task(self._in_order(slot, queued, results.put_nowait)) for slot, queued in by_slot.items()]
        try:
            for _ in executions:
                yield await results.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def cancel(self, slot: str, execution_id: str) -> None:
        """End one execution of a batch, begun or not."""
        place = self._places.get(slot)
        for job in [] if place is None else place.jobs.get(execution_id, []):
            job.cancel()

    async def outcome(self, slot: str, execution_id: str) -> ExecutionResult | Unfinished | None:
        """Return how an execution ended, from the disk; waits while it runs."""
        place = self._place(slot)
        if execution_id in place.jobs:
            async with place.queue:
                pass
        return Outcome(place.folder, execution_id).read(self._jail)

    async def forget(self, slot: str, execution_ids: Iterable[str]) -> None:
        """Delete what is kept of executions."""
        folder = self.folder(slot)
        for execution_id in execution_ids:
            Outcome(folder, execution_id).forget()

    async def read_artifact(
        self,
        slot: str,
        path: str,
        *,
        encoding: str = "text",
        max_bytes: int | None = None,
        include_sha256: bool = False,
    ) -> dict[str, Any]:
        """Return a file of the workspace; see `Backend.read_artifact`."""
        return await self._files(
            slot,
            lambda folder: artifacts.read_artifact(
                folder, path, encoding=encoding, max_bytes=max_bytes, include_sha256=include_sha256
            ),
        )

    async def list_artifacts(
        self, slot: str, path: str = ".", *, recursive: bool = False, max_entries: int | None = None
    ) -> dict[str, Any]:
        """Return what is in a folder of the workspace; see `Backend.list_artifacts`."""
        return await self._files(
            slot, lambda folder: artifacts.list_artifacts(folder, path, recursive=recursive, max_entries=max_entries)
        )

    async def archive_artifacts(
        self,
        slot: str,
        path: str = ".",
        *,
        archive_format: str = "tar.gz",
        max_bytes: int | None = None,
        max_entries: int | None = None,
    ) -> dict[str, Any]:
        """Return a folder of the workspace, packed; see `Backend.archive_artifacts`."""
        return await self._files(
            slot,
            lambda folder: artifacts.archive_artifacts(
                folder, path, archive_format=archive_format, max_bytes=max_bytes, max_entries=max_entries
            ),
        )

    async def health(self, slot: str) -> str | None:
        """Return what is wrong with the slot's folders; a slot that was never acquired has none, and is well."""
        folder = self.folder(slot)
        if not folder.path.exists():
            return None
        missing = [path.name for path in (folder.workspace, folder.tmp, folder.run, folder.calls) if not path.is_dir()]
        return f"missing: {', '.join(missing)}" if missing else None

    async def _in_order(
        self, slot: str, executions: Sequence[Execution], tell: Callable[[ExecutionResult], None]
    ) -> None:
        """Perform the executions of one slot one after another."""
        try:
            place = self._place(slot)
        except UsageError as error:
            for execution in executions:
                tell(ExecutionResult(execution_id=execution.execution_id, success=False, error=str(error)))
            return
        jobs = [(execution, place.enter(execution.execution_id)) for execution in executions]
        try:
            for execution, job in jobs:
                tell(await self._one(place, execution, job))
        finally:
            for execution, job in jobs:
                place.leave(execution.execution_id, job)

    async def _one(self, place: Place, execution: Execution, job: Job) -> ExecutionResult:
        async with place.queue:
            try:
                place.check(execution.lease)
            except StaleLeaseError as error:
                reply = failed(str(error), stale_lease=True)
                return ExecutionResult(
                    execution_id=execution.execution_id, success=False, error=reply.error, metadata=reply.metadata
                )
            return await Performer(self._jail, self._limits, self._pool()).perform(place, execution, job)

    def _place(self, slot: str) -> Place:
        place = self._places.get(slot)
        if place is None:
            place = self._places[slot] = Place(self.folder(slot))
        return place

    def _ready(self, slot: str, lease: int) -> Place:
        place = self._place(slot)
        place.check(lease)
        make_folders(place.folder)
        self._groups.make(place.folder.group, self._limits)
        return place

    async def _end_everything(self, place: Place) -> None:
        place.cancel_all()
        async with place.queue:
            await self._end(place, spare_terminal=False)

    async def _end(self, place: Place, *, spare_terminal: bool) -> None:
        folder = place.folder
        if not spare_terminal and folder.run.is_dir() and (has_socket(folder) or started_with_network(folder)):
            with contextlib.suppress(TerminalError):  # what would not end is found again below
                await self._blocking(lambda: stop_terminal(folder, self._jail))
        left = await leftovers.end(self._pool(), place.folder, self._groups, spare_terminal=spare_terminal)
        if left:
            numbers = ", ".join(str(process.pid) for process in left)
            raise ResetFailedError(slot=place.folder.slot, reason=f"processes that cannot be killed: {numbers}")

    async def _empty(self, place: Place) -> None:
        place.cancel_all()
        async with place.queue:
            await self._end(place, spare_terminal=False)
            folder = place.folder
            for path in (folder.workspace, folder.tmp, folder.run, folder.calls):
                left: str | None = await self._blocking(partial(_empty_folder, path))
                if left is not None:
                    raise ResetFailedError(slot=folder.slot, reason=left)
            place.used_bytes = 0

    async def _files(self, slot: str, call: Callable[[SlotFolder], dict[str, Any]]) -> dict[str, Any]:
        folder = self.folder(slot)
        if not folder.workspace.is_dir():
            return {"success": False, "error": f"Unknown slot: {slot}", "http_status": 404}
        answer: dict[str, Any] = await self._blocking(lambda: call(folder))
        return answer

    async def _blocking(self, call: Callable[[], Any]) -> Any:
        return await self._pool().run(call)

    def _pool(self) -> WorkerThreads:
        if self._threads is None:
            raise UsageError("the backend is not started: `await backend.start()` first")
        return self._threads

    def _task(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@checked_function
def Bubblewrap(  # noqa: N802 - it reads as the kind of thing it makes
    path: str | PathLike[str],
    *,
    limits: SlotLimits | None = None,
    max_slots: int | None = None,
    read_only: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    first_uid: int | None = None,
) -> LocalBackend:
    """Return slots below *path*, isolated by bubblewrap.

    *read_only* are more paths of this machine that commands may read, *environment* are more variables that they see.
    A command that is allowed the network has *this machine's*: its loopback, and sockets without a path, too.
    As root, slot 0 runs as the user *first_uid*, slot 1 as the next, and so on (None: from a range of users that nobody
    else gives out, by the path); *path* must let them pass.
    """
    limits, groups = limits or SlotLimits(), find_groups()
    first_uid = uids_of(Path(path).absolute()) if first_uid is None else first_uid
    jail = BubblewrapJail(limits, groups, first_uid=first_uid, read_only=read_only, environment=environment)
    return LocalBackend(path, jail, limits=limits, groups=groups, max_slots=max_slots)


@checked_function
def PlainProcess(  # noqa: N802 - as above
    path: str | PathLike[str],
    *,
    allow_unsandboxed: bool = False,
    limits: SlotLimits | None = None,
    max_slots: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> LocalBackend:
    """Return slots below *path* that are no sandbox: commands can do whatever this program can.

    Raises:
        UsageError: it was not said that this is wanted.
    """
    if not allow_unsandboxed:
        raise UsageError(
            "a plain process is not isolated: it reads and changes whatever this program can. Use Bubblewrap(path), "
            "or, where you trust every command, PlainProcess(path, allow_unsandboxed=True)"
        )
    limits, groups = limits or SlotLimits(), find_groups()
    jail = PlainJail(limits, groups, environment=environment)
    return LocalBackend(path, jail, limits=limits, groups=groups, max_slots=max_slots)


def _empty_folder(path: Path) -> str | None:
    return empty(path) if path.is_dir() and not path.is_symlink() else None


def _remove(folder: SlotFolder) -> str | None:
    if not folder.path.is_dir():
        return None
    left = empty(folder.path)
    if left is None:
        folder.path.rmdir()
    return left
