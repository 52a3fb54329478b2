"""The examples run as they are: each in a process of its own, with warnings as errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.store.reader import LogReader
from perdure.store.records import Query
from tests.support.backends import make_root, need, remove_root

EXAMPLES = Path(__file__).parents[1] / "examples"
NOBODY = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


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


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that the users of slots can reach."""
    need("bwrap", "bubblewrap")
    need("git", "git")
    root = make_root()
    yield root
    remove_root(root)


def git(repository: Path, *arguments: str) -> str:
    """Return what git says, whatever the settings of this machine."""
    environment = {**os.environ, **NOBODY, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def executed(log: Path) -> list[Any]:
    """Return the commands that were sent into slots, by what the log says."""
    with LogReader.open(log) as reader:
        return [event.data for event in reader.read(Query(types=("execution-requested",)))]


def test_a_coding_task_lints_in_a_slot_and_a_second_time_runs_no_command(place: Path) -> None:
    repository = place / "project"
    repository.mkdir(mode=0o755)
    git(repository, "init", "--quiet")
    (repository / "unused.py").write_text("import os\n", encoding="utf-8")
    git(repository, "add", "unused.py")
    git(repository, "commit", "--quiet", "-m", "Import what is not used")

    first = run("coding_task.py", str(repository), cwd=place)
    commands, written = executed(place / "coding.db"), (place / "report.tar.gz").stat().st_mtime_ns
    second = run("coding_task.py", str(repository), cwd=place)

    commit = git(repository, "rev-parse", "HEAD")[:12]
    assert first.splitlines()[0] == f"commit {commit}: 1 Python files, ruff ended with 1"
    assert first.splitlines()[1] == "1 findings; report.tar.gz holds findings.jsonl"
    assert len(commands) == 5  # clone, commit, count, lint, count
    assert executed(place / "coding.db") == commands
    assert (place / "report.tar.gz").stat().st_mtime_ns == written
    assert second == first


def command(*arguments: str, cwd: Path, db: str = "payments.db") -> str:
    """Return what the command line prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "perdure", *arguments, "--db", db],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_payment_is_made_as_a_person_approved_it_on_the_command_line(tmp_path: Path) -> None:
    waits = run("approval.py", "0.5", cwd=tmp_path)
    listed = command("questions", cwd=tmp_path)
    command("answer", "invoice-7:approve#1", "--edit", '{"to": "ada", "amount": 200}', "--who", "eve", cwd=tmp_path)
    paid = run("approval.py", cwd=tmp_path)

    assert waits == "waits for finance: perdure answer invoice-7:approve#1 --approve --db payments.db\n"
    assert "invoice-7:approve#1" in listed
    assert paid == "paid 200 to ada, approved by eve\n"


def test_a_payment_that_a_person_rejected_is_not_made(tmp_path: Path) -> None:
    run("approval.py", "0.5", cwd=tmp_path)
    command("answer", "invoice-7:approve#1", "--reject", "too much", cwd=tmp_path)

    assert run("approval.py", cwd=tmp_path) == "not paid: rejected too much\n"


def test_a_delivery_becomes_a_comment_once_a_person_approved_it(tmp_path: Path) -> None:
    waits = run("webhook.py", "0.5", cwd=tmp_path)
    command("answer", "issues:72d3162e-0001:approve#1", "--approve", "--who", "eve", cwd=tmp_path, db="issues.db")
    posted = run("webhook.py", "10", cwd=tmp_path)

    warned, *answered = waits.splitlines()
    assert "a delivery is not signed as its route asks" in warned
    assert answered == [
        "forged: 401 {'error': 'Invalid signature'}",
        "signed: 202 {'status': 'accepted'}",
        "waits for maintainers: perdure answer issues:72d3162e-0001:approve#1 --approve --db issues.db",
    ]
    assert posted.splitlines()[2:] == ["signed: 200 {'status': 'duplicate'}", "commented on issue 7, approved by eve"]
    comment = (tmp_path / "comments.md").read_text(encoding="utf-8")
    assert comment.count("## Issue 7") == 1
    assert re.search(r"^- json/decoder.py: decode has \d+ lines$", comment, re.MULTILINE)
    assert "- json/nowhere.py: the standard library has no such file" in comment


def told(printed: str, order: str) -> list[str]:
    """Return what the services and people did for an order, and how it ended, without spaces and punctuation."""
    after = printed.partition(f"{order}: ")[2].partition("\norder-")[0]
    return [" ".join(line.split()) for line in after.splitlines()[1:]]


def test_an_order_that_fails_is_undone_last_first(tmp_path: Path) -> None:
    printed = run("order_saga.py", cwd=tmp_path)

    assert told(printed, "order-1")[-1] == "=> order-1-parcel"
    assert told(printed, "order-2") == [
        "stock reserve a desk",
        "payments charge 300",
        "shipping send to the moon",
        "payments refund order-2-payment",
        "stock release order-2-goods",
        "=> run order-2 failed: StepFailedError: step ship#1 failed: ValueError: nobody delivers to the moon",
    ]


def test_an_order_that_cannot_be_undone_waits_for_a_person_and_its_other_steps_are_undone(tmp_path: Path) -> None:
    printed = run("order_saga.py", cwd=tmp_path)

    assert told(printed, "order-3")[3:-1] == [
        *["payments refund order-3-payment"] * 3,
        "stock release order-3-goods",
        "needs attention: charge#1#undo (perdure settle order-3 'charge#1#undo' --done)",
        "somebody gave the money back by hand, and said so",
    ]


def test_orders_that_are_placed_again_reach_no_service(tmp_path: Path) -> None:
    run("order_saga.py", cwd=tmp_path)

    again = run("order_saga.py", cwd=tmp_path)

    assert [line for order in ("order-1", "order-2", "order-3") for line in told(again, order)] == [
        "=> order-1-parcel",
        *[f"=> run order-{n} failed: StepFailedError: step ship#1 failed: ValueError: nobody delivers to the moon"
          for n in (2, 3)],
    ]  # fmt: skip


def investigated(cwd: Path, since: str, until: str) -> str:
    """Return the report of an investigation of the euro's rates."""
    run("investigation.py", "--since", since, "--until", until, cwd=cwd)
    return (cwd / "report.md").read_text(encoding="utf-8")


def test_the_day_the_franc_was_let_go_is_found(tmp_path: Path) -> None:
    report = investigated(tmp_path, "2015-01-01", "2015-12-31")

    assert "| 2015-01-15 | CHF | 1.201 | 1.028 | +16.8% |" in report


def test_the_day_on_which_the_central_banks_bought_euros_is_found_as_a_pattern(tmp_path: Path) -> None:
    report = investigated(tmp_path, "2000-01-01", "2000-12-31")

    assert "- 2000-09-22: CAD, HKD, JPY, KRW, LTL, ROL, SGD, USD" in report


def test_an_investigation_that_finds_nothing_skips_the_search_for_patterns(tmp_path: Path) -> None:
    report = investigated(tmp_path, "2003-01-01", "2003-01-15")

    with LogReader.open(tmp_path / "investigation.db") as log:
        skipped = [event.data for event in log.read(Query(types=("step-skipped",)))]
    assert report == "# Unusual moves, 2003-01-01 to 2003-01-15\n\n0 on 10 days.\n"
    assert [json.loads(data)["step"] for data in skipped if data] == ["pattern_analysis"]


def test_the_investigation_runs_from_the_command_line(tmp_path: Path) -> None:
    asked = ["--db", "cli.db", "--input", '{"since": "2015-01-01", "until": "2015-01-31"}']

    ended = subprocess.run(
        [sys.executable, "-m", "perdure", "run", str(EXAMPLES / "investigation.py"), *asked],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["final_data"]["anomalies_found"] > 0


def test_a_chain_of_events_ships_every_order_once_however_often_it_is_started(tmp_path: Path) -> None:
    first = run("chain.py", cwd=tmp_path).splitlines()
    again = run("chain.py", cwd=tmp_path).splitlines()

    shipped = [f"o-{number} is shipped, 2 events after it was placed" for number in (1, 2, 3)]
    assert sorted(first) == ["a large order: o-2", *shipped]
    assert again == shipped
    with LogReader.open(tmp_path / "chain.db") as reader:
        types = [event.stream for event in reader.read(Query(types=("event-published",)))]
    assert sorted(types) == sorted(
        ["topic/order.placed", "topic/order.paid", "topic/order.shipped"] * 3 + ["topic/order.large"]
    )


def test_a_goal_is_as_far_as_its_letters_went(tmp_path: Path) -> None:
    printed = run("goal.py", cwd=tmp_path)

    assert printed.splitlines()[-1] == "87% by 5 runs; violations: {'budget': 1}"


def test_a_report_is_made_each_night_and_once_for_those_without_the_program(tmp_path: Path) -> None:
    printed = run("nightly.py", "--week", cwd=tmp_path)

    assert printed.splitlines() == [
        "Files on Thu 26 March 02:30",
        "Files on Fri 27 March 02:30",
        "Files on Sat 28 March 02:30",
        "Files on Sun 29 March 03:00",  # the clocks went from 02:00 to 03:00
        "Files on Tue 31 March 02:30, nights made up for: 1",
        "Files on Wed 01 April 02:30",
    ]


def test_a_report_is_made_now_and_the_next_one_is_due_at_night(tmp_path: Path) -> None:
    (tmp_path / "one.txt").touch()
    (tmp_path / "two.txt").touch()

    printed = run("nightly.py", cwd=tmp_path)

    assert printed.splitlines()[1] == "next: 02:30 in Berlin"
    assert (tmp_path / "report.md").read_text(encoding="utf-8").endswith("\n\n- .txt: 2\n")
