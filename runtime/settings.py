"""What an application may set, with the defaults and their reasons."""

from datetime import timedelta
from typing import Literal

import msgspec

from perdure.actors.kernel.payloads import REDACTED_KEYS


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a runtime; the defaults are meant for an application on a server or a laptop."""

    synchronous: Literal["full", "normal"] = "full"
    """`full`: what is acknowledged survives power loss. `normal`: it survives `kill -9`, but power loss may take the
    last commits with it, acknowledged or not."""
    park_after: timedelta = timedelta(seconds=60)
    """A run whose branches all wait longer than this leaves memory."""
    idle_after: timedelta = timedelta(seconds=60)
    """An actor that nobody spoke to for so long leaves memory."""
    drain: timedelta = timedelta(seconds=5)
    """How long a stop waits for steps in flight before it cancels them."""
    mailbox_bound: int = 10_000
    """Messages that may wait for one actor."""
    max_active_runs: int = 10_000
    """Runs in memory at the same time; more wait in the log for a place."""
    worker_threads: int = 32
    """Sync tools running at the same time."""
    max_loaded_agents: int = 10
    """Agents in memory at the same time, those that are preloaded or in use apart."""
    unload_agents_after: timedelta = timedelta(minutes=15)
    """An agent that nobody used for so long leaves memory."""
    socket: bool = True
    """Whether other processes of the same user may reach the runtime (`connect`), over a Unix socket beside the log."""
    redacted_keys: frozenset[str] = REDACTED_KEYS
    """Names whose values never reach the log."""
