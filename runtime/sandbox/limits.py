"""What a slot may use at most. Frozen data: who enforces a limit, and what happens at it, stands beside each.

Not here: the wall clock, which comes with each execution. A limit that this machine cannot enforce is not silently
dropped: the docstring says where it does not hold.
"""

import msgspec

from perdure.store.errors import UsageError
from perdure.store.expected import check_fields


class SlotLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of every slot of a backend; each default is meant for a coding task on an ordinary machine."""

    cpu_seconds: int = 3_600
    """Of one process (RLIMIT_CPU), then it is killed. A call lasts 600 s at most, so only many threads or what a
    terminal keeps running ever get here."""
    memory_bytes: int = 2 * 1024**3
    """Of one process (RLIMIT_DATA: an allocation over it fails), and of the whole slot where a cgroup can be written
    (over it the kernel kills). Half of a small machine; runtimes that only *reserve* terabytes of addresses still run.
    Without a cgroup, memory shared between processes (memfd, SysV) is bounded per file only."""
    processes: int = 512
    """Processes and threads of one command (RLIMIT_NPROC in its own user namespace, from Linux 5.14), and of the slot
    where a cgroup can be written: a parallel build with a language server fits, a fork bomb stays harmless. A plain
    process has no such limit: the system would count everything that its user runs."""
    file_bytes: int = 1024**3
    """Of one file (RLIMIT_FSIZE): a write over it fails, or kills with SIGXFSZ."""
    workspace_bytes: int = 4 * 1024**3
    """Of workspace, `/tmp` and run folder together. *Sampled* about twice a second while a command runs, then the
    command is killed: a fast writer can be over it by what a disk takes in that time. A command that starts over the
    limit may run as long as it frees more than it writes. What a terminal writes is not measured until the next
    command: it goes on, and that command is killed."""
    output_characters: int = 50_000
    """Of an output that are kept; what follows is `... (output truncated)`. The wire format's number."""
    output_bytes: int = 64 * 1024**2
    """A command that writes more than this to stdout and stderr is killed: the reader's time is worth more than the
    thousandth megabyte of a log that nobody keeps."""
    grace_seconds: float = 2.0
    """From TERM to KILL: enough for a test runner to say what it was doing, short enough for a person who waits."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0 and name != "grace_seconds":
                raise UsageError(f"{name} is {getattr(self, name)}: a limit must be positive")
        if self.grace_seconds < 0:
            raise UsageError(f"grace_seconds is {self.grace_seconds}: it may be 0, not negative")


TRUNCATED = "\n... (output truncated)"
"""Ends an output that is not whole; the text is part of the wire format."""


def shell_limits(limits: SlotLimits, *, processes: bool) -> str:
    """Return the lines of POSIX sh that set the process limits; hard and soft, so nobody can raise them again.

    `ulimit` of the shell costs 0.1 ms where prlimit(1) costs 0.8 ms, and every system has it. *processes* only inside
    of a user namespace of its own: elsewhere the system counts everything that the user runs.
    """
    lines = [
        "ulimit -c 0",
        f"ulimit -t {limits.cpu_seconds}",
        f"ulimit -f {max(1, limits.file_bytes // 512)}",
        f"ulimit -d {max(1, limits.memory_bytes // 1024)} 2>/dev/null || :",
    ]
    if processes:  # dash says -p where everybody else says -u
        lines.append(f"ulimit -u {limits.processes} 2>/dev/null || ulimit -p {limits.processes}")
    return "; ".join(lines)
