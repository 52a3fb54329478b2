"""The logger of a run: says things once, however often the code is replayed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.actors.workflows.context import Context


class RunLogger:
    """Passes to a structlog logger what is said for the first time."""

    __slots__ = ("_ctx", "_logger")

    def __init__(self, ctx: "Context", logger: Any) -> None:
        self._ctx = ctx
        self._logger = logger

    def bind(self, **values: Any) -> "RunLogger":
        """Return a logger with more values bound."""
        return RunLogger(self._ctx, self._logger.bind(**values))

    def debug(self, event: str, **values: Any) -> None:
        """Log at the level DEBUG."""
        self._say("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Log at the level INFO."""
        self._say("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log at the level WARNING."""
        self._say("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log at the level ERROR."""
        self._say("error", event, values)

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        if not self._ctx.is_replaying:
            getattr(self._logger, level)(event, **values)
