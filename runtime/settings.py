"""What an application may set, with the defaults and their reasons."""

from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from perdure.actors.kernel.payloads import REDACTED_KEYS
from perdure.store.errors import UsageError

MAX_PORT: Final = 65_535


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
    interrupted: Literal["resume", "report"] = "resume"
    """What becomes of runs that were in memory when the process ended: they go on when the log is opened again, or are
    held until somebody has them go on (`RunHandle.resume`); those that were stopped in good order go on in any case."""
    max_concurrent_executions: int = 100
    """Runs of all entry points at work at a time, beside what each entry point allows; more wait in the log."""
    execution_result_max: int = 1000
    """Results of each entry point that can be had, the newest ones; the log keeps all runs."""
    execution_result_ttl_seconds: float | None = None
    """How long a result of an entry point can be had; None for as long as it is among the newest."""
    max_trigger_depth: int = 16
    """Runs that may lead to one another, each by an event that the one before caused; then a trigger is refused."""
    webhook_host: str = "127.0.0.1"
    """Where the runtime listens for webhooks, if it has routes; one without a secret is for this machine only."""
    webhook_port: int | None = 8080
    """The port for webhooks; 0 is any that is free; with None the application serves `Runtime.webhooks.app` itself."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            _check(field.name, field.type, getattr(self, field.name))


_NONE_IS_SENSELESS: Final = frozenset({
    "mailbox_bound", "worker_threads", "max_loaded_agents", "max_concurrent_executions",
})  # fmt: skip


def _check(name: str, kind: Any, value: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"Settings({name}={value!r}): {error}") from error
    zero: Any = timedelta(0) if isinstance(value, timedelta) else 0
    if isinstance(value, (int, float, timedelta)) and value < zero:
        raise UsageError(f"Settings({name}={value!r}): it is not negative")
    if name in _NONE_IS_SENSELESS and value == 0:
        raise UsageError(f"Settings({name}=0): it is at least 1")
    if name == "webhook_port" and isinstance(value, int) and value > MAX_PORT:
        raise UsageError(f"Settings({name}={value!r}): a port is at most {MAX_PORT}")
