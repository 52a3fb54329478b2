"""`perdure serve` before somebody who looks on: a screen that is drawn anew, and nothing of it left when it ends."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

APPLICATION = """
from perdure import Context, EntryPoint, workflow

@workflow
async def asks(ctx: Context) -> str:
    return await ctx.ask("which?", of=str)

ways = [EntryPoint("by-hand", asks)]
"""


STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """What a process writes to its terminal, without its colours."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.seen = ""

    def until(self, text: str) -> None:
        """Read on until *text* was shown, or nothing comes any more."""
        while text not in self.seen:
            try:
                data = os.read(self._terminal, 65_536)
            except OSError:  # how Linux says that nobody writes any more
                data = b""
            assert data, f"{text!r} was never shown: {self.seen[-2000:]!r}"
            self._add(data)

    def to_its_end(self) -> str:
        try:
            while data := os.read(self._terminal, 65_536):
                self._add(data)
        except OSError:
            pass
        return self.seen

    def _add(self, data: bytes) -> None:
        self.seen = STYLE.sub("", self.seen + data.decode(errors="replace"))


def test_on_a_terminal_it_shows_what_goes_on_and_ends_in_good_order(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION, encoding="utf-8")
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "perdure", "serve", "app.py", "--db", "a.db", "--port", "0"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        try:
            screen = Screen(mine)
            screen.until("ready  up")
            url = "http://" + screen.seen.partition("http://")[2].split()[0]
            httpx2.post(f"{url}/v1/entry-points/by-hand/trigger", json={"id": "r1"}, trust_env=False).raise_for_status()
            screen.until("1 answer wanted: r1:ask#1")
            screen.until("by-hand: 1 active, 1 so far")
            process.send_signal(signal.SIGTERM)
            shown = screen.to_its_end()
            code = process.wait()
        finally:
            process.kill()
    os.close(mine)

    assert code == 0
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is there again
    assert "Traceback" not in shown
