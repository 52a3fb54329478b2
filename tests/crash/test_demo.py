"""The demonstration, end to end: it kills real processes and asserts its own claims; here it runs on a small folder."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"

FILES = 12
"""As many as the register answers or refuses in one go: it falls over at the 5th, and the audit has to wait for it."""


@pytest.mark.slow
def test_the_demo_kills_resumes_and_proves_what_it_claims(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"module_{number}.py").write_text(f'def function_{number}():\n    """Do it."""\n')

    ended = subprocess.run(
        [sys.executable, str(DEMO), str(source), "--work", str(tmp_path / "work")],
        capture_output=True,
        text=True,
        check=False,
    )

    claims = [line.split()[0] for line in ended.stdout.splitlines() if line.startswith(("   yes ", "   NO "))]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "SIGKILL when" in ended.stdout
    assert "0 of them ran again" in ended.stdout
    assert set(claims) == {"yes"}


def verdicts(work: Path, *executions: str, finished: str, at: int) -> list[bool]:
    """Return what the demo makes of a side file, when a kill after so many lines found one step finished."""
    demo: dict[str, Any] = runpy.run_path(str(DEMO))
    (work / "executions.txt").write_text("".join(f"audit:{execution}\n" for execution in executions))
    story = demo["Demo"](work, work)
    story.kills.append(demo["Kill"](-9, 1, frozenset({finished}), frozenset({finished}), at, "closed"))
    return [holds for holds, _ in demo["execution_claims"](story)]


def test_the_demo_is_content_when_only_a_step_under_way_ran_again(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "a#1 1", "b#1 1", "b#1 1", finished="a#1", at=2) == [True, True, True]


def test_the_demo_notices_a_finished_step_that_ran_again(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "a#1 1", "b#1 1", "a#1 1", finished="a#1", at=2) == [True, False, True]


def test_the_demo_notices_a_step_that_ran_twice_without_a_kill_between(tmp_path: Path) -> None:
    assert verdicts(tmp_path, "a#1 1", "b#1 1", "b#1 1", finished="a#1", at=1) == [True, True, False]
