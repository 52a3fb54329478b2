"""The process that owns slots is killed while a command runs: what a new life finds, and what it ends."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.runtime.sandbox.backend import Backend, ExecutionResult, Unfinished
from perdure.runtime.sandbox.processes import MARKER, is_alive, marked
from tests.support.backends import FACTORIES, bash, execution, make_root, perform, remove_root, run

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = sorted(kind for kind in FACTORIES if kind in ("bubblewrap", "plain"))

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")]


@pytest.fixture
def root() -> Iterator[Path]:
    root = make_root()
    yield root
    remove_root(root)


def kill_owner_of(kind: str, root: Path, command: str, *, after: str = "running") -> None:
    """Start an owner, and kill it once it has said *after*."""
    owner = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.slot_owner", kind, str(root), command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    try:
        for line in owner.stdout:
            if line.strip() == after:
                break
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


def next_life(kind: str, root: Path, scenario: Any) -> Any:
    async def whole() -> Any:
        async with asyncio.timeout(60), FACTORIES[kind](root) as backend:
            await backend.recover("slot_0", 1)
            return await scenario(backend)

    return run(whole)


def left(kind: str, root: Path) -> list[int]:
    mark = FACTORIES[kind].local(root).folder("slot_0").mark
    return [process.pid for process in marked(MARKER, mark) if is_alive(process)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_is_left_and_the_command_is_not_run_again(kind: str, root: Path) -> None:
    command = "echo x >>count; (setsid sleep 300 &); trap '' TERM; touch begun; sleep 300"
    kill_owner_of(kind, root, command)

    async def scenario(backend: Backend) -> list[Any]:
        outcome = await backend.outcome("slot_0", "held")
        again = await perform(backend, execution(command, id="held"))
        return [left(kind, root), outcome, again[0], await bash(backend, "cat count; ls")]

    processes, outcome, again, files = next_life(kind, root, scenario)

    assert processes == []
    assert isinstance(outcome, Unfinished)
    assert again.metadata["unfinished"] is True
    assert files.output == "x\nbegun\ncount"


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_that_had_ended_is_known_to_a_new_life(kind: str, root: Path) -> None:
    kill_owner_of(kind, root, "touch begun; echo said; exit 3", after="ended")

    outcome = next_life(kind, root, lambda backend: backend.outcome("slot_0", "held"))

    assert isinstance(outcome, ExecutionResult)
    assert (outcome.output, outcome.error) == ("said", "Exit code: 3")


def test_a_command_that_ended_while_nobody_lived_has_its_exit_code(root: Path) -> None:
    kill_owner_of("plain", root, "touch begun; while [ ! -e go ]; do sleep 0.02; done; exit 4")
    folder = FACTORIES["plain"].local(root).folder("slot_0")
    (folder.workspace / "go").touch()
    while left("plain", root):
        pass

    outcome = next_life("plain", root, lambda backend: backend.outcome("slot_0", "held"))

    assert isinstance(outcome, ExecutionResult)
    assert (outcome.success, outcome.metadata["exit_code"]) == (False, 4)
    assert "output_lost" in outcome.metadata


def test_a_process_that_only_has_the_number_of_one_is_left_alone(root: Path) -> None:
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        kill_owner_of("plain", root, "touch begun; sleep 300")
        folder = FACTORIES["plain"].local(root).folder("slot_0")
        for record in folder.calls.glob("*/process"):
            record.write_text(f'{{"pid":{bystander.pid},"started":1,"boot":"another"}}', encoding="ascii")

        next_life("plain", root, lambda backend: backend.health("slot_0"))

        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
