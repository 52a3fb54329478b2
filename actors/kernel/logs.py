"""The library's loggers: structlog's, which is imported when the first of them is used.

It configures nothing: an application that does is heeded at any time. Invariant: nothing is loaded as long as nothing
is logged, since structlog brings rich's tracebacks along, more than all the rest that is loaded from elsewhere.
"""

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def logger(name: str) -> "FilteringBoundLogger":
    """Return structlog's logger *name*, which looks at structlog's configuration anew each time it is used."""
    return cast("FilteringBoundLogger", _Logger(name))


class _Logger:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import structlog  # noqa: PLC0415 - what this module is for

        return getattr(structlog.get_logger(self._name), attribute)
