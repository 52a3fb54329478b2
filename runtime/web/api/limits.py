"""The bounds of the HTTP API, each with its reason. Data only."""

import msgspec


class ApiLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, and all of them together, may take."""

    body_bytes: int = 9 * 1024 * 1024
    """Of one request: a value of the log may have 8 MiB."""
    bytes_at_once: int = 128 * 1024 * 1024
    """Of all bodies that are on their way; what comes beside them is turned away (503)."""
    body_seconds: float = 30.0
    """Until the body of a request has come."""
    requests: int = 1_000
    """At the same time, those that wait for a run included; more are turned away (503)."""
    streams: int = 100
    """Of server-sent events at the same time; more are turned away (503)."""
    wait_seconds: float = 60.0
    """The longest wait for a run's end that one request may ask for: proxies cut longer ones."""
    heartbeat_seconds: float = 15.0
    """Of silence, after which a stream says that it is alive."""
    stalled_seconds: float = 60.0
    """After which a stream is closed whose reader takes nothing."""
