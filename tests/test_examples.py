"""The examples run as they are: each in a process of its own, with warnings as errors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from perdure.store.reader import LogReader
from perdure.store.records import Query

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(example: str, *arguments: str, cwd: Path, trace: Path | None = None) -> str:
    """Return what an example prints."""
    environment = {**os.environ, "AUDIT_TRACE": str(trace)} if trace else None
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def audited(source: Path, cwd: Path) -> dict[str, Any]:
    """Return the report of an audit of *source*, as it is on disk."""
    run("code_audit.py", str(source), cwd=cwd)
    report: dict[str, Any] = json.loads((cwd / "audit" / "report.json").read_text(encoding="utf-8"))
    return report


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.py").write_text(text, encoding="utf-8")
    return path


def test_hello_prints_its_result(tmp_path: Path) -> None:
    printed = run("hello.py", cwd=tmp_path)

    assert printed == "['ADA', 'GRACE']\n"


def test_hello_has_ten_lines_of_code() -> None:
    lines = (EXAMPLES / "hello.py").read_text(encoding="utf-8").splitlines()

    assert sum(bool(line.strip()) for line in lines) == 10


def test_tools_survive_a_kill_as_the_example_claims(tmp_path: Path) -> None:
    printed = run("tools_survive.py", str(tmp_path), cwd=tmp_path)

    claims = [line.split()[0] for line in printed.splitlines() if line.startswith(("   yes ", "   NO "))]
    assert claims == ["yes"] * 8
    assert "it ended with -9" in printed


def test_an_audit_reports_what_is_in_the_files(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "source",
        good='"""SPDX-License-Identifier: MIT"""\n\n\ndef long():\n    """Say."""\n    return 1\n\n\ndef no(): ...\n',
        broken="def (:\n",
        odd='PATTERN = "\\d"\n',
    )

    report = audited(source, tmp_path)

    assert {name: report[name] for name in ("files", "lines", "functions", "docstring_share", "syntax_warnings")} == {
        "files": 3,
        "lines": 10,
        "functions": 2,
        "docstring_share": 0.5,
        "syntax_warnings": 1,
    }
    assert [(one["longest_function"], one["longest_lines"]) for one in report["longest_functions"]] == [("long", 3)]
    assert list(report["problems"]) == [str(source / "broken.py")]
    assert report["licences"] == {"none stated": 2, "MIT": 1}


def test_the_report_is_written_as_markdown_beside_the_json(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", good="def only(): ...\n", broken="def (:\n")

    audited(source, tmp_path)

    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["report.json", "report.md"]
    text = (tmp_path / "audit" / "report.md").read_text(encoding="utf-8")
    assert "| `only` | 1 | good.py |" in text
    assert "| broken.py | SyntaxError" in text


def test_an_audit_of_an_empty_folder_reports_nothing(tmp_path: Path) -> None:
    report = audited(folder(tmp_path / "source"), tmp_path)

    assert (report["files"], report["docstring_share"], report["longest_functions"]) == (0, 0.0, [])


def test_the_same_audit_again_runs_no_step(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", one="", two="")
    trace = tmp_path / "trace.txt"
    run("code_audit.py", str(source), cwd=tmp_path, trace=trace)
    executions = trace.read_text(encoding="utf-8").splitlines()

    printed = run("code_audit.py", str(source), cwd=tmp_path, trace=trace)

    assert len(executions) == 6  # list, 2 x measure, 2 x licence, write
    assert trace.read_text(encoding="utf-8").splitlines() == executions
    assert "2 files" in printed


def test_a_register_that_falls_over_costs_no_file_its_licence(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", **{f"module_{number}": "# Copyright" for number in range(12)})

    report = audited(source, tmp_path)

    with LogReader.open(tmp_path / "audit.db") as log:
        kinds = ("circuit-opened", "call-refused", "circuit-half-opened", "circuit-closed")
        seen = [event.type for event in log.read(Query(types=kinds))]
    assert report["licences"] == {"copyright only": 12}
    assert list(dict.fromkeys(seen)) == list(kinds)
