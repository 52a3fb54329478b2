"""The commands about slots, files and calls in doubt, called in this process on logs of a machine that a test holds."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import Runtime
from perdure.actors.slots.calls import ToolCall
from perdure.runtime.sandbox.backend import ExecutionResult, Unfinished
from perdure.runtime.sandbox.config import ExecutorConfig
from perdure.runtime.sandbox.lane import execution_id
from perdure.runtime.sandbox.operating import run_in_slot
from perdure.store.reader import LogReader
from perdure.store.records import Query
from tests.support.cli import Here
from tests.support.machine import Machine

AT_ONCE = ExecutorConfig(batch_window_ms=0)


class Slots(Here):
    """The commands, a log, and the machine that they open."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, capsys)
        self.machine = Machine()

    def __call__(self, *arguments: str | Path) -> Any:
        options = ("--db", self.db)
        if "--" not in arguments:
            return super().__call__(*arguments, *options)
        end = arguments.index("--")
        return super().__call__(*arguments[:end], *options, *arguments[end:])

    def life(self, work: Callable[[Runtime], Awaitable[object]]) -> None:
        """Run an application on the log."""
        asyncio.run(asyncio.wait_for(self._life(work), 20))

    async def _life(self, work: Callable[[Runtime], Awaitable[object]]) -> None:
        async with self.runtime() as rt:
            await work(rt)

    @asynccontextmanager
    async def runtime(self) -> AsyncGenerator[Runtime]:
        async with Runtime(self.db, sandbox=self.machine, executor=AT_ONCE) as rt:
            yield rt

    def crash_during(self, trajectory: str, command: str = "hold it", **options: Any) -> None:
        """Leave a log behind in which a call was begun when its process died."""

        async def work(rt: Runtime) -> None:
            await rt.trajectory(trajectory).run("first")
            task = asyncio.create_task(rt.trajectory(trajectory).run(command, uniq_id="u1", **options))
            while len(self.machine.executions) < 2:  # noqa: ASYNC110 - the machine tells of its calls in no other way
                await asyncio.sleep(0)
            await rt.abandon()
            await asyncio.gather(task, return_exceptions=True)

        self.life(work)
        slot = self.machine.executions[-1].slot
        self.machine = Machine()
        self.machine.outcomes[execution_id(trajectory, "u1", 1)] = Unfinished(f"it died with its owner in {slot}")

    def events(self, stream: str) -> list[tuple[str, str | None]]:
        """Return types and principals."""
        with LogReader.open(self.db) as reader:
            return [(event.type, event.principal) for event in reader.read(Query(stream_prefix=stream))]

    def listed(self) -> list[dict[str, Any]]:
        return objects(self("slots", "--json").out)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def slots(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Slots:
    here = Slots(tmp_path, capsys)
    monkeypatch.setattr("perdure.runtime.sandbox.opening.open_backend", lambda *_, **__: here.machine)
    return here


async def hold(rt: Runtime) -> None:
    """Let t1 hold slot-0."""
    await rt.trajectory("t1").run("make")


async def let_go(rt: Runtime) -> None:
    """Let slot-0 keep the files of t1."""
    await hold(rt)
    await rt.trajectory("t1").release()


async def empty(rt: Runtime) -> None:
    """Leave slot-0 free and empty."""
    await hold(rt)
    await rt.trajectory("t1").release(reset_workspace=True)


# Looking


def test_slots_are_listed_with_who_holds_them_and_why_they_are_not_given(slots: Slots) -> None:
    async def work(rt: Runtime) -> None:
        for name in ("t1", "t2", "t3"):
            await rt.trajectory(name).run("make")
        await rt.trajectory("t2").release()
        rt.executor.pool.quarantine("slot-2", "disk full", principal="ada")

    slots.life(work)

    listed = slots.listed()

    assert [(one["slot"], one["state"], one["trajectory"], one["lease"]) for one in listed] == [
        ("slot-0", "acquired", "t1", 1),
        ("slot-1", "available", None, 1),
        ("slot-2", "error", None, 1),
    ]
    assert [(one["executions"], one["keeps_files_of"], one["error"]) for one in listed] == [
        (1, None, None),
        (1, "t2", None),
        (1, None, "disk full"),
    ]
    assert {one["machine"] for one in listed} == {"machine:test"}


def test_the_table_leaves_out_columns_in_which_nothing_stands(slots: Slots) -> None:
    slots.life(hold)

    head, row = slots("slots").out.splitlines()

    assert head.split() == ["SLOT", "STATE", "TRAJECTORY", "SINCE", "LEASE", "CALLS"]
    assert row.split()[:3] == ["slot-0", "acquired", "t1"]


def test_what_runs_is_told_beside_its_owner(slots: Slots) -> None:
    async def work(rt: Runtime) -> None:
        task = asyncio.create_task(rt.trajectory("t1").run("hold it"))
        while not slots.machine.executions:  # noqa: ASYNC110 - the machine tells of its calls in no other way
            await asyncio.sleep(0)
        listed.extend(await asyncio.to_thread(slots.listed))
        slots.machine.hold("it").set()
        await task

    listed: list[dict[str, Any]] = []
    slots.life(work)

    assert [(one["state"], one["runs"]) for one in listed] == [("executing", "bash: hold it")]


def test_a_command_whose_process_died_does_not_run(slots: Slots) -> None:
    slots.crash_during("t1")

    listed = slots.listed()

    assert [(one["state"], one["call"], one["runs"]) for one in listed] == [("interrupted", "u1", "bash: hold it")]


def test_a_log_without_slots_says_so(slots: Slots) -> None:
    slots.run("total")

    ended = slots("slots")

    assert (ended.code, ended.out) == (0, "")
    assert "no slots" in ended.err


def test_the_history_of_a_slot_tells_who_had_it_and_why_it_was_lost(slots: Slots) -> None:
    slots.life(let_go)
    slots("slots", "quarantine", "slot-0", "--because", "it smells", "--who", "ada")
    slots("slots", "reset", "slot-0", "--who", "bob")

    turns = objects(slots("slots", "history", "slot-0", "--json").out)

    assert [(turn["type"], turn["trajectory"], turn["principal"], turn["reason"]) for turn in turns] == [
        ("slot-created", None, None, None),
        ("slot-acquired", "t1", None, None),
        ("slot-release-begun", None, None, "released"),
        ("slot-released", None, None, None),
        ("slot-quarantined", None, "ada", "it smells"),
        ("slot-reset", None, "bob", None),
    ]
    assert [turn["calls"] for turn in turns] == [None, None, None, 1, None, None]


@pytest.mark.parametrize(
    "arguments",
    [
        ("slots", "history", "slot-7"),
        ("slots", "reset", "slot-7"),
        ("slots", "quarantine", "slot-7", "--because", "x"),
        ("slots", "exec", "slot-7", "--", "ls"),
    ],
)
def test_a_slot_that_is_not_there_is_a_typing_error(slots: Slots, arguments: tuple[str, ...]) -> None:
    slots.life(hold)

    ended = slots(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: this log has no slot 'slot-7'; it has: slot-0\n"


# Quarantine and reset


def test_a_quarantine_needs_no_machine_and_takes_the_slot_from_its_holder(slots: Slots) -> None:
    slots.life(hold)
    slots.machine = Machine()

    ended = slots("slots", "quarantine", "slot-0", "--because", "it smells", "--who", "ada")
    told = slots.machine.is_started
    slots.life(hold)

    assert (ended.code, told) == (0, False)
    assert ended.out == "slot-0 is quarantined and taken from trajectory t1, by ada: it smells\n"
    assert [(one["slot"], one["state"], one["trajectory"]) for one in slots.listed()] == [
        ("slot-0", "error", None),
        ("slot-1", "acquired", "t1"),
    ]


def test_a_reset_empties_a_quarantined_slot_and_gives_it_back(slots: Slots) -> None:
    slots.life(hold)
    slots("slots", "quarantine", "slot-0", "--because", "it smells")

    ended = slots("slots", "reset", "slot-0", "--who", "ada")

    assert (ended.code, ended.out) == (0, "slot-0 is empty and free again\n")
    assert slots.machine.resets == ["slot-0"]
    assert ("slot-reset", "ada") in slots.events("slot/")
    assert slots.listed()[0]["state"] == "available"


def test_a_reset_of_a_held_slot_is_refused_and_touches_nothing(slots: Slots) -> None:
    slots.life(hold)

    ended = slots("slots", "reset", "slot-0")

    assert ended.code == 4
    assert "trajectory t1 holds it: --take-away" in ended.err
    assert slots.machine.resets == []
    assert slots.listed()[0]["trajectory"] == "t1"


def test_a_slot_is_taken_away_from_its_holder_where_that_is_said(slots: Slots) -> None:
    slots.life(hold)

    ended = slots("slots", "reset", "slot-0", "--take-away", "--who", "ada")

    assert (ended.code, ended.out) == (0, "slot-0 is empty and free again; trajectory t1 has lost it\n")
    assert slots.machine.resets == ["slot-0"]
    assert ("slot-release-begun", "ada") in slots.events("slot/")
    assert [(one["state"], one["trajectory"]) for one in slots.listed()] == [("available", None)]


def test_taking_a_slot_away_finds_out_first_what_became_of_its_calls(slots: Slots) -> None:
    slots.crash_during("t1")

    slots("slots", "reset", "slot-0", "--take-away")
    slots.machine = Machine()  # what was known of the call is deleted
    slots.life(hold)

    assert slots.machine.order == ["make"]
    assert "execution-in-doubt" in [tag for tag, _ in slots.events("trajectory/t1")]


def test_a_slot_that_cannot_be_emptied_is_quarantined_and_says_why(slots: Slots) -> None:
    slots.life(empty)
    slots.machine.refuses_reset.add("slot-0")

    ended = slots("slots", "reset", "slot-0")

    assert ended.code == 4
    assert "busy" in ended.err.splitlines()[-1]
    assert [(one["state"], one["error"]) for one in slots.listed()] == [("error", "reset failed: busy")]


# exec


def test_a_command_in_a_free_slot_is_recorded_and_leaves_nothing(slots: Slots) -> None:
    slots.life(empty)
    slots.machine = Machine()

    ended = slots("slots", "exec", "slot-0", "--who", "ada", "--", "ls", "-la", "a b")

    assert (ended.code, ended.out) == (0, "ls -la 'a b'\n")
    assert slots.machine.acquired == [("slot-0", 2)]
    assert slots.machine.resets == ["slot-0"]
    assert ("execution-requested", "ada") in slots.events("trajectory/operator:slot-0")
    assert [(one["state"], one["keeps_files_of"]) for one in slots.listed()] == [("available", None)]


def test_one_word_is_a_whole_line_for_the_shell(slots: Slots) -> None:
    slots.life(empty)

    ended = slots("slots", "exec", "slot-0", "--", "du -s * | sort")

    assert ended.out == "du -s * | sort\n"


@pytest.mark.parametrize("life", [hold, let_go])
def test_a_slot_with_files_of_a_trajectory_is_not_entered_unasked(
    slots: Slots, life: Callable[[Runtime], Awaitable[None]]
) -> None:
    slots.life(life)
    slots.machine = Machine()

    ended = slots("slots", "exec", "slot-0", "--", "ls")

    assert ended.code == 4
    assert "trajectory t1: --as-holder" in ended.err or "trajectory t1 holds it: --as-holder" in ended.err
    assert slots.machine.executions == []


def test_a_command_as_the_holder_is_a_call_of_its_trajectory(slots: Slots) -> None:
    slots.life(hold)
    slots.machine = Machine()

    ended = slots("slots", "exec", "slot-0", "--as-holder", "--who", "ada", "--json", "--", "ls")

    (said,) = objects(ended.out)
    assert (said["trajectory"], said["output"], said["exit_code"]) == ("t1", "ls", 0)
    assert said["call"].startswith("operator-")
    assert slots.machine.resets == []
    assert slots.events("trajectory/t1")[-2:] == [("execution-requested", "ada"), ("execution-completed", None)]
    assert slots.listed()[0]["trajectory"] == "t1"


def test_a_command_among_kept_files_leaves_them_kept(slots: Slots) -> None:
    slots.life(let_go)
    slots.machine = Machine()

    ended = slots("slots", "exec", "slot-0", "--as-holder", "--", "ls")

    assert ended.code == 0
    assert slots.machine.resets == []
    assert [(one["state"], one["keeps_files_of"]) for one in slots.listed()] == [("available", "t1")]


def test_a_quarantined_slot_is_not_entered(slots: Slots) -> None:
    slots.life(hold)
    slots("slots", "quarantine", "slot-0", "--because", "it smells")

    ended = slots("slots", "exec", "slot-0", "--as-holder", "--", "ls")

    assert ended.code == 4
    assert ended.err.endswith("it is error, it smells: perdure slots reset slot-0\n")


def test_an_operators_command_runs_no_interrupted_call_again(slots: Slots) -> None:
    slots.crash_during("t1", effect="idempotent")

    slots("slots", "exec", "slot-0", "--as-holder", "--", "ls")
    between = list(slots.machine.order)
    slots.machine.hold("it").set()
    slots.life(hold)

    assert between == ["ls"]
    assert slots.machine.order == ["ls", "hold it", "make"]


def test_a_command_that_fails_says_how_and_exits_so(slots: Slots) -> None:
    slots.life(hold)

    ended = slots("slots", "exec", "slot-0", "--as-holder", "--", "fail Exit code: 7")

    assert (ended.code, ended.err) == (4, "Exit code: 7\n")


@pytest.mark.parametrize(("option", "expected"), [((), False), (("--network",), True)])
def test_a_command_has_no_network_unless_that_is_said(slots: Slots, option: tuple[str, ...], expected: bool) -> None:
    slots.life(hold)
    slots.machine = Machine()

    slots("slots", "exec", "slot-0", "--as-holder", *option, "--", "ls")

    assert [one.arguments["allow_network"] for one in slots.machine.executions] == [expected]


# Calls in doubt


def in_doubt(slots: Slots) -> None:
    """Leave a call of t1 in doubt behind."""
    slots.crash_during("t1")
    slots.life(hold)


def test_attention_lists_calls_in_doubt(slots: Slots) -> None:
    in_doubt(slots)

    (doubt,) = objects(slots("ps", "--attention", "--json").out)
    text = slots("ps", "--attention")

    assert (doubt["trajectory"], doubt["call"], doubt["what"]) == ("t1", "u1", "bash: hold it")
    assert (doubt["status"], doubt["reason"]) == ("in doubt", "it died with its owner in slot-0")
    assert "perdure settle --trajectory ID CALL" in text.err
    assert text.out.splitlines()[1].startswith("u1    t1")


@pytest.mark.parametrize(
    ("verdict", "success", "output"),
    [(("--done", "paid"), True, "paid"), (("--failed", "not paid"), False, "not paid")],
)
def test_a_call_in_doubt_is_settled_by_a_person(
    slots: Slots, verdict: tuple[str, ...], success: bool, output: str
) -> None:
    in_doubt(slots)

    ended = slots("settle", "--trajectory", "t1", "u1", *verdict, "--because", "I asked the bank", "--who", "ada")
    results = []

    async def ask_again(rt: Runtime) -> None:
        results.append(await rt.trajectory("t1").run("hold it", uniq_id="u1"))

    slots.life(ask_again)

    assert ended.code == 0
    assert ended.out.endswith(", by ada: I asked the bank\n")
    assert [(result.success, result.output) for result in results] == [(success, output)]
    assert ("execution-settled", "ada") in slots.events("trajectory/t1")
    assert slots("ps", "--attention", "--json").out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--trajectory", "t1", "u1", "--done", "x"), 2, "say how you know, --because TEXT"),
        (("--trajectory", "t1", "u1", "--not-done", "--because", "x"), 2, "is not made again by itself"),
        (("--trajectory", "t1", "u2", "--done", "x", "--because", "x"), 4, "is not in doubt; in doubt are: u1"),
        (("--trajectory", "t9", "u1", "--done", "x", "--because", "x"), 2, "no trajectory 't9'; it has: t1"),
        (("--trajectory", "t1", "u1", "x", "--done", "x", "--because", "x"), 2, "name one call"),
        (("u1", "--done", "x"), 2, "name a RUN and a STEP, or --trajectory ID and a UNIQ_ID"),
        (("r1", "s1", "--done", "1", "--because", "x"), 2, "--because is of calls"),
    ],
)
def test_a_verdict_that_cannot_be_says_what_to_say(
    slots: Slots, arguments: tuple[str, ...], code: int, message: str
) -> None:
    in_doubt(slots)

    ended = slots("settle", *arguments)

    assert ended.code == code
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


