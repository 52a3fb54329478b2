"""What is kept on disk of one execution, so that a later life can tell how it ended: one small folder each.

`begun` is written before the command starts, `process` once it runs, `status` by the jail when it ends (also when we
are dead by then), `result` by us after the last byte of output. It is a memory for the time until the log has the
outcome, not a second log: nothing is fsynced, and after a loss of power an execution is merely unfinished.
"""

import contextlib
import hashlib
import signal
from pathlib import Path
from typing import TypeVar

import msgspec

from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.jail import Jail, SlotFolder
from perdure.runtime.sandbox.processes import Process

T = TypeVar("T")

LOST_OUTPUT = "the command ended while its owner died: what it said is lost"

CUT_OFF = frozenset({128 + signal.SIGKILL, 128 + signal.SIGPIPE})
"""How commands end because their owner did: killed, or while they write to a pipe that nobody reads any more. Such an
end says nothing of what the command would have come to."""


class Outcome:
    """What is kept of one execution in one slot."""

    def __init__(self, folder: SlotFolder, execution_id: str) -> None:
        digest = hashlib.sha256(execution_id.encode("utf-8", "surrogatepass")).hexdigest()  # an id may be any text
        self._execution_id = execution_id
        self.path = folder.calls / digest[:40]

    @property
    def status(self) -> Path:
        """Where the jail records the exit code."""
        return self.path / "status"

    def begin(self, execution: Execution) -> bool:
        """Record that the execution begins; return False when it was begun before."""
        try:
            self.path.mkdir()
        except FileExistsError:
            return False
        _write(self.path / "begun", msgspec.json.encode({"tool": execution.tool, "lease": execution.lease}))
        return True

    def is_running_as(self, process: Process | None) -> None:
        """Record which process performs it."""
        if process is not None:
            _write(self.path / "process", msgspec.json.encode(process))

    def finish(self, result: ExecutionResult) -> None:
        """Record the result; it is there wholly or not at all."""
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
            _write(self.path / "result.new", msgspec.json.encode(result))
            (self.path / "result.new").replace(self.path / "result")

    def read(self, jail: Jail) -> ExecutionResult | Unfinished | None:
        """Return how it ended, as far as anybody knows; None when it was never begun."""
        if not self.path.is_dir():
            return None
        result = _decode(self.path / "result", ExecutionResult)
        if result is not None:
            return result
        code = jail.exit_code(self.status)
        if code is None:
            return Unfinished("it was begun, and died with its owner before it ended")
        if code in CUT_OFF:
            return Unfinished(f"it was begun, and its owner's death ended it: exit code {code}")
        return ExecutionResult(
            execution_id=self._execution_id,
            success=code == 0,
            error="" if code == 0 else f"Exit code: {code}",
            metadata={"exit_code": code, "sandboxed": jail.is_sandbox, "output_lost": LOST_OUTPUT},
        )

    def forget(self) -> None:
        """Delete it all."""
        with contextlib.suppress(FileNotFoundError):
            for file in list(self.path.iterdir()):
                file.unlink(missing_ok=True)
            self.path.rmdir()


def recorded_processes(folder: SlotFolder) -> list[Process]:
    """Return the outermost processes of executions that are remembered, of whichever life of the machine."""
    found = (_decode(path, Process) for path in folder.calls.glob("*/process"))
    return [process for process in found if process is not None]


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _decode(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
