"""A slot's private tmux server: started in the slot's jail, found again by its socket and mark, ended with all its own.

Nothing of it is remembered in this process or written down: the server is found by the mark that its jail gives it
(`TERMINAL_MARKER`) and by its socket in the slot's `run` folder, so a new life finds what the old one started. What the
terminal does is in `terminal`.

The server belongs to the slot and may be hostile. A tmux client does what its server says, even run a command
(MSG_EXEC in tmux's protocol), so the client runs in the jail too: libtmux is given a script that does that as its tmux.
The script also ends a client that takes too long and cuts what it says: libtmux waits for ever and reads everything
(tmux-python/libtmux#732; once that is released, `timeout` can go from the script, the bounds must stay).

Plain functions that block, but for `start_server`.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox.beneath import Beneath, PathError
from perdure.runtime.sandbox.jail import ENVIRONMENT, Jail, SlotFolder
from perdure.runtime.sandbox.processes import TERMINAL_MARKER, Process, descendants, identify, is_alive, marked, send

if TYPE_CHECKING:
    from libtmux import Server

SOCKET_NAME = "terminal.sock"
CLIENT_NAME = "terminal.client"
"""The script, in the slot's `calls` folder, where no command of the slot can see it."""

NETWORK_NAME = "terminal.network"
"""In the slot's `calls` folder while the terminal's server may use the network."""

CLIENT_SECONDS = 10
"""A client answers in milliseconds; one that does not is being kept waiting."""
NO_ANSWER = "the terminal did not answer within"
CLIENT_BYTES = 8 << 20
"""Of an answer: twice a screen of 500 columns with its whole history."""
START_SECONDS = 15.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


class TerminalError(SlotError):
    """The terminal cannot do that now; nothing else is hurt."""

    message = "{detail}"
    detail: str


def missing() -> str | None:
    """Return what the terminal needs and is not here, in one line, or None."""
    if shutil.which("tmux") is None:
        return "the terminal needs tmux, which is not here: install it (`apt install tmux`)"
    if find_spec("libtmux") is None:  # an extra: only who uses terminals needs it
        return "the terminal needs libtmux: pip install 'perdure[terminal]'"
    return None


async def start_server(folder: SlotFolder, jail: Jail, *, allow_network: bool, environment: Mapping[str, str]) -> None:
    """Start the slot's server, which outlives this process; there must be none. On return it can be spoken to.

    Raises:
        TerminalError: it did not come up.
    """
    socket = f"{jail.inside(folder).run}/{SOCKET_NAME}"
    server = ["tmux", "-D", "-f", "/dev/null", "-S", socket]
    vector = jail.wrap(folder, server, allow_network=allow_network, environment=environment, outlives_us=True)
    if allow_network:
        (folder.calls / NETWORK_NAME).touch()
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    # No Popen, nor asyncio's: they would complain about a child that is left to itself on purpose.
    pid = os.posix_spawnp(vector[0], vector, _environment(), file_actions=null, setsid=True)  # noqa: ASYNC221 - it waits for nothing
    spawned = identify(pid)
    threading.Thread(target=_reap, args=(pid,), name=f"perdure-terminal-{folder.slot}", daemon=True).start()
    deadline = time.monotonic() + START_SECONDS
    while not has_socket(folder):
        if spawned is None or not is_alive(spawned) or time.monotonic() > deadline:
            raise TerminalError(detail="the terminal's server did not start")
        await asyncio.sleep(_POLL_SECONDS)


def client(folder: SlotFolder, jail: Jail) -> "Server":
    """Return libtmux's view of the slot's server; every call of it starts a client in the jail, and blocks."""
    from libtmux import Server  # noqa: PLC0415 - an extra

    script = _write_client(folder, jail)
    return Server(socket_path=f"{jail.inside(folder).run}/{SOCKET_NAME}", config_file="/dev/null", tmux_bin=script)


def has_socket(folder: SlotFolder) -> bool:
    """Whether there is the socket of a server, living or dead."""
    try:
        with Beneath(folder, folder.run) as run:
            return stat.S_ISSOCK(run.status(SOCKET_NAME).st_mode)
    except (PathError, OSError):
        return False


def started_with_network(folder: SlotFolder) -> bool:
    """Whether the server that was started last may use the network."""
    return (folder.calls / NETWORK_NAME).exists()


def reaches_network(folder: SlotFolder) -> bool:
    """Whether a terminal runs that may use the network: through it whatever else runs in the slot may, too. Blocks."""
    return started_with_network(folder) and any(map(is_alive, terminal_processes(folder)))


def terminal_processes(folder: SlotFolder) -> list[Process]:
    """Return the processes of the slot's terminal: what a restart must leave alone, and a reset must end.

    They are those with the terminal's mark and everything below them.
    """
    roots = marked(TERMINAL_MARKER, folder.mark)
    return list(dict.fromkeys([*roots, *descendants(root.pid for root in roots)]))


def stop_terminal(folder: SlotFolder, jail: Jail) -> bool:  # noqa: ARG001 - with the jail, like all that is done to a slot
    """End the server and all its processes, and forget the terminal; return whether anything was there. Idempotent.

    Blocks until they are gone, ten seconds at most.

    Raises:
        TerminalError: something would not end.
    """
    deadline, was_there = time.monotonic() + STOP_SECONDS, False
    while ours := [each for each in terminal_processes(folder) if is_alive(each)]:
        was_there = True
        if time.monotonic() > deadline:
            raise TerminalError(detail=f"{len(ours)} processes of the terminal of slot {folder.slot} do not end")
        for each in ours:  # again and again: what is forked meanwhile is found by its parent or its mark
            send(each, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(FileNotFoundError), Beneath(folder, folder.run) as run:  # what a dead server leaves behind
        run.remove(SOCKET_NAME)
    (folder.calls / NETWORK_NAME).unlink(missing_ok=True)
    return was_there


def _reap(pid: int) -> None:
    """Wait for the server's end, so that it leaves no zombie; in a later life it is not our child, but init's."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ENVIRONMENT["PATH"])}


def _write_client(folder: SlotFolder, jail: Jail) -> str:
    """Write the script that is tmux to libtmux where it is not there yet, and return where it is.

    Both streams of the client pass a `head`, and the time is for all of them: a client hands its streams to its server,
    which can keep them open long after the client has gone. `-N` keeps a client from ever becoming a server.
    """
    vector = jail.wrap(folder, ["tmux", "-N"], allow_network=False)
    bounded = '{ { "$@" </dev/null 2>&1 >&3 3>&- | head -c 65536 >&2; } 3>&1; } | head -c ' + str(CLIENT_BYTES)
    script = (
        "#!/bin/sh\n"
        f"PATH={shlex.quote(_environment()['PATH'])}; export PATH\n"
        f'timeout -k 1 {CLIENT_SECONDS} /bin/sh -c {shlex.quote(bounded)} sh {shlex.join(vector)} "$@"\n'
        f"[ $? -lt 124 ] || echo '{NO_ANSWER} {CLIENT_SECONDS} s' >&2\n"
    )
    path = folder.calls / CLIENT_NAME
    if not path.exists() or path.read_text(encoding="utf-8") != script:
        # Not by us: whatever another thread forks meanwhile would hold our descriptor, and the script be ETXTBSY.
        write = 'umask 077; cat >"$1.new" && chmod 700 "$1.new" && mv -f "$1.new" "$1"'
        command = ["/bin/sh", "-c", write, "sh", str(path)]
        subprocess.run(command, input=script.encode(), env=_environment(), check=True)  # noqa: S603 - fixed, over our own folder
    return str(path)