# Files

CONTENT = b"report \x1b[31m\n"


def readable(slots: Slots, **more: Any) -> None:
    slots.machine.artifact = {
        "success": True,
        "content": base64.b64encode(CONTENT).decode(),
        "encoding": "base64",
        "bytes": len(CONTENT),
        "file_size": len(CONTENT),
        "path": "report.txt",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        **more,
    }


def test_a_file_is_printed_as_it_is_and_recorded_by_hash(slots: Slots) -> None:
    slots.life(hold)
    readable(slots)

    ended = slots("artifacts", "get", "t1", "report.txt")
    (file,) = objects(slots("artifacts", "log", "t1", "--json").out)

    assert (ended.code, ended.out) == (0, CONTENT.decode())
    assert (file["direction"], file["path"], file["bytes"]) == ("out", "report.txt", len(CONTENT))
    assert file["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_written_and_never_over_another_unasked(slots: Slots) -> None:
    slots.life(hold)
    readable(slots)
    target = slots.folder / "out.txt"

    first = slots("artifacts", "get", "t1", "report.txt", "-o", target)
    again = slots("artifacts", "get", "t1", "report.txt", "-o", target)
    target.write_bytes(b"old")
    forced = slots("artifacts", "get", "t1", "report.txt", "-o", target, "--force")

    assert [first.code, again.code, forced.code] == [0, 2, 0]
    assert again.err == f"error: {target} is there already: --force overwrites it\n"
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("end", ["", "-wal", "-shm", ".lock"])
def test_the_log_is_never_written_over(slots: Slots, end: str) -> None:
    slots.life(hold)
    readable(slots)

    ended = slots("artifacts", "get", "t1", "report.txt", "-o", f"{slots.db}{end}", "--force")

    assert ended.code == 2
    assert "is the log's own" in ended.err
    assert slots.listed() != []


def test_a_file_that_is_only_part_of_it_is_refused(slots: Slots) -> None:
    slots.life(hold)
    readable(slots, truncated=True, file_size=9_000_000)

    ended = slots("artifacts", "get", "t1", "report.txt")

    assert (ended.code, ended.out) == (2, "")
    assert "has 9,000,000 bytes, and 13 can be had at once" in ended.err


def test_a_file_that_is_not_there_is_one_line(slots: Slots) -> None:
    slots.life(hold)
    slots.machine.artifact = {"success": False, "error": "Not found: nope.txt"}

    ended = slots("artifacts", "get", "t1", "nope.txt")

    assert (ended.code, ended.err) == (2, "error: nope.txt: Not found: nope.txt\n")


def test_files_are_listed(slots: Slots) -> None:
    slots.life(hold)
    entries = [
        {"path": "src", "is_dir": True, "size": 0, "mtime": 0.0},
        {"path": "a.txt", "is_dir": False, "size": 2048, "mtime": 1.5},
    ]
    slots.machine.artifact = {"success": True, "entries": entries, "truncated": True}

    text = slots("artifacts", "ls", "t1", "-r")
    listed = objects(slots("artifacts", "ls", "t1", "--json").out)

    assert [line.split()[-1] for line in text.out.splitlines()] == ["PATH", "src/", "a.txt"]
    assert text.out.splitlines()[2].startswith("2.0 KiB")
    assert "only the first 2" in text.err
    assert [(entry["path"], entry["is_dir"], entry["size"]) for entry in listed] == [
        ("src", True, 0),
        ("a.txt", False, 2048),
    ]


def test_an_archive_is_written_with_its_hash(slots: Slots) -> None:
    slots.life(hold)
    readable(slots, format="tar.gz", entry_count=1)
    target = slots.folder / "all.tar.gz"

    ended = slots("artifacts", "archive", "t1", "-o", target)

    assert ended.code == 0
    assert hashlib.sha256(CONTENT).hexdigest() in ended.err
    assert target.read_bytes() == CONTENT
    assert "archive" in slots("artifacts", "log", "t1").out


@pytest.mark.parametrize(
    ("life", "message"),
    [(let_go, "slot-0 keeps its files: perdure slots exec slot-0 --as-holder"), (empty, "its files are gone")],
)
def test_a_trajectory_without_a_slot_says_where_its_files_are(
    slots: Slots, life: Callable[[Runtime], Awaitable[None]], message: str
) -> None:
    slots.life(life)

    ended = slots("artifacts", "ls", "t1")

    assert ended.code == 2
    assert message in ended.err


# Which machine


@pytest.fixture
def real(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """The commands, with the machines that there really are."""
    monkeypatch.undo()
    return slots


def lived_on(slots: Slots, *addresses: str) -> None:
    for number, address in enumerate(addresses):
        slots.machine.address = address

        async def work(rt: Runtime, number: int = number) -> None:
            await rt.trajectory(f"t{number}").run("make")

        slots.life(work)


@pytest.mark.parametrize(
    ("addresses", "options", "code", "message"),
    [
        (("",), (), 2, "the log does not say where its slots are: --machine bubblewrap:/path"),
        (("process:/nope",), (), 2, "which nothing isolates: say --allow-unsandboxed"),
        (("process:/nope",), ("--allow-unsandboxed",), 1, "the slots' folder /nope is not on this machine: run this"),
        (("bubblewrap:/nope",), (), 1, "the slots' folder /nope is not on this machine: run this where it is"),
        (("machine:test",), (), 2, "'machine:test' is not a machine: bubblewrap:/path, process:/path or the URL"),
        (("http://127.0.0.1:9",), (), 1, "127.0.0.1:9"),
        (("bubblewrap:/a", "bubblewrap:/b"), (), 2, "were on several machines, say --machine: bubblewrap:/a, bubble"),
        (("bubblewrap:/a", ""), ("--machine", "bubblewrap:/c"), 1, "the slots' folder /c is not on this machine"),
    ],
)
def test_a_machine_that_cannot_be_used_says_what_to_do(
    real: Slots, addresses: tuple[str, ...], options: tuple[str, ...], code: int, message: str
) -> None:
    lived_on(real, *addresses)

    ended = real("slots", "reset", "slot-0", *options)

    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (("slots", "exec", "slot-0", "--as-holder", "--", "ls"), "rt.trajectory(ID).run('ls')"),
        (("artifacts", "ls", "t1"), "await rt.trajectory('t1').list_files('.')"),
        (("artifacts", "get", "t1", "a"), "await rt.trajectory('t1').read_file('a')"),
        (("artifacts", "archive", "t1"), "await rt.trajectory('t1').archive('.')"),
    ],
)
def test_beside_an_owner_commands_that_need_the_machine_fail(
    slots: Slots, arguments: tuple[str, ...], how: str
) -> None:
    async def work(rt: Runtime) -> None:
        await hold(rt)
        ended.append(await asyncio.to_thread(slots, *arguments))
        ended.append(await asyncio.to_thread(slots, "artifacts", "log", "t1"))

    ended: list[Any] = []
    slots.life(work)

    refused, read = ended
    assert (refused.code, read.code) == (3, 0)
    assert how in refused.err
    assert len(refused.err.splitlines()) == 1


