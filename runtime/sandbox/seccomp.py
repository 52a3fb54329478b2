"""A second wall behind the namespaces: a seccomp filter that refuses the system calls no command in a slot needs.

A deny-list, written as classic BPF and given to bubblewrap (`--seccomp FD`). What it refuses is either part of an
escape from containers in the past or changes the machine. Invariant: everything not named here is allowed, so a filter
never breaks a program that an ordinary user could run, but for `unshare`, `clone(CLONE_NEWUSER)` and `io_uring`.

Sources: seccomp(2); the default profile of moby; the deny-list of flatpak.
"""

import platform
import struct
from typing import Final

import msgspec

# classic BPF (linux/bpf_common.h) and struct seccomp_data (linux/seccomp.h)
LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER_EQUAL: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24
ALLOW: Final = 0x7FFF0000
EPERM: Final = 0x00050001
ENOSYS: Final = 0x00050026  # glibc falls back from clone3 to clone on it, whose flags a filter can see
X32: Final = 0x40000000
CLONE_NEWUSER: Final = 0x10000000
TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: they type into a terminal on behalf of whoever sits there."""


class Architecture(msgspec.Struct, frozen=True):
    """What the numbers of system calls depend on."""

    audit: int
    clone: int
    ioctl: int
    denied: dict[str, int]


# The calls that came after 2019 have one number everywhere.
NEWER = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
CLONE3: Final = 435

X86_64 = Architecture(
    audit=0xC000003E,
    clone=56,
    ioctl=16,
    denied={
        "acct": 163,
        "add_key": 248,
        "adjtimex": 159,
        "bpf": 321,
        "chroot": 161,
        "clock_adjtime": 305,
        "clock_settime": 227,
        "delete_module": 176,
        "finit_module": 313,
        "init_module": 175,
        "ioperm": 173,
        "iopl": 172,
        "kexec_file_load": 320,
        "kexec_load": 246,
        "keyctl": 250,
        "lookup_dcookie": 212,
        "mount": 165,
        "open_by_handle_at": 304,
        "perf_event_open": 298,
        "pivot_root": 155,
        "quotactl": 179,
        "reboot": 169,
        "request_key": 249,
        "setdomainname": 171,
        "sethostname": 170,
        "setns": 308,
        "settimeofday": 164,
        "swapoff": 168,
        "swapon": 167,
        "syslog": 103,
        "umount2": 166,
        "unshare": 272,
        "uselib": 134,
        "userfaultfd": 323,
        "vhangup": 153,
        **NEWER,
    },
)
AARCH64 = Architecture(
    audit=0xC00000B7,
    clone=220,
    ioctl=29,
    denied={
        "acct": 89,
        "add_key": 217,
        "adjtimex": 171,
        "bpf": 280,
        "chroot": 51,
        "clock_adjtime": 266,
        "clock_settime": 112,
        "delete_module": 106,
        "finit_module": 273,
        "init_module": 105,
        "kexec_file_load": 294,
        "kexec_load": 104,
        "keyctl": 219,
        "lookup_dcookie": 18,
        "mount": 40,
        "open_by_handle_at": 265,
        "perf_event_open": 241,
        "pivot_root": 41,
        "quotactl": 60,
        "reboot": 142,
        "request_key": 218,
        "setdomainname": 162,
        "sethostname": 161,
        "setns": 268,
        "settimeofday": 170,
        "swapoff": 225,
        "swapon": 224,
        "syslog": 116,
        "umount2": 39,
        "unshare": 97,
        "userfaultfd": 282,
        "vhangup": 58,
        **NEWER,
    },
)
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64}


def filter_for(machine: str | None = None) -> bytes | None:
    """Return the filter for an architecture (None: of this machine), or None where its numbers are not known here."""
    machine = platform.machine() if machine is None else machine
    architecture = ARCHITECTURES.get(machine)
    return None if architecture is None else _assemble(architecture)


def _assemble(architecture: Architecture) -> bytes:
    """Write the program: each test jumps over its own return, so that no jump is longer than one."""
    program = [
        _load(ARCHITECTURE),
        _jump(JUMP_EQUAL, architecture.audit, yes=1, no=0),
        _return(ENOSYS),  # a program for another architecture (32 bit) has other numbers: none at all
        _load(NUMBER),
    ]
    if architecture is X86_64:
        program += [_jump(JUMP_GREATER_EQUAL, X32, yes=0, no=1), _return(ENOSYS)]
    for number in sorted(architecture.denied.values()):
        program += [_jump(JUMP_EQUAL, number, yes=0, no=1), _return(EPERM)]
    program += [_jump(JUMP_EQUAL, CLONE3, yes=0, no=1), _return(ENOSYS)]
    program += [
        _jump(JUMP_EQUAL, architecture.clone, yes=0, no=4),
        _load(FIRST_ARGUMENT),
        _jump(JUMP_ANY_BIT, CLONE_NEWUSER, yes=0, no=1),
        _return(EPERM),
        _return(ALLOW),
    ]
    program += [_jump(JUMP_EQUAL, architecture.ioctl, yes=1, no=0), _return(ALLOW), _load(SECOND_ARGUMENT)]
    for request in TERMINAL_INPUT:
        program += [_jump(JUMP_EQUAL, request, yes=0, no=1), _return(EPERM)]
    program.append(_return(ALLOW))
    return b"".join(program)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", LOAD, 0, 0, offset)


def _jump(code: int, value: int, *, yes: int, no: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", RETURN, 0, 0, value)
