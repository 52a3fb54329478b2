"""The demonstration: an audit of real source files is killed twice with SIGKILL, goes on, and proves what it claims.

    make demo            or: python examples/demo.py [DIRECTORY] [--work FOLDER]

It exits with 1 when one of its claims does not hold.
"""

import argparse
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from perdure import PerdureError, Query, Recorded
from perdure.store.reader import LogReader

AUDIT = Path(__file__).with_name("code_audit.py")
FRAGILE = "find_licence"
RESET_SECONDS = 1
"""The reset timeout of its circuit breaker."""
CIRCUIT = {"circuit-opened": "open", "circuit-half-opened": "half open", "circuit-closed": "closed"}


class Log:
    """What the log says, read from outside while other processes write it."""

    def __init__(self, db: Path) -> None:
        self.db = db
        self.events: list[Recorded] = []
        self.begun: dict[str, str] = {}
        """Step -> tool."""
        self.finished: dict[str, str] = {}
        """Step -> tool, of the steps whose outcome is on disk: none of them may ever run again."""
        self.files = 0
        self.circuit = "closed"
        self.is_complete = False

    @property
    def files_done(self) -> int:
        counts = Counter(self.finished.values())
        return min(counts["measure"], counts[FRAGILE])

    def look(self) -> None:
        after = self.events[-1].position if self.events else 0
        try:
            with LogReader.open(self.db) as reader:
                while page := reader.read(Query(after=after, limit=1_000)):
                    after = page[-1].position
                    for event in page:
                        self._add(event, data_of(event))
        except PerdureError:
            if self.events:  # before the first one, the log is still being made
                raise

    def _add(self, event: Recorded, data: dict[str, Any]) -> None:
        self.events.append(event)
        match event.type:
            case "step-started":
                self.begun[data["step"]] = data["tool"]
            case "step-completed" | "step-failed":
                self.finished[data["step"]] = self.begun[data["step"]]
            case "branches-opened" if "/map#" in data["step"]:
                self.files = data["count"]
            case "run-completed":
                self.is_complete = True
            case _:
                self.circuit = CIRCUIT.get(event.type, self.circuit)


class Kill(msgspec.Struct, frozen=True):
    """How things stood when a process was killed."""

    exit_code: int
    position: int
    finished: frozenset[str]
    begun: frozenset[str]
    executions: int
    circuit: str


class Demo:
    """The audit, the processes that work on it, and what came of it."""

    def __init__(self, directory: Path, work: Path) -> None:
        self.directory = directory
        self.work = work
        self.log = Log(work / "audit.db")
        self.kills: list[Kill] = []
        self.exit_code: int | None = None
        self._side_file = work / "executions.txt"
        self._processes = 0

    def executions(self) -> list[tuple[str, str]]:
        """What the steps themselves wrote: (step, attempt), a line for each time that one of them ran."""
        lines = self._side_file.read_text(encoding="utf-8").splitlines() if self._side_file.exists() else []
        pairs = (line.rpartition(" ") for line in lines)
        return [(key.partition(":")[2], attempt) for key, _, attempt in pairs]

    @contextmanager
    def process(self) -> Generator[subprocess.Popen[bytes]]:
        """A process that runs the audit, or goes on with it: always the same command."""
        self._processes += 1
        command = [sys.executable, str(AUDIT), str(self.directory), "--db", str(self.log.db)]
        command += ["--out", str(self.work / "report")]
        with self.output().open("wb") as output:
            environment = {**os.environ, "AUDIT_TRACE": str(self._side_file)}
            child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 - our own
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    def output(self) -> Path:
        return self.work / f"process-{self._processes}.txt"

    def said(self) -> list[str]:
        return self.output().read_text(encoding="utf-8").splitlines()

    def follow(self, child: "subprocess.Popen[bytes]", until: Callable[[], bool]) -> bool:
        """Follow the log until a condition holds; False when the process ended first."""
        columns = (TextColumn("  "), BarColumn(34), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=None)
            while child.poll() is None:
                self.log.look()
                done, files = self.log.files_done, self.log.files
                text = f"{done:,} of {files:,} files, circuit {self.log.circuit}"
                progress.update(bar, completed=done, total=files or None, description=text)
                if files and until():
                    return True
                time.sleep(0.01)
        self.log.look()
        return False

    def kill(self, child: "subprocess.Popen[bytes]") -> Kill:
        child.send_signal(signal.SIGKILL)
        code = child.wait()
        self.log.look()
        log = self.log
        kill = Kill(
            code, log.events[-1].position, frozenset(log.finished), frozenset(log.begun), len(self.executions()),
            log.circuit,
        )  # fmt: skip
        self.kills.append(kill)
        return kill