def test_a_running_owner_is_asked_to_quarantine_and_to_reset(slots: Slots) -> None:
    async def work(rt: Runtime) -> None:
        await hold(rt)
        words = (
            ("reset", "slot-0"), ("quarantine", "slot-0", "--because", "x", "--who", "ada"), ("reset", "slot-0"),
        )  # fmt: skip
        ended.extend([await asyncio.to_thread(slots, "slots", *each) for each in words])

    ended: list[Any] = []
    slots.life(work)

    assert [one.code for one in ended] == [4, 0, 0]
    assert "--take-away ends its lease" in ended[0].err
    assert "slot-0 is quarantined and taken from trajectory t1, by ada: x" in ended[1].out
    assert ended[2].out == "slot-0 is empty and free again\n"


def test_a_runtime_that_does_not_resume_runs_no_call_again_until_it_is_told(slots: Slots) -> None:
    slots.crash_during("t1", effect="idempotent")
    slots.machine.hold("it").set()
    seen: list[list[str]] = []

    async def life() -> None:
        async with Runtime(slots.db, sandbox=slots.machine, executor=AT_ONCE, resume=False) as rt:
            await rt.trajectory("t2").run("other")
            seen.append(list(slots.machine.order))
            await rt.resume()
            await rt.trajectory("t1").run("next")
            seen.append(list(slots.machine.order))

    asyncio.run(life())

    assert seen == [["other"], ["other", "hold it", "next"]]


