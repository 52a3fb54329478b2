"""A slot's terminal, with a real tmux: what is typed, what is seen, what a new life finds, and that all of it ends."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.filetools import Reply
from perdure.runtime.sandbox.jail import Jail, SlotFolder
from perdure.runtime.sandbox.keys import commands, ends_with_enter, key_presses
from perdure.runtime.sandbox.local import Bubblewrap, LocalBackend, PlainProcess
from perdure.runtime.sandbox.multiplexer import CLIENT_NAME
from perdure.runtime.sandbox.processes import is_alive, send
from perdure.runtime.sandbox.terminal import stop_terminal, terminal_processes, tmux
from perdure.runtime.sandbox.transcript import PREFIX, SEGMENT_BYTES, SEGMENTS
from perdure.runtime.threads import WorkerThreads

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


def missing(what: str) -> None:
    if "CI" in os.environ:
        pytest.fail(f"{what} is missing: .ci/run installs it")
    pytest.skip(f"{what} is not here")


class Terminal:
    """The terminal of slot 0, in one life."""

    def __init__(self, backend: LocalBackend, threads: WorkerThreads) -> None:
        self._backend = backend
        self._threads = threads
        self.folder: SlotFolder = backend.folder("slot_0")
        self.jail: Jail = backend._jail

    async def do(self, action: str, *, allow_network: bool = True, **arguments: Any) -> Reply:
        return await tmux(
            self.folder,
            self.jail,
            {"action": action, **arguments},
            allow_network=allow_network,
            timeout_seconds=SECONDS,
            off_loop=self._threads.run,
        )

    async def run(self, line: str) -> str:
        """Type a line, wait for the prompt, and return the screen."""
        reply = await self.do("send_keys", keys=f"{line}\n", block=True)
        assert reply == (True, "", "", {"finished": True, "sandboxed": self.jail.is_sandbox}), reply
        return (await self.do("capture")).output


Story = Callable[[Terminal], Awaitable[None]]
Lives = Callable[[Story], None]


@pytest.fixture(params=["bubblewrap", "process"])
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that slots' users can reach; its name says which jail. Afterwards nothing may be left."""
    for program in ("tmux", "bash"):
        if shutil.which(program) is None:
            missing(program)
    with TemporaryDirectory(prefix="slots-") as top:  # not tmp_path: pytest closes its folders to other users
        Path(top).chmod(0o711)
        made = Path(top) / str(request.param)
        yield made
        backend = backend_at(made)
        folder, jail = backend.folder("slot_0"), backend._jail
        if folder.path.exists():
            stop_terminal(folder, jail)
        assert terminal_processes(folder) == []


def backend_at(root: Path) -> LocalBackend:
    if root.name == "process":
        return PlainProcess(root, allow_unsandboxed=True)
    # As root, a slot's user is nobody else's: two tests at once would end each other's processes.
    return Bubblewrap(root, first_uid=300_000 + zlib.crc32(bytes(root)) % 1_000_000)


@pytest.fixture
def live(root: Path) -> Lives:
    """Tell a story in a life of its own; the terminal outlives it."""

    async def told(story: Story) -> None:
        backend, threads = backend_at(root), WorkerThreads(2)
        try:
            await backend.start()
        except SandboxUnavailableError as error:
            missing(f"a working bubblewrap ({error})")
        await backend.acquire("slot_0", 1)
        try:
            async with asyncio.timeout(SECONDS):
                await story(Terminal(backend, threads))
        finally:
            await backend.stop()
            threads.close()

    def run(story: Story) -> None:
        asyncio.run(told(story))

    return run


