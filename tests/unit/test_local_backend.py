"""Slots on this machine, beyond what every backend owes: policy, limits, users, what is missing, what is found."""

import asyncio
import os
import platform
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.slots.errors import ResetFailedError, SandboxUnavailableError
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.bubblewrap import BubblewrapJail
from perdure.runtime.sandbox.cgroup import SlotGroups, find_groups
from perdure.runtime.sandbox.emptying import empty, used_bytes
from perdure.runtime.sandbox.limits import SlotLimits
from perdure.runtime.sandbox.local import Bubblewrap, LocalBackend, PlainProcess
from perdure.runtime.sandbox.processes import Process, identify, is_alive, send
from perdure.runtime.sandbox.seccomp import ARCHITECTURES, filter_for
from perdure.store.errors import UsageError
from tests.support.backends import FACTORIES, LIMITS, bash, execution, make_root, need, perform, remove_root, run

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def root() -> Iterator[Path]:
    root = make_root()
    yield root
    remove_root(root)


def with_slot(backend: LocalBackend, scenario: Any) -> Any:
    async def whole() -> Any:
        await backend.start()
        try:
            await backend.acquire("slot_0", 1)
            async with asyncio.timeout(60):
                return await scenario(backend)
        finally:
            await backend.stop()

    return run(whole)


# What is said before anything runs


def test_plain_processes_must_be_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allow_unsandboxed=True"):
        PlainProcess(tmp_path)


def test_a_folder_of_slots_has_one_owner_at_a_time(root: Path) -> None:
    async def scenario() -> None:
        first, second = (PlainProcess(root, allow_unsandboxed=True) for _ in range(2))
        await first.start()
        try:
            with pytest.raises(SandboxUnavailableError, match=f"in use by process {os.getpid()} on "):
                await second.start()
        finally:
            await first.stop()

        await second.start()
        await second.stop()

    run(scenario)


def test_a_folder_that_cannot_be_made_is_named(root: Path) -> None:
    (root / "file").write_text("", encoding="utf-8")

    with pytest.raises(SandboxUnavailableError, match=r"there can be no slots in .*file: File exists"):
        asyncio.run(PlainProcess(root / "file", allow_unsandboxed=True).start())


@pytest.mark.parametrize("max_slots", [0, -1])
def test_a_backend_without_room_for_a_slot_is_refused(max_slots: int) -> None:
    with pytest.raises(UsageError, match=f"max_slots is {max_slots}"):
        Bubblewrap("slots", max_slots=max_slots)


@pytest.mark.parametrize("limit", ["cpu_seconds", "memory_bytes", "processes", "file_bytes", "output_characters"])
def test_a_limit_must_be_positive(limit: str) -> None:
    with pytest.raises(UsageError, match=limit):
        SlotLimits(**{limit: 0})


def test_without_bubblewrap_starting_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))

    with pytest.raises(SandboxUnavailableError, match="apt install bubblewrap"):
        run(Bubblewrap(root).start)


def test_a_bubblewrap_that_does_not_work_is_told_with_what_it_says(root: Path) -> None:
    need("setpriv", "util-linux") if IS_ROOT else None
    broken = root / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n", encoding="ascii")
    broken.chmod(0o755)
    groups = SlotGroups({})
    jail = BubblewrapJail(LIMITS, groups, first_uid=300_000, program=str(broken))

    with pytest.raises(SandboxUnavailableError, match=r"(?s)No permissions.*kernel.unprivileged_userns_clone=1"):
        run(LocalBackend(root / "slots", jail, limits=LIMITS, groups=groups).start)


@pytest.mark.skipif(not IS_ROOT, reason="only as root slots have users of their own")
def test_as_root_slots_and_what_is_lent_may_be_where_others_may_not_pass(root: Path) -> None:
    need("bwrap", "bubblewrap")
    closed = root / "closed"
    closed.mkdir(mode=0o700)
    lent = closed / "lent.txt"
    lent.write_text("lent", encoding="ascii")
    lent.chmod(0o644)
    backend = Bubblewrap(closed / "slots", read_only=[str(lent)], limits=LIMITS)

    result = with_slot(backend, lambda it: bash(it, f"cat {lent}; echo; ls {closed}; echo more > a; echo no > {lent}"))

    assert result.output.splitlines()[:2] == ["lent", "lent.txt"]
    assert (closed / "slots" / "slot_0" / "workspace" / "a").read_text(encoding="ascii") == "more\n"
    assert lent.read_text(encoding="ascii") == "lent"
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not IS_ROOT, reason="only as root slots have users of their own")
def test_without_a_way_there_the_refusal_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("bwrap", "bubblewrap")
    (root / "closed").mkdir(mode=0o700)
    monkeypatch.setattr("perdure.runtime.sandbox.passage.PLACES", ())

    with pytest.raises(SandboxUnavailableError, match=r"chmod o\+x .*closed"):
        run(Bubblewrap(root / "closed" / "slots").start)


