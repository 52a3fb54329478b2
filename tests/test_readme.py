"""The README and the pages of tools and slots say what is true: programs run, commands exist, links lead somewhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backends import need

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the README is not beside the tests")


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def programs() -> list[str]:
    pages = (README, ROOT / "docs/tools.md", ROOT / "docs/slots.md")
    return [block for page in pages for block in blocks("python", page) if "\nimport" in f"\n{block}"]


def run(program: str, folder: Path) -> str:
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_first_example_is_ten_lines_and_is_the_one_in_the_examples() -> None:
    first = blocks("python")[0]

    lines = [line for line in first.splitlines() if line.strip()]
    assert len(lines) <= 12
    assert first == (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(programs()) if README.exists() else 0))
def test_every_program_runs_and_prints_and_runs_again(tmp_path: Path, number: int) -> None:
    program = programs()[number]
    if "Bubblewrap" in program:
        need("bwrap", "bubblewrap")

    first, second = run(program, tmp_path), run(program, tmp_path)

    assert first == second != ""


def test_every_other_python_block_is_python() -> None:
    for block in blocks("python"):
        ast.parse(f"async def block():\n{re.sub('^', '    ', block, flags=re.MULTILINE)}")


def test_the_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