def test_a_terminal_runs_what_is_typed_and_shows_it(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        started = await terminal.do("start", pane_width=100, pane_height=30)
        screen = await terminal.run("echo sum $((1 + 1)); tput cols")

        run = terminal.jail.inside(terminal.folder).run
        assert (started.success, started.output) == (True, "Terminal started")
        assert started.metadata == {
            "pane_width": 100,
            "pane_height": 30,
            "socket": f"{run}/terminal.sock",
            "session": "perdure",
            "recording": f"{run}/terminal.log.*",
            "sandboxed": terminal.jail.is_sandbox,
        }
        assert "\nsum 2\n100\n" in screen

    live(story)


def test_before_it_is_started_there_is_none(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        for action in ("send_keys", "capture", "stream"):
            reply = await terminal.do(action, keys="a")
            assert (reply.success, reply.error) == (False, "The terminal is not running: start it first")
        assert (await terminal.do("stop")).success

    live(story)


def test_keys_are_pressed_and_texts_are_typed_as_they_are(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.do("send_keys", keys=["cat >out", "Enter"])
        while not (terminal.folder.workspace / "out").exists():
            await terminal.do("capture")  # what is typed ahead belongs to bash, which would take C-d for its own
        typed = ["-l #{pane_id} $(id) %H;", "Enter", "é", "Enter", "C-d"]
        await terminal.do("send_keys", keys=typed, min_wait_s=0.2)
        screen = await terminal.run("cat out; echo end")

        assert screen.count("-l #{pane_id} $(id) %H;\né\nend") == 1
        assert (terminal.folder.workspace / "out").read_text() == "-l #{pane_id} $(id) %H;\né\n"

    live(story)


def test_a_long_text_arrives_whole(live: Lives) -> None:
    text = "\n".join("0123456789" * 100 for _ in range(30)) + "\n"

    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("stty -echo; PS1=")
        await terminal.do("send_keys", keys="head -n 30 >out\n")
        while not (terminal.folder.workspace / "out").exists():
            await terminal.do("capture")
        await terminal.do("send_keys", keys=text, block=True)

        assert (terminal.folder.workspace / "out").read_text() == text

    live(story)


def test_a_wait_ends_with_its_time_and_the_command_goes_on(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        reply = await terminal.do("send_keys", keys="read line; echo got $line\n", block=True, max_wait_s=0.2)
        await terminal.do("send_keys", keys="it\n", block=True)

        assert (reply.success, reply.metadata["timeout"], reply.metadata["finished"]) == (False, True, False)
        assert "got it" in (await terminal.do("capture")).output

    live(story)


def test_a_wait_is_for_all_that_was_typed(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        screen = await terminal.run("for i in 1 2\ndo\nsleep 0.3\ndone\nsleep 0.3\necho fin''ished")

        assert screen.count("finished") == 1

    live(story)


def test_a_stream_has_each_whole_line_once(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("PS1='> '; clear")
        await terminal.do("stream")
        await terminal.run("printf 'a\\nb\\n\\033[31mred\\033[0m\\nrest'")
        first, again = await terminal.do("stream"), await terminal.do("stream")
        await terminal.run("echo")
        later = await terminal.do("stream")

        assert first.output.endswith("\na\nb\nred\n")
        assert (again.output, again.metadata["truncated"], again.metadata["gap"]) == ("", False, False)
        assert later.output.startswith("rest> echo\n")

    live(story)


def test_a_stream_is_bounded_and_goes_on(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("seq 1 5000")
        text, pieces = "", 0
        while (reply := await terminal.do("stream", max_bytes=4_000)).output:
            assert len(reply.output) <= 4_000
            text, pieces = text + reply.output, pieces + 1

        assert pieces > 5
        assert "\n".join(map(str, range(1, 5001))) in text

    live(story)


def test_what_a_terminal_keeps_is_bounded_and_a_gap_is_said(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.do("stream")
        await terminal.run("seq 1 1000000; echo fin''ished")
        first = await terminal.do("stream")
        second = await terminal.do("stream")
        history = await terminal.do("capture", capture_entire=True, max_bytes=1 << 20)

        kept = sum(path.stat().st_size for path in terminal.folder.run.glob(f"{PREFIX}*"))
        assert kept <= SEGMENTS * SEGMENT_BYTES
        assert (first.metadata["gap"], second.metadata["gap"]) == (True, False)
        assert len(history.output.splitlines()) <= 10_100
        assert history.output.splitlines()[-2] == "finished"

    live(story)


def test_a_terminal_and_its_processes_outlive_a_life_and_are_found(live: Lives) -> None:
    async def first(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("kept=before; echo streamed")
        await terminal.do("stream")
        await terminal.do("send_keys", keys="read line\n", min_wait_s=0.2)

    async def second(terminal: Terminal) -> None:
        again = await terminal.do("start")
        await terminal.do("send_keys", keys="it\n", block=True)
        await terminal.run("echo $kept $line")
        stream = await terminal.do("stream")

        assert again.output == "Terminal already running"
        assert "before it" in (await terminal.do("capture")).output
        assert "before it" in stream.output
        assert "\nstreamed" not in stream.output

    live(first)
    live(second)


def test_a_terminal_outlives_a_kill_of_its_owner(root: Path, live: Lives) -> None:
    ready = root.parent / "ready"
    program = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.wire.test_terminal import Terminal, backend_at
from perdure.runtime.threads import WorkerThreads

async def main():
    backend = backend_at(Path({str(root)!r}))
    await backend.start()
    await backend.acquire("slot_0", 1)
    terminal = Terminal(backend, WorkerThreads(2))
    assert (await terminal.do("start")).success
    await terminal.run("kept=before; sleep 1000 & echo $! >pid")
    Path({str(ready)!r}).touch()
    signal.pause()

asyncio.run(main())
"""

    async def later(terminal: Terminal) -> None:
        await backend_recovers(terminal)
        screen = await terminal.run("kill -0 $(cat pid) && echo $kept alive")
        assert "before alive" in screen
        ours = terminal_processes(terminal.folder)
        await terminal._backend.reset("slot_0", 1)
        assert [each for each in ours if is_alive(each)] == []

    async def backend_recovers(terminal: Terminal) -> None:
        await terminal._backend.recover("slot_0", 1)

    async def nothing(terminal: Terminal) -> None:
        return

    live(nothing)  # skips where there is no jail
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True) as owner:
        while not ready.exists() and owner.poll() is None:
            signal.sigtimedwait([], 0.05)
        os.killpg(owner.pid, signal.SIGKILL)

    assert ready.exists()
    live(later)


def test_stopping_ends_everything_that_was_started_in_it(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("sleep 1000 & (setsid nohup sleep 1000 >/dev/null 2>&1 &) ; trap '' HUP TERM; true")
        ours = terminal_processes(terminal.folder)
        stopped = await terminal.do("stop")

        assert len(ours) >= 4
        assert stopped.output == "Terminal stopped"
        assert [each for each in ours if is_alive(each)] == []
        assert terminal_processes(terminal.folder) == []
        assert (await terminal.do("stop")).output == "There was no terminal"
        assert (await terminal.do("start")).output == "Terminal started"

    live(story)


def test_after_its_shell_has_ended_a_new_one_is_started(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.do("send_keys", keys="exit\n")
        while (await terminal.do("capture")).success:
            pass  # each look takes a while
        started = await terminal.do("start")
        screen = await terminal.run("echo new")

        assert started.output == "Terminal started"
        assert "\nnew\n" in screen

    live(story)


def test_a_dead_server_leaves_a_terminal_that_can_be_started(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        while ours := [each for each in terminal_processes(terminal.folder) if is_alive(each)]:
            for each in ours:
                send(each, signal.SIGKILL)
        reply = await terminal.do("capture")
        started = await terminal.do("start")

        assert (reply.success, reply.error) == (False, "The terminal is not running: start it first")
        assert started.output == "Terminal started"

    live(story)


def test_a_terminal_with_network_is_not_used_once_that_is_forbidden(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        forbidden = await terminal.do("send_keys", keys="a", allow_network=False)
        await terminal.do("stop", allow_network=False)
        started = await terminal.do("start", allow_network=False)

        assert (forbidden.success, "forbidden" in forbidden.error) == (False, True)
        assert started.output == "Terminal started"

    live(story)


def test_a_server_that_never_answers_costs_a_bounded_time(live: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.sandbox.multiplexer.CLIENT_SECONDS", 1)

    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        for each in terminal_processes(terminal.folder):
            send(each, signal.SIGSTOP)
        reply = await terminal.do("capture")

        assert reply.error == "tmux: the terminal did not answer within 1 s"

    live(story)


def test_a_server_that_says_too_much_is_cut(live: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.sandbox.multiplexer.CLIENT_BYTES", 100)

    async def story(terminal: Terminal) -> None:
        await terminal.do("start")
        await terminal.run("seq 1 1000")
        reply = await terminal.do("capture", capture_entire=True)

        assert len(reply.output) <= 100

    live(story)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"action": "dance"}, "unknown action dance"),
        ({"action": "start", "pane_width": 19}, "pane_width is 19"),
        ({"action": "start", "pane_height": 9}, "pane_height is 9"),
        ({"action": "start", "pane_height": "x"}, "pane_height"),
        ({"action": "send_keys", "keys": 5}, "keys"),
        ({"action": "send_keys", "keys": "a\0"}, "NUL"),
        ({"action": "send_keys", "keys": "a" * 70_000}, "longer than"),
        ({"action": "send_keys", "keys": "a", "min_wait_s": -1}, "min_wait_s"),
        ({"action": "stream", "max_bytes": 0}, "max_bytes"),
        ({}, "action"),
    ],
)
def test_arguments_that_cannot_be_are_refused(live: Lives, arguments: dict[str, Any], says: str) -> None:
    async def story(terminal: Terminal) -> None:
        reply = await tmux(
            terminal.folder,
            terminal.jail,
            arguments,
            allow_network=True,
            timeout_seconds=SECONDS,
            off_loop=terminal._threads.run,
        )

        assert (reply.success, says in reply.error) == (False, True)
        assert terminal_processes(terminal.folder) == []

    live(story)


def test_without_tmux_or_libtmux_it_says_what_is_missing(live: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(terminal: Terminal) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("perdure.runtime.sandbox.multiplexer.find_spec", lambda name: None)
            without_libtmux = await terminal.do("start")
        with monkeypatch.context() as patched:
            patched.setattr("perdure.runtime.sandbox.multiplexer.shutil.which", lambda name: None)
            without_tmux = await terminal.do("start")

        assert without_libtmux.error == "the terminal needs libtmux: pip install 'perdure[terminal]'"
        assert without_tmux.error.startswith("the terminal needs tmux")

    live(story)


def test_no_command_of_the_slot_sees_the_script_that_speaks_to_its_server(live: Lives) -> None:
    async def story(terminal: Terminal) -> None:
        await terminal.do("start")

        assert (terminal.folder.calls / CLIENT_NAME).exists()
        if terminal.jail.is_sandbox:
            screen = await terminal.run(f"find /run /tmp /workspace -name {CLIENT_NAME} | wc -l")
            assert screen.splitlines()[-2] == "0"

    live(story)


@pytest.mark.parametrize(
    ("keys", "presses"),
    [
        (["ls\n"], [["-l", "--", "ls"], ["--", "Enter"]]),
        (
            ["C-c", "M-x", "S-F5", "^D", "Escape"],
            [["--", "C-c"], ["--", "M-x"], ["--", "S-F5"], ["--", "^D"], ["--", "Escape"]],
        ),
        (["enter", "C-"], [["-l", "--", "enter"], ["-l", "--", "C-"]]),
        (["a\r\nb"], [["-l", "--", "a"], ["--", "Enter"], ["-l", "--", "b"]]),
    ],
)
def test_texts_and_keys_are_told_apart(keys: list[str], presses: list[list[str]]) -> None:
    assert key_presses(keys) == presses


def test_presses_are_sent_in_messages_that_tmux_takes() -> None:
    presses = key_presses(["é" * 9_000 + ";\n"])
    lines = list(commands(presses, "=s:"))

    assert ends_with_enter(presses)
    assert all(sum(len(word.encode()) + 1 for word in line) <= 8_000 for line in lines)
    typed = [line[at + 1] for line in lines for at, word in enumerate(line) if word == "--"]
    assert "".join(typed) == "é" * 9_000 + "\\;Enter"
