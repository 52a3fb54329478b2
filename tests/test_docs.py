"""Every example of the how-to pages runs as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGES = (Path(__file__).resolve().parent.parent / "docs").glob("*.md")


def examples() -> Iterator[Any]:
    for page in sorted(PAGES):
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: block.start()].count("\n") + 2
            if "def test_" in block[1]:
                yield pytest.param(page, line, block[1], id=f"{page.name}:{line}")


@pytest.mark.parametrize(("page", "line", "code"), list(examples()))
def test_an_example_runs_as_it_stands(page: Path, line: int, code: str) -> None:
    names: dict[str, Any] = {"__name__": f"{page.stem}_{line}"}
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)  # noqa: S102 - our own text

    tests = [value for name, value in names.items() if name.startswith("test_")]

    assert tests
    for test in tests:
        test()
