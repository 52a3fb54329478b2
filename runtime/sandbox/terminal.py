"""The tool `tmux`: one terminal in each slot, for programs that want one, with a bash in it. It isolates nothing.

`tmux` performs one call; `stop_terminal` (of `multiplexer`) ends all of it for a release or reset, and blocks. The
terminal lives in its slot's jail, under the same limits as commands, and goes on when this process is killed: the next
one finds it as it is, and reads its transcript on from where the last one stopped. One call of a slot at a time.

- `start`: `pane_width` (20 to 500, else 160), `pane_height` (10 to 200, else 40). A terminal that runs stays, resized
  where a size is given.
- `send_keys`: `keys`, a text or a list of them: a name of tmux's keys (`Enter`, `C-c`, `Up`) is that key, everything
  else is typed as it is, and a newline is Enter. `block` waits until bash shows its prompt again, `max_wait_s` (180) or
  the execution's time at most, then says so with `timeout`; it waits only if the last key is Enter. Programs that read
  keys themselves never show the prompt. `min_wait_s` waits at least that long.
- `capture`: the screen, or with `capture_entire` all lines that are kept (10,000); its last `max_bytes` (50,000).
- `stream`: the whole lines written since the last `stream`, `max_bytes` (50,000) at most, without escape sequences;
  `reset` begins with the oldest line that is kept (2 to 3 MiB are).
- `stop`: ends the terminal and everything in it.
"""

import asyncio
import os
import re
import shlex
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.runtime.sandbox.beneath import Beneath, PathError, closing
from perdure.runtime.sandbox.filetools import Reply, failed
from perdure.runtime.sandbox.jail import Jail, SlotFolder
from perdure.runtime.sandbox.keys import MAX_KEYS_BYTES, commands, ends_with_enter, key_presses
from perdure.runtime.sandbox.multiplexer import (
    NO_ANSWER,
    SOCKET_NAME,
    TerminalError,
    client,
    has_socket,
    missing,
    start_server,
    started_with_network,
    stop_terminal,
    terminal_processes,
)
from perdure.runtime.sandbox.transcript import PREFIX, Transcript, command

__all__ = ["stop_terminal", "terminal_processes", "tmux"]

OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function that blocks, off the event loop: `WorkerThreads.run`."""

SESSION = "perdure"
TARGET = f"={SESSION}:"
PROMPTS_NAME = "terminal.prompts"
HISTORY_LINES = 10_000
_POLL_SECONDS = 0.05
_GONE = ("no server", "error connecting", "can't find", "no current target", "server exited", "lost server")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SETTLE_SECONDS = 0.15  # bash reads a command that was typed ahead within this after its prompt
_FIRST_PROMPT_SECONDS = 5.0


class _Asked(msgspec.Struct, frozen=True):
    """The arguments of a call, checked."""

    action: str
    keys: str | list[str] = ""
    block: bool = False
    min_wait_s: float = 0.0
    max_wait_s: float | None = None
    capture_entire: bool = False
    max_bytes: int | None = None
    reset: bool = False
    pane_width: int | None = None
    pane_height: int | None = None


async def tmux(
    folder: SlotFolder,
    jail: Jail,
    arguments: dict[str, Any],
    *,
    allow_network: bool,
    timeout_seconds: float,
    off_loop: OffLoop,
) -> Reply:
    """Perform one call of the tool; whatever goes wrong is in the reply.

    Cancelling leaves the terminal as it is; keys that are being sent may be sent or not.
    """
    needed = missing()
    if needed is not None:
        return failed(needed, sandboxed=jail.is_sandbox)
    try:
        asked = _checked(arguments)
        terminal = _Terminal(folder, jail, off_loop, allow_network=allow_network)
        reply = await terminal.perform(asked, timeout_seconds)
    except (TerminalError, PathError) as error:
        return failed(str(error), sandboxed=jail.is_sandbox)
    return reply._replace(metadata=reply.metadata | {"sandboxed": jail.is_sandbox})


def _checked(arguments: dict[str, Any]) -> _Asked:
    known = {name: value for name, value in arguments.items() if value is not None}
    try:
        asked = msgspec.convert(known, _Asked)
    except msgspec.ValidationError as error:
        raise TerminalError(detail=f"tmux: {error}") from None
    for name, least, most in (("pane_width", 20, 500), ("pane_height", 10, 200), ("max_bytes", 1, 1 << 20)):
        value = getattr(asked, name)
        if value is not None and not least <= value <= most:
            raise TerminalError(detail=f"tmux: {name} is {value}, not between {least} and {most}")
    for name in ("min_wait_s", "max_wait_s"):
        value = getattr(asked, name)
        if value is not None and not 0 <= value < float("inf"):
            raise TerminalError(detail=f"tmux: {name} is {value}, not a time")
    for each in [asked.keys] if isinstance(asked.keys, str) else asked.keys:
        if "\0" in each or _SURROGATES.search(each):
            raise TerminalError(detail="tmux: keys must be valid text without NUL")
    if sum(map(len, asked.keys)) > MAX_KEYS_BYTES:
        raise TerminalError(detail=f"tmux: keys are longer than {MAX_KEYS_BYTES}: write them to a file first")
    return asked


class _Terminal:
    """The terminal of one slot, during one call."""

    def __init__(self, folder: SlotFolder, jail: Jail, off_loop: OffLoop, *, allow_network: bool) -> None:
        self._folder = folder
        self._jail = jail
        self._off_loop = off_loop
        self._allow_network = allow_network
        self._run = jail.inside(folder).run
        self._transcript = Transcript(folder)

    async def perform(self, asked: _Asked, timeout_seconds: float) -> Reply:
        if asked.action != "stop" and not self._allow_network and started_with_network(self._folder):
            raise TerminalError(
                detail="The terminal was started with network access, which is forbidden: stop it first"
            )
        match asked.action:
            case "start":
                return await self._start(asked)
            case "send_keys":
                return await self._send_keys(asked, timeout_seconds)
            case "capture":
                return await self._capture(asked)
            case "stream":
                return await self._stream(asked)
            case "stop":
                was_there = await self._off_loop(lambda: stop_terminal(self._folder, self._jail))
                return _done("Terminal stopped" if was_there else "There was no terminal")
            case _:
                raise TerminalError(
                    detail=f"tmux: unknown action {asked.action}: start, send_keys, capture, stream, stop"
                )

    async def _start(self, asked: _Asked) -> Reply:
        if await self._is_running():
            size = [*_flag("-x", asked.pane_width), *_flag("-y", asked.pane_height)]
            if size:
                await self._ask("resize-window", "-t", TARGET, *size)
            return _done("Terminal already running", **await self._facts())
        await self._off_loop(lambda: stop_terminal(self._folder, self._jail))
        await self._off_loop(self._forget)
        await start_server(
            self._folder, self._jail, allow_network=self._allow_network, environment=self._signals_of_prompts()
        )
        shell = "exec bash --noprofile --norc -i" if shutil.which("bash") else "exec sh -i"
        await self._ask("set-option", "-g", "history-limit", str(HISTORY_LINES))
        width, height = asked.pane_width or 160, asked.pane_height or 40
        place = ["-c", self._jail.inside(self._folder).workspace]
        await self._ask("new-session", "-d", "-s", SESSION, "-x", str(width), "-y", str(height), *place, shell)
        await self._record()
        await self._wait_for_prompt((0, b""), time.monotonic() + _FIRST_PROMPT_SECONDS)
        return _done("Terminal started", **await self._facts())

    async def _send_keys(self, asked: _Asked, timeout_seconds: float) -> Reply:
        presses = key_presses([asked.keys] if isinstance(asked.keys, str) else asked.keys)
        waits = asked.block and ends_with_enter(presses)
        prompts = await self._prompts()
        began = time.monotonic()
        if not presses:
            await self._ask("has-session", "-t", f"={SESSION}")
        for line in commands(presses, TARGET):
            await self._ask(*line)
        is_ready = True
        if waits:
            most = min(180.0 if asked.max_wait_s is None else asked.max_wait_s, max(0.0, timeout_seconds - 1))
            is_ready = await self._wait_for_prompt(prompts, began + most)
            if not is_ready:
                error = f"No prompt within {most:g}s; what runs goes on in the terminal"
                return failed(error, timeout=True, finished=False)
        await asyncio.sleep(max(0.0, began + min(asked.min_wait_s, timeout_seconds - 1) - time.monotonic()))
        return _done("", **({"finished": True} if waits else {}))

    async def _capture(self, asked: _Asked) -> Reply:
        history = ["-S", "-"] if asked.capture_entire else []
        lines = await self._ask("capture-pane", "-p", "-J", "-t", TARGET, *history)
        text = "\n".join(line.rstrip() for line in lines).rstrip()
        data = text.encode("utf-8", "replace")
        most = asked.max_bytes or 50_000
        return _done(data[-most:].decode("utf-8", "ignore"), truncated=len(data) > most)

    async def _stream(self, asked: _Asked) -> Reply:
        facts = await self._ask("display-message", "-p", "-t", TARGET, "#{pane_pipe}")
        if facts != ["1"]:  # whatever kept the transcript has died
            await self._record()
        most = asked.max_bytes or 50_000
        lines = await self._off_loop(lambda: self._transcript.read(most, from_start=asked.reset))
        return _done(lines.text, truncated=lines.has_more, gap=lines.has_gap)

    async def _record(self) -> None:
        first = await self._off_loop(self._transcript.next_segment)
        await self._ask("pipe-pane", "-t", TARGET, "-O", command(self._run, first))

    async def _facts(self) -> dict[str, Any]:
        said = await self._ask("display-message", "-p", "-t", TARGET, "#{pane_width} #{pane_height}")
        width, _, height = (said[0] if said else "").partition(" ")
        return {
            "pane_width": int(width) if width.isdecimal() else None,
            "pane_height": int(height) if height.isdecimal() else None,
            "socket": f"{self._run}/{SOCKET_NAME}",
            "session": SESSION,
            "recording": f"{self._run}/{PREFIX}*",
        }

    async def _is_running(self) -> bool:
        if not has_socket(self._folder):
            return False
        try:
            await self._ask("has-session", "-t", f"={SESSION}")
        except TerminalError:
            return False
        return True

    async def _ask(self, name: str, *arguments: str) -> list[str]:
        """Give the server a command and return the lines that it says.

        Raises:
            TerminalError: there is no server, or it refuses.
        """
        if not has_socket(self._folder):
            raise TerminalError(detail="The terminal is not running: start it first")

        def call() -> Any:
            return client(self._folder, self._jail).cmd(name, *arguments)

        said = await self._off_loop(call)
        if said.stderr:
            text = " ".join(said.stderr)[:500]
            is_gone = any(sign in text for sign in _GONE) and NO_ANSWER not in text
            raise TerminalError(detail="The terminal is not running: start it first" if is_gone else f"tmux: {text}")
        return list(said.stdout)

    def _signals_of_prompts(self) -> dict[str, str]:
        """Return what makes bash write a letter where we can see it: `e` at each prompt, `b` as a command begins."""
        prompts = shlex.quote(f"{self._run}/{PROMPTS_NAME}")
        return {"PROMPT_COMMAND": f"printf e >>{prompts}", "PS0": f"$(printf b >>{prompts})", "PS1": r"\w\$ "}

    async def _prompts(self) -> tuple[int, bytes]:
        prompts: tuple[int, bytes] = await self._off_loop(self._read_prompts)
        return prompts

    def _read_prompts(self) -> tuple[int, bytes]:
        """Return how many letters there are, and the last."""
        try:
            with Beneath(self._folder, self._folder.run) as run, closing(run.open_file(PROMPTS_NAME)) as opened:
                size = os.fstat(opened).st_size
                return size, os.pread(opened, 1, max(0, size - 1))
        except PathError:
            return 0, b""

    async def _wait_for_prompt(self, before: tuple[int, bytes], deadline: float) -> bool:
        """Wait until the prompt has come back and stays; False at the deadline."""
        settled_since, last = 0.0, before
        while (now := time.monotonic()) < deadline:
            prompts = await self._prompts()
            if prompts != last:
                settled_since, last = now, prompts
            if prompts[0] > before[0] and prompts[1] == b"e" and now - settled_since >= _SETTLE_SECONDS:
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _forget(self) -> None:
        self._transcript.forget()
        with Beneath(self._folder, self._folder.run) as run:
            run.remove(PROMPTS_NAME)


def _flag(name: str, value: int | None) -> list[str]:
    return [] if value is None else [name, str(value)]


def _done(output: str, **metadata: Any) -> Reply:
    return Reply(success=True, output=output, error="", metadata=metadata)
