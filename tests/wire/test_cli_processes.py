"""The command in processes of its own: kills, signals, owners and readers side by side."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import APPLICATION, Process, command, wait_for

OWNER = """
import asyncio
import sys

from perdure import Context, Runtime, tool, workflow


@tool(effect="read")
async def step(n: int) -> int:
    await asyncio.sleep(0)
    return n


@workflow
async def count(ctx: Context) -> int:
    return sum([await ctx.call(step, n) for n in range(5)])


async def main() -> None:
    async with Runtime(sys.argv[1], workflows=[count]) as rt:
        runs = [await rt.with_options(id=f"r{n}").start(count) for n in range(1000)]
        print("started", flush=True)
        await asyncio.gather(*(run.result() for run in runs))
        print("done", flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(APPLICATION, encoding="utf-8")
    return tmp_path


def buy(folder: Path, **env: str) -> Process:
    """Start a run that pays, which with HANG waits for a file and with DIE kills its process."""
    arguments = ("run", "flows.py:buy", "--db", "a.db", "--id", "b1", "--input", '{"amount": 5}')
    return Process(folder, *arguments, env=env)


def statuses(folder: Path) -> dict[str, str]:
    listed = command(folder, "ps", "--all", "--db", "a.db", "--json")
    return {run["run"]: run["status"] for run in map(json.loads, listed.out.splitlines())}


def test_a_kill_during_an_irreversible_step_leaves_a_doubt_that_a_person_settles(folder: Path) -> None:
    with buy(folder, DIE="1") as process:
        killed = process.end()
    after_kill = statuses(folder)
    resumed = command(folder, "resume", "flows.py", "--db", "a.db")
    attention = command(folder, "ps", "--attention", "--db", "a.db")
    shown = command(folder, "show", "b1", "--db", "a.db")
    settled = command(folder, "settle", "b1", "pay#1", "--db", "a.db", "--done", '"receipt by phone"')

    finished = command(folder, "resume", "flows.py", "--db", "a.db")

    assert (killed.code, after_kill) == (-signal.SIGKILL, {"b1": "interrupted"})
    assert resumed.code == 4
    assert "perdure settle b1 pay#1 --db a.db" in resumed.err
    assert "a verdict on pay#1" in attention.out
    assert "↳ in doubt: the process ended during the call" in shown.out
    assert (settled.code, finished.code) == (0, 0)
    assert json.loads(command(folder, "show", "b1", "--db", "a.db", "--json").out)["result"] == "receipt by phone"
    assert command(folder, "verify", "a.db").code == 0


def test_starting_an_interrupted_run_again_goes_on_with_it(folder: Path) -> None:
    with buy(folder, DIE="1") as process:
        process.end()

    with buy(folder) as process:
        again = process.end()

    assert (again.code, again.out) == (4, "")
    assert "pay#1 is in doubt" in again.err
    assert again.err.splitlines()[-1].startswith("error: run b1 waits for a verdict on pay#1: perdure settle b1 pay#1")


@pytest.mark.parametrize(
    ("verdict", "code", "status"), [(("--not-done",), 0, "completed"), (("--failed", "no money"), 4, "failed")]
)
def test_a_verdict_decides_how_the_run_goes_on(folder: Path, verdict: tuple[str, ...], code: int, status: str) -> None:
    with buy(folder, DIE="1") as process:
        process.end()
    command(folder, "resume", "flows.py", "--db", "a.db")

    settled = command(folder, "settle", "b1", "pay#1", "--db", "a.db", *verdict)
    resumed = command(folder, "resume", "flows.py", "--db", "a.db", "--json")

    assert (settled.code, resumed.code) == (0, code)
    assert json.loads(resumed.out)["status"] == status


def test_a_verdict_on_a_step_that_is_not_in_doubt_is_refused(folder: Path) -> None:
    command(folder, "run", "flows.py:total", "--db", "a.db", "--id", "t1")

    settled = command(folder, "settle", "t1", "search#1", "--db", "a.db", "--not-done")

    assert settled.code == 4
    assert settled.err == "error: step 'search#1' of run t1 is not in doubt; in doubt are: none\n"


def test_code_that_changed_blocks_the_run_with_an_account_of_it(folder: Path) -> None:
    with buy(folder, DIE="1") as process:
        process.end()
    changed = APPLICATION.replace('ctx.call(search, "price")', 'ctx.call(search, "cost")')
    (folder / "changed.py").write_text(changed, encoding="utf-8")

    blocked = command(folder, "resume", "changed.py", "--db", "a.db")
    shown = command(folder, "show", "b1", "--db", "a.db")

    assert blocked.code == 4
    assert "see what does not fit: perdure show b1 --db a.db" in blocked.err
    assert 'recorded arguments: {"query":"price"} | now: {"query":"cost"}' in shown.out
    assert statuses(folder) == {"b1": "blocked"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_good_order_and_says_how_to_come_back(
    folder: Path, number: signal.Signals, code: int
) -> None:
    with buy(folder, HANG="1") as process:
        wait_for(folder / "paying")
        process.signal(number)
        stopping = next(line for line in iter(process.error_line, "") if line.startswith("stopping"))
        (folder / "go").touch()  # the step in flight may end
        stopped = process.end()
    between = statuses(folder)

    resumed = command(folder, "resume", "flows.py", "--db", "a.db")

    assert stopping == "stopping: the step in flight may end within 5 s; Ctrl-C again stops at once\n"
    assert (stopped.code, stopped.out) == (code, "")
    assert stopped.err == "run b1 is in the log; go on with: perdure resume flows.py --db a.db\n"
    assert (between, statuses(folder)) == ({"b1": "suspended"}, {"b1": "completed"})
    assert resumed.code == 0


def test_a_second_signal_stops_at_once_and_nothing_acknowledged_is_lost(folder: Path) -> None:
    with buy(folder, HANG="1") as process:
        wait_for(folder / "paying")
        process.signal(signal.SIGINT)
        while not process.error_line().startswith("stopping"):
            pass
        process.signal(signal.SIGINT)
        stopped = process.end()

    examined = command(folder, "doctor", "a.db")

    assert stopped.code == 130
    assert "stopped at once; what was acknowledged is in the log" in stopped.err
    assert statuses(folder) == {"b1": "interrupted"}
    assert "the lock is stale" in examined.out
    assert command(folder, "verify", "a.db").code == 0


def test_a_second_owner_is_told_the_first_ones_pid_and_exits_with_3(folder: Path) -> None:
    with buy(folder, HANG="1") as process:
        wait_for(folder / "paying")

        refused = command(folder, "run", "flows.py:total", "--db", "a.db")
        settled = command(folder, "settle", "b1", "pay#1", "--db", "a.db", "--not-done")
        running = statuses(folder)
        (folder / "go").touch()
        ended = process.end()

    assert (refused.code, settled.code) == (3, 4)
    assert f"is owned by process {process.pid} on " in refused.err
    assert "step 'pay#1' of run b1 is not in doubt" in settled.err  # the owner was asked
    assert (running, ended.code, ended.out) == ({"b1": "running"}, 0, '"receipt 5"\n')


def test_tail_follows_what_another_process_writes(folder: Path) -> None:
    command(folder, "run", "flows.py:total", "--db", "a.db", "--id", "t1")
    with Process(folder, "tail", "--db", "a.db", "--last", "1", "--type", "run-completed", "--json") as tail:
        first = json.loads(tail.line())

        command(folder, "run", "flows.py:total", "--db", "a.db", "--id", "t2")
        second = json.loads(tail.line())
        tail.signal(signal.SIGINT)
        ended = tail.end()

    assert [first["stream"], second["stream"]] == ["run/t1", "run/t2"]
    assert (ended.code, ended.out, ended.err.strip()) == (0, "", "")


def test_reading_commands_answer_while_an_owner_runs_a_thousand_runs(folder: Path) -> None:
    (folder / "owner.py").write_text(OWNER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "owner.py", "a.db"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        answers = [
            command(folder, *arguments)
            for arguments in (
                ("ps", "--db", "a.db", "--json"),
                ("show", "r3", "--db", "a.db"),
                ("log", "--db", "a.db", "--last", "5"),
                ("tail", "--db", "a.db", "--after", "0", "--count", "2000", "--json"),
                ("verify", "a.db"),
                ("doctor", "a.db"),
            )
        ]
        assert owner.stdout.readline() == "done\n"
        after = command(folder, "ps", "--db", "a.db", "--all", "--json")
        owner.communicate()

    assert [answer.code for answer in answers] == [0] * 6, [answer.err for answer in answers]
    assert f"process {owner.pid} on " in answers[5].out
    assert len(answers[3].out.splitlines()) == 2000
    assert owner.returncode == 0
    assert [json.loads(line)["status"] for line in after.out.splitlines()] == ["completed"] * 1000
    assert command(folder, "verify", "a.db").code == 0


def test_a_reader_that_goes_away_is_no_bug(folder: Path) -> None:
    command(folder, "run", "flows.py:total", "--db", "a.db", "--input", '{"items": 500}')
    with Process(folder, "log", "--db", "a.db", "--json") as process:
        process.line()
        process.close_output()
        ended = process.end()

    assert "Traceback" not in ended.err


def on_a_terminal(folder: Path, *arguments: str, columns: int = 80) -> str:
    """Return what the command writes to a terminal, without its colours."""
    mine, its = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "perdure", *arguments], cwd=folder, env=env, stdin=its, stdout=its, stderr=its
    ):
        os.close(its)
        written = b""
        while chunk := _read(mine):
            written += chunk
    os.close(mine)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(
    "arguments",
    [("ps", "--all", "--db", "a.db"), ("show", "t1", "--db", "a.db"), ("log", "--db", "a.db"), ("doctor", "a.db")],
)
def test_what_stands_on_a_terminal_fits_its_width(folder: Path, arguments: tuple[str, ...]) -> None:
    command(folder, "run", "flows.py:total", "--db", "a.db", "--id", "t1", "--input", '{"items": 4}')
    command(folder, "run", "flows.py:fails", "--db", "a.db")

    text = on_a_terminal(folder, *arguments)

    assert len(text.splitlines()) > 3
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_a_long_id_is_shortened_on_a_narrow_terminal_to_what_show_understands(folder: Path) -> None:
    command(folder, "run", "flows.py:total", "--db", "a.db")
    (run,) = statuses(folder)

    narrow = on_a_terminal(folder, "ps", "--all", "--db", "a.db")
    wide = on_a_terminal(folder, "ps", "--all", "--db", "a.db", columns=140)

    assert narrow.splitlines()[1].split()[0] == f"…{run[-8:]}"
    assert wide.splitlines()[1].split()[0] == run
    assert command(folder, "show", run[-8:], "--db", "a.db").code == 0


def test_a_run_on_a_terminal_shows_its_progress_and_lays_out_its_result(folder: Path) -> None:
    text = on_a_terminal(folder, "run", "flows.py:total", "--db", "a.db", "--id", "t1")

    assert text.splitlines()[0] == "run t1"
    assert text.endswith('{\n  "total": 5\n}\n')