def test_a_backend_that_is_not_started_says_so(root: Path) -> None:
    backend = PlainProcess(root, allow_unsandboxed=True)

    with pytest.raises(UsageError, match="start"):
        run(lambda: backend.remove("slot_0"))


# Policy


@pytest.mark.row("A1-63")
@pytest.mark.parametrize(
    ("tool", "policy", "error"),
    [
        ("bash", {"require_sandbox": True}, "Sandboxing required but bubblewrap is unavailable"),
        ("bash_stateful", {"require_stateful_sandbox": True}, "Sandboxing required but bubblewrap is unavailable"),
        ("tmux", {"require_stateful_sandbox": True, "action": "start"}, "Sandboxing required but bubblewrap"),
        ("bash", {"allow_network": False}, "Network isolation requested but bubblewrap is unavailable"),
        ("bash_stateful", {"allow_network": False}, "Network isolation requested but bubblewrap is unavailable"),
    ],
)
def test_a_plain_process_refuses_what_it_cannot_keep(root: Path, tool: str, policy: dict[str, Any], error: str) -> None:
    backend = PlainProcess(root, allow_unsandboxed=True)
    asked = {"tool": tool, **policy} if tool == "tmux" else {"command": "touch ran", "tool": tool, **policy}

    result, files = with_slot(backend, lambda _: perform(backend, execution(**asked), execution("ls")))

    assert (result.success, result.error.startswith(error)) == (False, True)
    assert result.metadata["requires_bwrap"] is True
    assert files.output == ""


@pytest.mark.row("A1-63")
def test_with_no_demands_a_plain_process_runs_and_says_what_it_is(root: Path) -> None:
    result = with_slot(PlainProcess(root, allow_unsandboxed=True), lambda backend: bash(backend, "echo ran"))

    assert (result.output, result.metadata["sandboxed"]) == ("ran", False)


def test_bubblewrap_keeps_every_demand(root: Path) -> None:
    need("bwrap", "bubblewrap")
    demands = {"allow_network": False, "require_sandbox": True, "require_stateful_sandbox": True}

    result = with_slot(Bubblewrap(root, limits=LIMITS), lambda backend: bash(backend, "echo ran", **demands))

    assert result.output == "ran"
    assert result.metadata == {"exit_code": 0, "sandboxed": True, "network_isolated": True}


# The jail


def test_a_command_has_the_standard_folders_and_a_name(root: Path) -> None:
    need("bwrap", "bubblewrap")
    command = (
        "pwd; id -un; echo $HOME; ls -A / | tr '\\n' ' '; for d in . /tmp /run/perdure /dev/shm; do touch $d/f; done"
    )

    result = with_slot(Bubblewrap(root, limits=LIMITS), lambda backend: bash(backend, command))

    assert result.output.splitlines()[:3] == ["/workspace", "slot", "/workspace"]
    seen = set(result.output.splitlines()[3].split())
    assert seen <= {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "workspace",
    }


def test_more_paths_and_variables_can_be_lent(root: Path) -> None:
    need("bwrap", "bubblewrap")
    lent = root / "lent"
    lent.mkdir()
    (lent / "f").write_text("from outside", encoding="ascii")
    backend = Bubblewrap(root / "slots", limits=LIMITS, read_only=[str(lent)], environment={"LENT": "yes"})

    result = with_slot(backend, lambda _: bash(backend, f"echo $LENT; cat {lent}/f; touch {lent}/g || echo refused"))

    assert result.output.startswith("yes\nfrom outsiderefused")


@pytest.mark.skipif(not IS_ROOT, reason="only as root slots have users of their own")
def test_as_root_each_slot_has_its_own_user(root: Path) -> None:
    need("bwrap", "bubblewrap")
    backend = Bubblewrap(root, limits=LIMITS, first_uid=300_000)

    async def scenario(_: Backend) -> list[int]:
        await backend.acquire("slot_7", 1)
        await perform(backend, execution("touch f"), execution("touch f", slot="slot_7"))
        return [(backend.folder(slot).workspace / "f").stat().st_uid for slot in ("slot_0", "slot_7")]

    assert with_slot(backend, scenario) == [300_000, 300_007]


