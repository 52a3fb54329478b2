"""A slot of this machine while its backend lives: its folder, its queue, the newest lease it saw, what it uses.

Only the lease is kept on disk, beside the folders of the slot and out of the reach of its commands.
"""

import asyncio
import contextlib

from perdure.actors.slots.errors import StaleLeaseError
from perdure.runtime.sandbox.jail import SlotFolder
from perdure.runtime.sandbox.spawn import Command


class Job:
    """An execution of a batch, queued or begun."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.command: Command | None = None

    def cancel(self) -> None:
        """Have it ended, or never begun."""
        self.is_cancelled = True
        if self.command is not None:
            self.command.stop("cancelled")


class Place:
    """What the backend knows of one slot."""

    def __init__(self, folder: SlotFolder) -> None:
        self.folder = folder
        self.queue = asyncio.Lock()
        """Held while something runs in the slot; first come, first served."""
        self.jobs: dict[str, list[Job]] = {}
        self.used_bytes = 0
        """When it was last measured."""
        self.measured_at = float("-inf")
        self._lease = self._read_lease()

    def check(self, lease: int) -> None:
        """Let the newest lease pass, and remember it.

        Raises:
            StaleLeaseError: a newer one was seen, in this life or before.
        """
        if lease < self._lease:
            raise StaleLeaseError(slot=self.folder.slot, lease=lease, current=self._lease)
        if lease > self._lease:
            self._lease = lease
            self._write_lease()

    def cancel_all(self) -> None:
        """Have everything ended that runs or waits in this slot."""
        for jobs in self.jobs.values():
            for job in jobs:
                job.cancel()

    def enter(self, execution_id: str) -> Job:
        """Return a job that can be cancelled by its id from now on."""
        job = Job()
        self.jobs.setdefault(execution_id, []).append(job)
        return job

    def leave(self, execution_id: str, job: Job) -> None:
        """Forget a job that has ended."""
        jobs = self.jobs[execution_id]
        jobs.remove(job)
        if not jobs:
            del self.jobs[execution_id]

    def _read_lease(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder.path / "lease").read_text(encoding="ascii"))
        return 0

    def _write_lease(self) -> None:
        self.folder.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        new = self.folder.path / "lease.new"
        new.write_text(str(self._lease), encoding="ascii")
        new.replace(self.folder.path / "lease")