def test_a_call_held_back_runs_when_it_is_made_again(slots: Slots) -> None:
    slots.crash_during("t1", effect="idempotent")
    slots.machine.hold("it").set()
    results: list[Any] = []

    async def life() -> None:
        async with Runtime(slots.db, sandbox=slots.machine, executor=AT_ONCE, resume=False) as rt:
            results.append(await rt.trajectory("t1").run("hold it", uniq_id="u1"))

    asyncio.run(life())

    assert [(result.success, result.output) for result in results] == [(True, "hold it")]
    assert slots.machine.order == ["hold it"]


def test_a_result_that_the_machine_kept_is_recovered_by_any_command(slots: Slots) -> None:
    slots.crash_during("t1")
    uid = execution_id("t1", "u1", 1)
    slots.machine.outcomes[uid] = ExecutionResult(execution_id=uid, success=True, output="kept")

    slots("artifacts", "ls", "t1")

    assert slots.events("trajectory/t1")[-1][0] == "execution-completed"
    assert slots("ps", "--attention", "--json").out == ""


def test_an_operators_command_that_is_given_up_leaves_nothing_to_settle(slots: Slots) -> None:
    slots.life(hold)
    call = ToolCall("bash", {"command": "hold it"}, "", "op-1")

    async def give_up(rt: Runtime) -> None:
        task = asyncio.create_task(run_in_slot(rt.executor, "slot-0", call, who="ada", as_holder=True))
        while len(slots.machine.executions) < 2:  # noqa: ASYNC110 - the machine tells of its calls in no other way
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    slots.life(give_up)

    assert slots.events("trajectory/t1")[-1][0] == "execution-cancelled"
    assert slots.listed()[0]["state"] == "acquired"
