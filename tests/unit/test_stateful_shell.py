"""A stateful shell is a process a call: what one call leaves, the next one has, and a call that dies leaves nothing."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import zlib
from collections.abc import Generator
from pathlib import Path

import pytest

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.backend import ExecutionResult
from perdure.runtime.sandbox.jail import Inside
from perdure.runtime.sandbox.local import Bubblewrap, LocalBackend, PlainProcess
from perdure.runtime.sandbox.stateful import MAX_COMMAND_BYTES, STATE_NAME, script
from perdure.store.errors import UsageError
from tests.support.backends import LIMITS, execution, make_root, need, remove_root

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/", "LANG": "C.UTF-8"}


class Shell:
    """Runs commands as a slot would, one after another."""

    def __init__(self, path: Path) -> None:
        self.inside = Inside(workspace=str(path / "workspace"), tmp=str(path / "tmp"), run=str(path / "run"))
        for folder in (self.inside.workspace, self.inside.tmp, self.inside.run):
            Path(folder).mkdir()
        self.state = Path(self.inside.run) / STATE_NAME

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            script(command, self.inside),
            cwd=self.inside.workspace,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        with self.start(command) as process:
            output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    if shutil.which("bash") is None:
        if "CI" in os.environ:
            pytest.fail("bash is missing: .ci/run installs it")
        pytest.skip("bash is not here")
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        ("cd ../tmp", 'basename "$PWD"', "tmp\n"),
        ("plain='a b'", 'echo "[$plain]"; env | grep -c ^plain || true', "[a b]\n0\n"),
        ("export LOUD='a b'", "bash -c 'echo [$LOUD]'", "[a b]\n"),
        ("lines=$'a\\nb'; quote=\\'", 'echo "$lines$quote"', "a\nb'\n"),
        ("list=(1 '2 3'); declare -A map=([k]=v)", 'echo "${list[1]} ${map[k]}"', "2 3 v\n"),
        ("declare -i n=5; declare -n ref=n", "ref+=2; echo $n", "7\n"),
        ("readonly fixed=1", "(fixed=2) 2>/dev/null || echo $fixed", "1\n"),
        ("name=1 code=2 prefix=3 uid=4 option=5", "echo $name $code $prefix $uid $option", "1 2 3 4 5\n"),
        ('greet() { echo "hello $1"; }', "greet you", "hello you\n"),
        ("greet() { echo hi; }; export -f greet", "bash -c greet", "hi\n"),
        ("alias ll='echo listed'", "ll", "listed\n"),
        ("umask 027", "umask", "0027\n"),
        ("umask 777", "umask; umask 022", "0777\n"),
        ("set -o pipefail; shopt -s nullglob", "false | true; echo $? [none*]", "1\n"),
        ("set +B", "echo {a,b}", "{a,b}\n"),
        ("IFS=:; set -f -C", 'echo "$IFS" *', ": *\n"),
        ("PATH=/nowhere", "echo $PATH", "/nowhere\n"),
        ("unset HOME", "echo ${HOME-none}", "none\n"),
        ("cd ../tmp; cd ../run", "cd - >/dev/null; basename $PWD", "tmp\n"),
        ("set -o posix; kept=1", "echo $kept", "1\n"),
        ("shopt -s nocasematch; UID_OF=1 seconds=2", "echo $UID_OF $seconds", "1 2\n"),
        ("shopt -s extglob; f() { echo ${1/#+(a)/x}; }", "f aab", "xb\n"),
    ],
)
@pytest.mark.row("A1-66")
def test_what_a_call_leaves_the_next_one_has(shell: Shell, first: str, then: str, says: str) -> None:
    assert shell.run(first) == (0, "", "")

    assert shell.run(then) == (0, says, "")
    assert shell.run("true")[0] == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 3", 3),
        ("false", 1),
        ("(exit 7)", 7),
        ("set -e; false; exit 0", 1),
        ("f() { exit 5; }; f", 5),
        ("no-such", 127),
    ],
)
def test_a_call_that_fails_has_its_exit_code_and_leaves_its_state(shell: Shell, command: str, code: int) -> None:
    assert shell.run(f"kept=1; {command}")[0] == code

    assert shell.run("set +e; echo $kept") == (0, "1\n", "")


def test_an_option_that_ends_a_shell_holds_in_the_next_call(shell: Shell) -> None:
    shell.run("set -eu")

    assert shell.run("echo a; false; echo b") == (1, "a\n", "")
    code, output, errors = shell.run('echo "$unset"')
    assert (code != 0, output, "unbound variable" in errors) == (True, "", True)
    assert shell.run("set +eu; false; echo c") == (0, "c\n", "")


def test_tracing_traces_the_command_and_nothing_else(shell: Shell) -> None:
    shell.run("set -x")

    assert shell.run("echo a") == (0, "a\n", "++ echo a\n")
    assert shell.run("set +x") == (0, "", "++ set +x\n")


def test_an_error_counts_lines_from_the_commands_first(shell: Shell) -> None:
    _, _, errors = shell.run("true\nno-such-program")

    assert errors == "bash: line 2: no-such-program: command not found\n"


@contextlib.contextmanager
def _heard(number: signal.Signals) -> Generator[None]:
    """Have children hear a signal, also where this process was begun deaf to it, as `nohup` does."""
    former = signal.getsignal(number)
    if former is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        if former is signal.SIG_IGN:
            signal.signal(number, former)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU])
@pytest.mark.parametrize("waiting", ["sh -c 'echo ready; exec sleep 100'", "echo ready; sleep 100 & wait"])
@pytest.mark.row("A1-66")
def test_a_call_that_is_ended_leaves_the_state_of_before(shell: Shell, number: signal.Signals, waiting: str) -> None:
    shell.run("kept=before")

    with _heard(number), shell.start(f"kept=after; cd /; {waiting}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        process.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):  # what runs in the background does not hear SIGINT
        os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == -number
    assert shell.run("echo $kept; basename $PWD") == (0, "before\nworkspace\n", "")


def test_a_call_that_becomes_another_program_leaves_the_state_of_before(shell: Shell) -> None:
    shell.run("kept=before")

    assert shell.run("kept=after; exec echo hi") == (0, "hi\n", "")
    assert shell.run("echo $kept") == (0, "before\n", "")


def test_an_exit_trap_runs_at_the_end_of_its_call(shell: Shell) -> None:
    assert shell.run("kept=1; trap 'echo bye' EXIT") == (0, "bye\n", "")

    assert shell.run("echo $kept") == (0, "1\n", "")


def test_a_directory_that_is_gone_is_replaced_by_the_workspace(shell: Shell) -> None:
    shell.run("mkdir ../tmp/d; cd ../tmp/d; rmdir ../d")

    code, output, errors = shell.run("basename $PWD")

    assert (code, output) == (0, "workspace\n")
    gone = f"{shell.inside.tmp}/d"
    assert errors == f"bash_stateful: {gone} is gone; going on in {shell.inside.workspace}\n"
    assert shell.run("true") == (0, "", "")


@pytest.mark.parametrize("content", ["if then (((", "echo $(", "'", "false", "unset PATH; cd /; ((("])
def test_a_state_that_cannot_be_read_is_dropped_and_said(shell: Shell, content: str) -> None:
    shell.state.write_text(content)

    code, output, errors = shell.run("echo fresh; kept=1")

    assert (code, output) == (0, "fresh\n")
    assert errors.endswith("the state of the shell could not be read and is dropped\n")
    assert shell.run("echo $kept") == (0, "1\n", "")


@pytest.mark.parametrize(
    "rubbish",
    [
        "declare() { echo EVIL; }; printf() { false; }; mv() { false; }; trap() { :; }",
        "alias echo='false' mv='false' eval='false'",
        "PATH=; set -f; IFS=a; shopt -s nullglob failglob",
        "exec >&- 2>&-",
    ],
)
def test_a_shell_that_was_bent_still_keeps_its_state(shell: Shell, rubbish: str) -> None:
    shell.run(f"kept=1; {rubbish}")

    assert shell.state.exists()
    assert shell.run("builtin printf '%s\\n' $kept")[1] == "1\n"


def test_a_state_that_cannot_be_saved_is_said_and_the_one_before_stays(shell: Shell) -> None:
    shell.run("kept=before")

    code, _, errors = shell.run("kept=after; ulimit -f 0; exit 3")

    assert (code, "could not be saved" in errors) == (3, True)
    assert shell.run("echo $kept") == (0, "before\n", "")


def test_a_command_has_no_arguments_and_sees_nothing_of_ours_in_its_environment(shell: Shell) -> None:
    assert shell.run('echo $# "$0"; env | grep -c perdure') == (1, "0 bash\n0\n", "")


def test_a_command_that_is_not_whole_fails_and_the_next_works(shell: Shell) -> None:
    code, _, errors = shell.run('echo "')

    assert (code, "unexpected EOF" in errors) == (2, True)
    assert shell.run("echo a") == (0, "a\n", "")


@pytest.mark.parametrize("command", ["a\0b", "\ud800", "x" * (MAX_COMMAND_BYTES + 1)])
def test_a_command_that_no_shell_can_be_given_is_refused(shell: Shell, command: str) -> None:
    with pytest.raises(UsageError):
        script(command, shell.inside)


def test_the_longest_command_runs(shell: Shell) -> None:
    assert shell.run("echo a #".ljust(MAX_COMMAND_BYTES, "x")) == (0, "a\n", "")


def test_without_bash_it_says_what_is_missing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(SandboxUnavailableError, match="needs bash"):
        script("true", shell.inside)


@pytest.mark.row("A1-66")
@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
def test_in_a_slot_a_shell_keeps_its_directory_and_survives_a_timeout(kind: str, shell: Shell) -> None:
    async def story(backend: LocalBackend) -> list[ExecutionResult]:
        await backend.start()
        try:
            await backend.acquire("slot_0", 1)
            calls = [("cd /tmp; kept=1", 30.0), ("pwd", 30.0), ("cd /; sleep 100", 1.0), ("pwd; echo $kept", 30.0)]
            executions = [
                execution(command, tool="bash_stateful", timeout=seconds, allow_network=True)
                for command, seconds in calls
            ]
            return [result async for result in backend.execute_batch(executions)]
        finally:
            await backend.reset("slot_0", 1)
            await backend.stop()

    if kind == "bubblewrap":
        need("bwrap", "bubblewrap")
    root = make_root()
    try:
        # As root, a slot's user is nobody else's: two tests at once would end each other's processes.
        first_uid = 300_000 + zlib.crc32(bytes(root)) % 1_000_000
        backend = (
            PlainProcess(root, allow_unsandboxed=True)
            if kind == "process"
            else Bubblewrap(root, first_uid=first_uid, limits=LIMITS)
        )
        went, said, slept, then = asyncio.run(story(backend))
    finally:
        remove_root(root)

    assert (went.success, said.success, said.output) == (True, True, "/tmp")  # noqa: S108 - the slot's own
    assert (slept.success, slept.error) == (False, "Command timed out after 1.0s")
    assert (slept.metadata["exit_code"], slept.metadata["timeout"]) == (-1, True)
    assert (then.success, then.output) == (True, "/tmp\n1")  # noqa: S108 - the same