# The story


def tell(demo: Demo) -> None:
    log = demo.log
    heading(1, "A process starts the audit, and is killed at about a third")
    run_and_kill(demo, lambda: share(log) > 0.45 or (share(log) > 0.3 and log.circuit == "open"))  # noqa: PLR2004
    heading(2, "The same command again: it goes on, and is killed at two thirds")
    run_and_kill(demo, lambda: share(log) >= 2 / 3)
    heading(3, "The same command a last time")
    with demo.process() as child:
        demo.follow(child, lambda: False)
        demo.exit_code = child.returncode
    say(f"Process {child.pid} says:", *demo.said())
    say(f"It ended with exit code {demo.exit_code}.")


def share(log: Log) -> float:
    return log.files_done / max(1, log.files)


def run_and_kill(demo: Demo, until: Callable[[], bool]) -> None:
    log = demo.log
    with demo.process() as child:
        if demo.follow(child, until):
            kill = demo.kill(child)
            say(f"Process {child.pid} says:", *demo.said())
            say(f"[bold red]SIGKILL[/] when {log.files_done:,} of {log.files:,} files were done.", markup=True)
            say(f"On disk: {len(kill.finished):,} steps finished, {len(kill.begun - kill.finished)} begun.")
            say(f"The circuit breaker of {FRAGILE} was {kill.circuit}.")
        else:
            say(f"Process {child.pid} ended with {child.returncode} before it could be killed; it says:", *demo.said())


# The proof


def claims(demo: Demo) -> Iterator[tuple[bool, str]]:
    """Check what Perdure claims against what the processes left behind."""
    log = demo.log
    killed = bool(demo.kills) and all(kill.exit_code == -signal.SIGKILL for kill in demo.kills)
    yield killed, f"Processes that died of SIGKILL: {len(demo.kills)}. None could say goodbye."
    yield (
        log.is_complete and demo.exit_code == 0,
        f"The run is complete all the same, with {len(log.finished):,} steps.",
    )
    report = demo.work / "report" / "report.json"
    counted = msgspec.json.decode(report.read_bytes())["files"] if report.exists() else 0
    yield counted == log.files > 0, f"Its report counts {counted:,} files, as many as were listed."
    yield from execution_claims(demo)
    for number, kill in enumerate(demo.kills, 1):
        if kill.circuit == "open":
            yield stayed_open(log, kill, number)
    verified = verify(log.db)
    found = "{events:,} events in {streams} streams, {heads} heads; {findings} findings".format(**verified)
    yield verified["is_sound"], f"perdure verify has recomputed {found}."


def execution_claims(demo: Demo) -> Iterator[tuple[bool, str]]:
    """Check the log against the side file, which the steps wrote themselves."""
    executions = demo.executions()
    missing = demo.log.finished.keys() - {step for step, _ in executions}
    steps = f"{len(executions):,} executions of {len({step for step, _ in executions}):,} steps"
    retries = len({(step, attempt) for step, attempt in executions if attempt != "1"})
    yield not missing, f"The steps themselves wrote down {steps}, {retries} of them retries."
    kept = demo.kills[-1].finished if demo.kills else frozenset[str]()
    again = sum(step in kill.finished for kill in demo.kills for step, _ in executions[kill.executions :])
    yield bool(kept) and again == 0, f"{len(kept):,} steps had finished before a kill: {again} of them ran again."
    ends = [0, *(kill.executions for kill in demo.kills), len(executions)]
    lives = [executions[start:end] for start, end in pairwise(ends)]
    twice = len(executions) - len(set(executions))
    in_one_life = sum(len(life) - len(set(life)) for life in lives)
    text = f"{twice} executions had no outcome on disk when a kill came, and were made again"
    yield in_one_life == 0, f"{text}; {in_one_life} were made twice for another reason."


