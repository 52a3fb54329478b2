"""The commands about slots, on a log whose process was killed and on the real folders of its slots."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.cli import Ended, command, wait_for

APPLICATION = """
import asyncio
from perdure import Runtime
from perdure.runtime.sandbox.local import PlainProcess


async def main() -> None:
    async with Runtime("a.db", sandbox=PlainProcess("slots", allow_unsandboxed=True)) as rt:
        await rt.trajectory("t1").write_file("report.txt", "all is well")
        await rt.trajectory("t2").run("true")
        await rt.trajectory("t1").run("echo running >&2; touch begun; sleep 600", uniq_id="u1")


asyncio.run(main())
"""


def killed_while_a_command_runs(folder: Path) -> None:
    """Leave the log of an application behind that was killed when its command had begun."""
    (folder / "app.py").write_text(APPLICATION, encoding="utf-8")
    with subprocess.Popen([sys.executable, "app.py"], cwd=folder) as process:
        wait_for(folder / "slots/slot_0/workspace/begun")
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def on_machine(folder: Path, *arguments: str) -> Ended:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return command(folder, *arguments[:end], "--db", "a.db", "--allow-unsandboxed", *arguments[end:])


def listed(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in command(folder, "slots", "--db", "a.db", "--json").out.splitlines()]


def test_after_a_kill_an_operator_sees_enters_saves_and_empties(tmp_path: Path) -> None:
    killed_while_a_command_runs(tmp_path)
    before = listed(tmp_path)

    got = on_machine(tmp_path, "artifacts", "get", "t1", "report.txt", "-o", "report.txt")
    looked = on_machine(tmp_path, "slots", "exec", "slot_0", "--as-holder", "--", "ls")
    doubt = command(tmp_path, "ps", "--attention", "--db", "a.db", "--json")
    refused = on_machine(tmp_path, "slots", "reset", "slot_0")
    reset = on_machine(tmp_path, "slots", "reset", "slot_0", "--take-away")
    after = listed(tmp_path)

    assert [(one["slot"], one["state"], one["trajectory"]) for one in before] == [
        ("slot_0", "interrupted", "t1"),
        ("slot_1", "acquired", "t2"),
    ]
    assert (got.code, (tmp_path / "report.txt").read_text(encoding="utf-8")) == (0, "all is well")
    assert (looked.code, looked.out) == (0, "begun\nreport.txt\n")
    assert [json.loads(line)["call"] for line in doubt.out.splitlines()] == ["u1"]
    assert (refused.code, reset.code) == (4, 0)
    assert [(one["slot"], one["state"], one["trajectory"]) for one in after] == [
        ("slot_0", "available", None),
        ("slot_1", "acquired", "t2"),
    ]
    assert list((tmp_path / "slots/slot_0/workspace").iterdir()) == []
    assert command(tmp_path, "verify", "a.db").code == 0


def test_nothing_of_the_killed_process_runs_on_after_the_first_command(tmp_path: Path) -> None:
    killed_while_a_command_runs(tmp_path)

    on_machine(tmp_path, "artifacts", "ls", "t2")

    left = [path for path in Path("/proc").glob("[0-9]*/cwd") if _is_within(path, tmp_path)]
    assert left == []


def _is_within(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False  # it has ended, or is somebody else's


def test_slots_whose_folder_is_gone_say_so(tmp_path: Path) -> None:
    killed_while_a_command_runs(tmp_path)
    on_machine(tmp_path, "artifacts", "ls", "t2")
    (tmp_path / "slots").rename(tmp_path / "elsewhere")

    lost = on_machine(tmp_path, "artifacts", "get", "t1", "report.txt")
    found = on_machine(
        tmp_path, "artifacts", "get", "t1", "report.txt", "--machine", f"process:{tmp_path / 'elsewhere'}"
    )

    assert (lost.code, found.code, found.out) == (1, 0, "all is well")
    assert lost.err.startswith(f"error: the slots' folder {tmp_path / 'slots'} is not on this machine")
