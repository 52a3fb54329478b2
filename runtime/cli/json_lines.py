"""Logs as JSON, one object a line on stderr, for programs that collect them; Python's own logging is told there, too.

Invariants: a line has what its caller wrote and nothing of the variables around it, so no token and no body is in it;
whatever is to be logged, logging it is no error.
"""

import logging
import sys
from typing import Any

import msgspec
import structlog

from perdure.actors.kernel.accounts import account_of

_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)

_encode = msgspec.json.Encoder(enc_hook=str).encode


class _StderrBytes:
    """Writes lines to whatever stderr is at that moment."""

    def __init__(self, *_: Any) -> None:
        pass

    def msg(self, message: str) -> None:
        """Write one line, at once."""
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


class _ToStructlog(logging.Handler):
    """Says in structlog what libraries say by logging."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        more = {} if error is None else {"exception": account_of(error)}
        level = next((one for one in _LEVELS if record.levelno >= one), logging.DEBUG)  # structlog knows no others
        try:
            log.log(level, record.getMessage(), logger=record.name, **more)
        except Exception:  # noqa: BLE001 - a handler of logging must not raise
            self.handleError(record)


def log_as_json(level: int = logging.INFO) -> None:
    """Log as JSON from now on, from *level* on; an application's own configuration goes first."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=_serialized),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=_StderrBytes,
        )
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(_ToStructlog(logging.WARNING))


def _serialized(value: dict[str, Any], **_: Any) -> str:
    try:
        return _encode(value).decode()
    except Exception:  # noqa: BLE001 - half a surrogate pair, an int of 70 bits, keys that are no texts, …
        return _encode({_told(name): _plain(one) for name, one in value.items()}).decode()


def _plain(value: object) -> object:
    try:
        _encode(value)
    except Exception:  # noqa: BLE001 - as above
        return _told(value)
    return value


def _told(value: object) -> str:
    try:
        return value if isinstance(value, str) and value.isascii() else ascii(value)
    except Exception:  # noqa: BLE001 - of its own `repr`
        return f"<{type(value).__name__}>"