def test_a_release_leaves_a_slot_of_another_application_alone(root: Path) -> None:
    need("bwrap", "bubblewrap")
    ours, theirs = (Bubblewrap(root / name, limits=LIMITS, first_uid=300_000) for name in ("ours", "theirs"))

    async def scenario(_: Backend) -> str:
        await theirs.start()
        await theirs.acquire("slot_0", 1)
        running = asyncio.create_task(bash(theirs, "touch begun; while [ ! -e go ]; do sleep 0.02; done; echo lives"))
        while not (theirs.folder("slot_0").workspace / "begun").exists():  # noqa: ASYNC110 - a command makes it
            await asyncio.sleep(0.01)
        await ours.release("slot_0", 1)
        (theirs.folder("slot_0").workspace / "go").touch()
        result = await running
        await theirs.stop()
        return result.output

    assert with_slot(ours, scenario) == "lives"


def test_nothing_of_the_slots_can_be_listed_by_others(root: Path) -> None:
    need("bwrap", "bubblewrap")
    backend = Bubblewrap(root / "slots", limits=LIMITS)

    with_slot(backend, lambda _: bash(backend, "true"))

    folder = backend.folder("slot_0")
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (root / "slots", folder.path, folder.workspace, folder.calls)
    ]
    assert modes == [0o711, 0o711, 0o700, 0o700]


@pytest.mark.parametrize("kind", sorted(FACTORIES.keys() & {"bubblewrap", "plain"}))
def test_the_limits_of_a_process_bind(root: Path, kind: str) -> None:
    command = "ulimit -Ht; ulimit -Hf; ulimit -Hd; ulimit -Hc"

    async def scenario() -> str:
        async with FACTORIES[kind](root) as backend:
            await backend.acquire("slot_0", 1)
            return (await bash(backend, command)).output

    assert run(scenario).split() == ["60", str(64 * 1024), str(512 * 1024), "0"]


def test_a_busy_command_is_ended_by_its_cpu_time(root: Path) -> None:
    need("bwrap", "bubblewrap")
    backend = Bubblewrap(root, limits=SlotLimits(cpu_seconds=1))

    result = with_slot(backend, lambda _: bash(backend, "while :; do :; done", timeout=50))

    assert (result.success, result.metadata["exit_code"]) == (False, 137)


def test_without_a_control_group_the_limits_of_processes_still_hold(root: Path) -> None:
    need("bwrap", "bubblewrap")
    groups = SlotGroups({})
    backend = LocalBackend(root, BubblewrapJail(LIMITS, groups, first_uid=300_000), limits=LIMITS, groups=groups)

    result = with_slot(backend, lambda _: bash(backend, "head -c 900M /dev/zero | tail >/dev/null"))

    assert not result.success


def test_a_slot_with_a_control_group_is_bounded_as_a_whole(root: Path) -> None:
    need("bwrap", "bubblewrap")
    groups = find_groups()
    if not groups.parents:
        pytest.skip("no control group can be written here")
    backend = Bubblewrap(root, limits=LIMITS)
    one = "head -c 300M /dev/zero | tail -c 250M | { sleep 1; wc -c; }"

    async def scenario(_: Backend) -> list[Any]:
        result = await bash(backend, f"{one} & {one} & {one} & wait", timeout=30)
        name = backend.folder("slot_0").group
        there = groups.find(name)
        await backend.remove("slot_0")
        return [result.output.split().count(str(250 * 1024**2)) < 3, len(there), groups.find(name)]

    assert with_slot(backend, scenario) == [True, len(groups.parents), []]


# The filter


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_every_path_through_the_filter_ends_in_an_answer(machine: str) -> None:
    program = filter_for(machine)
    assert program is not None
    steps = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]

    for number in range(600):
        for architecture in (ARCHITECTURES[machine].audit, 0x40000003):
            for argument in (0, 0x10000000, 0x5412):
                answer = simulate(steps, {0: number, 4: architecture, 16: argument, 24: argument})
                is_denied = number in {*ARCHITECTURES[machine].denied.values(), 435}
                is_clone = number == ARCHITECTURES[machine].clone and argument == 0x10000000
                is_ioctl = number == ARCHITECTURES[machine].ioctl and argument == 0x5412
                is_refused = architecture == 0x40000003 or is_denied or is_clone or is_ioctl
                assert (answer != 0x7FFF0000) is is_refused, (number, hex(architecture), hex(argument))


