"""The jail that isolates: namespaces made by bubblewrap, a user of its own for each slot, a seccomp filter, limits.

What a command sees: a read-only system (`/usr` and a few files of `/etc`), a private `/proc` and `/dev`, its own
`/tmp`, `/workspace` and `/run/perdure`; no other file, process or variable of the machine. Not a virtual machine: the
kernel is shared. Invariant: the vector is complete in itself, so that everything in a slot runs in the same jail.

One command costs 6 ms where a bare process costs 0.6: bwrap about 3, the network namespace 1, setpriv 1, two shells
0.3 each.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.cgroup import SlotGroups
from perdure.runtime.sandbox.jail import ENVIRONMENT, Inside, SlotFolder, make_folders
from perdure.runtime.sandbox.limits import SlotLimits, shell_limits
from perdure.runtime.sandbox.passage import Passage
from perdure.runtime.sandbox.processes import MARKER, TERMINAL_MARKER, Process, identify, pid_namespace
from perdure.runtime.sandbox.seccomp import filter_for

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LIVE_ETC = ("resolv.conf", "hosts")
"""Bound one by one, since they change while we run. Every bind costs 0.3 ms a command, so the rest is a copy."""
COPIED_ETC = (
    *("host.conf", "nsswitch.conf", "gai.conf", "protocols", "services"),  # names of machines
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates.conf", "crypto-policies"),  # trust
    *("pki/ca-trust/extracted", "pki/tls/certs", "pki/tls/cert.pem"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"),  # where libraries and programs are
    *("localtime", "timezone", "os-release", "mime.types", "magic", "terminfo"),
)
"""All that is seen of `/etc`: what programs need to run, and nothing about people or services of this machine."""

INNER_ID = 1000
"""The user and group that a command sees itself as, in every slot."""
UIDS = range(1_879_048_192, 2_147_352_576)
"""Users that nobody else gives out: above people, services, containers' ranges and those of systemd
(https://systemd.io/UIDS-GIDS: "unused")."""
SLOTS_APART = 1_000
"""Users that one folder of slots gets of them; the last is that of the probe."""
PROBE_SECONDS = 20
JAIL_FOLDER = ".jail"
WITH_NPROC = (5, 14)
"""Since this Linux, RLIMIT_NPROC counts within a user namespace."""


class BubblewrapJail:
    """Runs commands in bubblewrap (0.5 or newer)."""

    def __init__(
        self,
        limits: SlotLimits,
        groups: SlotGroups,
        *,
        first_uid: int,
        read_only: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: str = "bwrap",
    ) -> None:
        self._limits = limits
        self._groups = groups
        self._first_uid = first_uid
        self._read_only = tuple(read_only)
        self._environment = dict(environment or {})
        self._program = program
        self._filter: Path | None = None
        self._etc: Path | None = None
        self._passage = Passage(())

    @property
    def is_sandbox(self) -> bool:
        """Yes."""
        return True

    def inside(self, folder: SlotFolder) -> Inside:  # noqa: ARG002 - the same in every slot
        """Return the paths that a command sees: the same in every slot."""
        return Inside(workspace="/workspace", tmp="/tmp", run="/run/perdure")  # noqa: S108 - a private one

    def uid_of(self, number: int) -> int | None:
        """Return a user of the slot's own when we are root, whom process limits do not bind and who reads any file."""
        return self._first_uid + number if os.geteuid() == 0 else None

    def prepare(self, root: Path) -> None:
        """Write the files that jails share, and run `true` in one.

        Raises:
            SandboxUnavailableError: it did not run; says what is missing.
        """
        if shutil.which(self._program) is None:
            raise SandboxUnavailableError(
                detail=f"{self._program} is not here: install bubblewrap (`apt install bubblewrap`, `dnf install "
                "bubblewrap`, `apk add bubblewrap`), or allow plain processes with PlainProcess(allow_unsandboxed=True)"
            )
        if os.geteuid() == 0 and shutil.which("setpriv") is None:
            raise SandboxUnavailableError(detail="setpriv is not here, which root needs: install util-linux")
        folder = root / JAIL_FOLDER
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            self._passage = Passage([root, *map(Path, self._read_only)])
        self._etc = _copy_etc(folder)
        program = filter_for()
        if program is not None:
            (folder / "seccomp").write_bytes(program)
            self._filter = folder / "seccomp"
        self._probe(root, folder)

    @property
    def has_filter(self) -> bool:
        """Whether commands run behind the seccomp filter: not on architectures whose numbers we do not know."""
        return self._filter is not None

    def wrap(
        self,
        folder: SlotFolder,
        command: Sequence[str],
        *,
        allow_network: bool,
        environment: Mapping[str, str] | None = None,
        outlives_us: bool = False,
        status: Path | None = None,
    ) -> list[str]:
        """Return the argument vector; see `Jail.wrap`."""
        inner = ["/bin/sh", "-c", f'{self._shell_limits}; exec "$@"', "sh", *command]
        jail = [
            self._program,
            *self._namespaces(allow_network=allow_network),
            *([] if outlives_us else ["--die-with-parent"]),
            *([] if self._filter is None else ["--seccomp", "9"]),
            *([] if status is None else ["--json-status-fd", "8"]),
            *self._file_system(folder),
            *self._variables(environment or {}),
            *("--chdir", "/workspace", "--", *inner),
        ]
        return ["/bin/sh", "-c", self._outer(folder, status, outlives_us=outlives_us), "sh", *self._as(folder), *jail]

    def exit_code(self, status: Path) -> int | None:
        """Return what bubblewrap said about the command's end."""
        code = _status(status).get("exit-code")
        return code if isinstance(code, int) else None

    def first_process(self, status: Path) -> Process | None:
        """Return the first process of the command's pid namespace: none of the others outlives it."""
        told = _status(status)
        pid = told.get("child-pid")
        process = identify(pid) if isinstance(pid, int) else None
        namespace = told.get("pid-namespace")
        if process is None or (namespace and pid_namespace(process.pid) != f"pid:[{namespace}]"):
            return None  # it has ended, and the number may be somebody else's by now
        return process

    def _outer(self, folder: SlotFolder, status: Path | None, *, outlives_us: bool) -> str:
        """Return what is done as the user that we are, before the slot's user begins: groups, mark, descriptors."""
        marker = TERMINAL_MARKER if outlives_us else MARKER
        lines = [self._groups.joining(folder.group)]
        lines += ["umask 022", f"{marker}={folder.mark}", f"export {marker}"]
        descriptors = "" if self._filter is None else f" 9<{shlex.quote(str(self._filter))}"
        if status is not None:
            descriptors += f" 8>{shlex.quote(str(status))}"
        return f'{"; ".join(lines)}; exec "$@"{descriptors}'

    def _as(self, folder: SlotFolder) -> list[str]:
        if folder.uid is None:
            return []
        return [*self._passage.enter(), "setpriv", f"--reuid={folder.uid}", f"--regid={folder.uid}", "--clear-groups"]

    def _namespaces(self, *, allow_network: bool) -> list[str]:
        return [
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *([] if allow_network else ["--unshare-net"]),
            *("--uid", str(INNER_ID), "--gid", str(INNER_ID), "--hostname", "slot"),
            *("--new-session", "--cap-drop", "ALL"),
            *(["--disable-userns"] if "--disable-userns" in self._options else []),
        ]

    def _file_system(self, folder: SlotFolder) -> list[str]:
        arguments: list[str] = []
        seen = self._passage.seen
        for path in SYSTEM:
            if Path(path).is_symlink():
                arguments += ["--symlink", str(Path(path).readlink()), path]
            else:
                arguments += ["--ro-bind-try", path, path]
        if self._etc is not None:
            arguments += ["--ro-bind", seen(self._etc), "/etc"]
            for name in LIVE_ETC:
                arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        arguments += ["--proc", "/proc", "--dev", "/dev", *self._shared_memory(folder)]
        arguments += ["--bind", seen(folder.tmp), "/tmp", "--bind", seen(folder.run), "/run/perdure"]  # noqa: S108
        arguments += ["--bind", seen(folder.workspace), "/workspace"]
        for path in self._read_only:  # after /tmp, which would hide what is lent from below it
            arguments += ["--ro-bind", seen(path), path]
        # Both are memory that a command could fill: what it may write to is bound above.
        return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]

    def _shared_memory(self, folder: SlotFolder) -> list[str]:
        """Return how `/dev/shm` is bounded; a bubblewrap that cannot say a size (before 0.7) gets the slot's `/tmp`."""
        if "--size" in self._options:
            return ["--size", str(min(self._limits.memory_bytes // 4, 1 << 30)), "--tmpfs", "/dev/shm"]  # noqa: S108
        return ["--bind", self._passage.seen(folder.tmp), "/dev/shm"]  # noqa: S108

    def _variables(self, more: Mapping[str, str]) -> list[str]:
        variables = {**ENVIRONMENT, "HOME": "/workspace", "TMPDIR": "/tmp", **self._environment, **more}  # noqa: S108
        return ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]

    @cached_property
    def _shell_limits(self) -> str:
        release = tuple(int("0" + "".join(filter(str.isdigit, part))) for part in platform.release().split(".")[:2])
        return shell_limits(self._limits, processes=release >= WITH_NPROC)

    @cached_property
    def _options(self) -> str:
        told = subprocess.run(  # noqa: S603 - the program that was asked for
            [self._program, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False
        )
        return told.stdout.decode(errors="replace") + told.stderr.decode(errors="replace")

    def _probe(self, root: Path, folder: Path) -> None:
        slot = SlotFolder(slot="probe", path=folder / "probe", uid=self.uid_of(SLOTS_APART - 1))
        make_folders(slot)
        try:
            ended = subprocess.run(  # noqa: S603 - the vector that is to be proved
                self.wrap(slot, ["/bin/sh", "-c", ":"], allow_network=False),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_SECONDS,
                check=False,
                env={"PATH": os.environ.get("PATH", ENVIRONMENT["PATH"])},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxUnavailableError(detail=f"bubblewrap could not be started below {root}: {error}") from error
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").strip()
            said = said or f"it ended with {ended.returncode} and said nothing"
            raise SandboxUnavailableError(detail=f"bubblewrap does not work here: {said}. {_advice(said)}")


def uids_of(root: Path) -> int:
    """Return the first user of the slots below *root*: the same in every life, and most likely nobody else's."""
    digest = hashlib.sha256(os.fsencode(root)).digest()
    return UIDS.start + int.from_bytes(digest[:8]) % (len(UIDS) // SLOTS_APART) * SLOTS_APART


def _copy_etc(folder: Path) -> Path:
    """Make the `/etc` of all slots anew: what everybody may read of the list, and one user."""
    etc = folder / "etc"
    new = folder / f"etc.{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name in COPIED_ETC:
        _copy(Path("/etc") / name, new / name)
    for name in LIVE_ETC:
        (new / name).touch()
    (new / "passwd").write_text(
        f"slot:x:{INNER_ID}:{INNER_ID}::/workspace:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
        encoding="ascii",
    )
    (new / "group").write_text(f"slot:x:{INNER_ID}:\nnogroup:x:65534:\n", encoding="ascii")
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(etc, ignore_errors=True)
    return new.rename(etc)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder of `/etc`, links as links, without what only some may read."""
    try:
        is_link, facts = source.is_symlink(), source.lstat()
        if not is_link and not facts.st_mode & 0o004:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_link:
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir()
            for entry in source.iterdir():
                _copy(entry, target / entry.name)
        elif source.is_file():
            shutil.copyfile(source, target)
    except OSError:
        return  # not there, or ours to read: programs that need it say so


def _status(path: Path) -> dict[str, object]:
    """Return what is told in the documents of `--json-status-fd`, one a line; the last may be cut."""
    told: dict[str, object] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return told
    for line in lines:
        try:
            told.update(json.loads(line))
        except ValueError:
            continue
    return told


def _advice(said: str) -> str:
    text = said.lower()
    if "setting up uid map" in text or "no permissions" in text or "namespace" in text or "unshare" in text:
        return (
            "It needs user namespaces: `sysctl kernel.unprivileged_userns_clone=1` (Debian), "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), `user.max_user_namespaces` above 0; "
            "in a container, a profile that allows them (`--security-opt seccomp=unconfined`)"
        )
    if "/proc" in text:
        return "A container that hides parts of /proc allows no new one: run it with an unmasked /proc"
    return "Try `bwrap --unshare-all --ro-bind / / true` by hand"
