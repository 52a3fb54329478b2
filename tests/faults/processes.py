"""Starts `application.py` in another process and speaks to it line by line. No test."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 60


class Process:
    """A running application."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate(timeout=ANSWER_SECONDS)
        return self.process.returncode


@contextmanager
def application(*arguments: str | Path | int) -> Generator[Process]:
    """Start an application; it does not outlive the block."""
    command = [sys.executable, "-m", "tests.faults.application", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield Process(process)
        finally:
            process.kill()
