"""Makes processes that can be killed, quickly: one process imports everything once and forks a child for each life.

The one that forks has one thread and no open log, so a child is what a new process would be. It reaps a child only when
told to, so nobody ever signals a pid that was used again. Run as `python -m tests.crash.nursery`; no test.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

ROOT = Path(__file__).resolve().parents[2]
LIFE_SECONDS = 60
"""A life that hangs is ended by SIGALRM, which no test takes for an end of its own."""


class Nursery:
    """A process that forks lives, of the kind that *module* has; a context manager."""

    def __init__(self, module: str = "tests.crash.life") -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.crash.nursery", module]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def live(self, order: msgspec.Struct, *, kill_after: float | None = None) -> int:
        """Live *order*, perhaps kill it after some seconds; return 0, or minus the signal that ended it."""
        pid = self.begin(order)
        if kill_after is not None:
            time.sleep(kill_after)  # this one is meant: nobody knows where in its work the child is
            os.kill(pid, signal.SIGKILL)
        return self.end()

    def begin(self, order: msgspec.Struct) -> int:
        """Begin to live *order*; return the pid of the child."""
        return self._ask(msgspec.json.encode(order))

    def end(self) -> int:
        """Wait until the child has ended; return 0, or minus the signal that ended it."""
        return self._ask(b"wait")

    def _ask(self, line: bytes) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    life = importlib.import_module(sys.argv[1])  # here only: the tests need not import the runtime
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=life.Order)
        pid = os.fork()
        if pid == 0:
            signal.alarm(LIFE_SECONDS)
            os.dup2(2, 1)
            sys.stdin.close()
            life.live(order)
            sys.stderr.flush()
            sys.exit(0)
        print(pid, flush=True)  # noqa: T201 - its answer
        sys.stdin.buffer.readline()
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