def stayed_open(log: Log, kill: Kill, number: int) -> tuple[bool, str]:
    """An open circuit is open in the next process too: refusals until the reset timeout has passed, then one probe."""
    opened = next(event for event in reversed(log.events[: kill.position]) if event.type == "circuit-opened")
    later = [event for event in log.events[kill.position :] if event.stream == opened.stream]
    before = list(takewhile(lambda event: event.type != "circuit-half-opened", later))
    seconds = (data_of(later[len(before)])["at"] - data_of(opened)["at"]) / 1e6 if len(before) < len(later) else 0.0
    text = (
        f"The circuit was open at kill {number} and open in the next process: {len(before)} calls refused, "
        f"then a probe, {seconds:.1f} s after it had opened."
    )
    return seconds >= RESET_SECONDS and all(event.type == "call-refused" for event in before), text


def timeline(demo: Demo) -> Table:
    """One row for what matters in each process's life."""
    events = demo.log.events
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", style="cyan", no_wrap=True)
    table.add_column()
    starts = [i for i, event in enumerate(events) if event.type == "runtime-opened"]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(events)], strict=True), 1):
        life = events[start:end]
        if start:
            silence = (life[0].at - events[start - 1].at) / 1e6
            table.add_row("", f"[dim]{silence:.1f} s without any process[/]")
        counts = Counter(event.type for event in life)
        first = next((event for event in life if event.type == "step-completed"), life[-1])
        seconds = [f"{(event.at - events[0].at) / 1e6:.2f} s" for event in (life[0], first, life[-1])]
        verb = "starts" if counts["run-started"] else "resumes" if counts["run-resumed"] else "asks for"
        table.add_row(seconds[0], f"process {data_of(life[0])['pid']} opens the log and {verb} the run")
        table.add_row(seconds[1], f"first of {counts['step-completed']:,} steps that finish in this life")
        figures = f"{counts['circuit-opened']}x open, {counts['circuit-closed']}x closed again"
        table.add_row("", f"circuit of {FRAGILE}: {figures}, {counts['call-refused']} calls refused")
        table.add_row(seconds[2], "last event before SIGKILL" if number <= len(demo.kills) else "the run is complete")
    return table


def verify(db: Path) -> dict[str, Any]:
    """Return what `perdure verify` says of the log."""
    command = [sys.executable, "-m", "perdure", "verify", "--json", "--db", str(db)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    said = msgspec.json.decode(done.stdout, type=dict[str, Any])
    return {**said, "findings": len(said["findings"]), "is_sound": said["is_sound"] and done.returncode == 0}


def data_of(event: Recorded) -> dict[str, Any]:
    return msgspec.json.decode(event.data or "{}", type=dict[str, Any])


# On the terminal

console = Console(highlight=False)
console.width = min(console.width, 80)


def heading(number: int, text: str) -> None:
    console.print(f"\n[bold]{number}  {text}[/]")


def say(*lines: str, markup: bool = False) -> None:
    first, *more = lines
    console.print(Padding(Text.from_markup(first) if markup else Text(first), (0, 0, 0, 3)))
    for line in more:
        console.print(Padding(Text(line, style="italic"), (0, 0, 0, 5)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill an audit of Python files twice, and see what is lost: nothing.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--work", type=Path, help="a new folder for the log and the report (default: a temporary one)")
    given = parser.parse_args()
    if given.work:
        given.work.mkdir(parents=True)
    demo = Demo(given.directory, given.work or Path(tempfile.mkdtemp(prefix="perdure-demo-")))
    console.print("[bold]Perdure: kill -9 a workflow, twice, and lose nothing[/]\n")
    say(f"The workflow of {AUDIT.name} parses and measures every Python file under", str(demo.directory))
    say(
        "and asks a register of licences about each, which is fragile on purpose. Everything is written to",
        str(demo.work),
    )
    tell(demo)
    heading(4, "What happened, by the log")
    console.print(timeline(demo))
    heading(5, "What is claimed, and has just been checked")
    failed = 0
    for holds, text in claims(demo):
        failed += not holds
        table = Table.grid(padding=(0, 1))
        table.add_row("  ", "[green]yes[/]" if holds else "[bold red]NO [/]", Text(text))
        console.print(table)
    heading(6, "Look for yourself")
    perdure = os.path.relpath(Path(sys.executable).with_name("perdure"))
    for command in (
        f"export PERDURE_DB={demo.log.db}", f"{perdure} show audit", f"{perdure} log --tool {FRAGILE} --last 20",
        f"{perdure} verify", f"cat {demo.work}/report/report.md", f"rm -r {demo.work}",
    ):  # fmt: skip
        console.print(f"   {command}", soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