def simulate(steps: list[tuple[int, ...]], data: dict[int, int]) -> int:
    """The instructions of classic BPF that the filter uses, read from bpf(4) and not from its author."""
    loaded, at = 0, 0
    while True:
        code, yes, no, value = steps[at]
        match code:
            case 0x20:
                loaded, hop = data[value], 0
            case 0x15:
                hop = yes if loaded == value else no
            case 0x35:
                hop = yes if loaded >= value else no
            case 0x45:
                hop = yes if loaded & value else no
            case _:
                return value
        at += 1 + hop


def test_an_unknown_machine_has_no_filter() -> None:
    assert filter_for("pdp11") is None


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="there is no filter for this machine")
def test_commands_run_behind_the_filter(root: Path) -> None:
    need("bwrap", "bubblewrap")

    result = with_slot(
        Bubblewrap(root), lambda backend: bash(backend, "grep -E '^(Seccomp|NoNewPrivs|CapBnd)' /proc/self/status")
    )

    assert result.output.split() == ["CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "Seccomp_filters:", "1"]


# Folders


def test_emptying_names_what_is_left(tmp_path: Path) -> None:
    if not IS_ROOT or shutil.which("chattr") is None:
        pytest.skip("only root can make a file that root cannot delete")
    stuck = tmp_path / "stuck"
    stuck.touch()
    if subprocess.run(["chattr", "+i", str(stuck)], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        left = empty(tmp_path)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)

    assert left is not None
    assert "stuck" in left


def test_a_reset_that_leaves_something_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "perdure.runtime.sandbox.local.empty", lambda path: f"'f' of {path.name} cannot be deleted: busy"
    )

    with pytest.raises(ResetFailedError, match=r"slot_0 could not be reset: .*busy"):
        with_slot(PlainProcess(root, allow_unsandboxed=True), lambda backend: backend.reset("slot_0", 1))


def test_emptying_does_not_follow_links(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "kept").touch()
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(outside)

    assert empty(folder) is None

    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()


def test_what_a_folder_takes_is_counted_once_and_without_links(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    (tmp_path / "again").hardlink_to(tmp_path / "f")
    (tmp_path / "root").symlink_to("/")

    used = used_bytes(tmp_path)

    assert used is not None
    assert 300_000 <= used < 600_000
    assert used_bytes(tmp_path / "missing") in (0, None)


def test_a_missing_folder_is_an_ill_slot(root: Path) -> None:
    backend = PlainProcess(root, allow_unsandboxed=True)

    async def scenario(_: Backend) -> str | None:
        backend.folder("slot_0").tmp.rmdir()
        return await backend.health("slot_0")

    assert with_slot(backend, scenario) == "missing: tmp"


# Processes


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_only_the_very_process_is_signalled() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        known = identify(child.pid)
        assert known is not None
        others = [Process(known.pid, known.started + 1, known.boot), Process(known.pid, known.started, "another boot")]

        assert [send(process, 9) for process in others] == [False, False]
        assert is_alive(known)
        assert send(known, 9)
    finally:
        child.kill()
        child.wait()
    assert not is_alive(known)


def test_control_groups_are_found_in_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "sys" / "user.slice" / "app"
    group.mkdir(parents=True)
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(f"30 24 0:26 / {tmp_path}/sys rw,nosuid - cgroup2 cgroup2 rw\n", encoding="ascii")
    own.write_text("0::/user.slice/app\n", encoding="ascii")
    monkeypatch.setattr("perdure.runtime.sandbox.cgroup.MOUNTS", mounts)
    monkeypatch.setattr("perdure.runtime.sandbox.cgroup.GROUPS", own)
    monkeypatch.setattr("perdure.runtime.sandbox.cgroup._works", lambda _controller, _parent: True)

    version_2 = find_groups()
    mounts.write_text(f"31 24 0:27 /docker/x {tmp_path}/sys rw - cgroup cgroup rw,memory\n", encoding="ascii")
    own.write_text("4:memory:/docker/x/inner\n", encoding="ascii")
    version_1 = find_groups()

    assert version_2.parents == {"unified": f"{group}"}
    assert version_1.parents == {"memory": f"{tmp_path}/sys/inner"}
