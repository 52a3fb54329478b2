"""The root of every error of Perdure, and those of the store.

An error is built from data given by keyword, and the data stay readable as attributes: a caller branches on
`error.stream`, never on the text. One class per thing that a caller does differently. The text is harmless to show
and no longer than it takes, whatever was asked for; the data are as they were given.
"""

from string import Formatter
from typing import Any, ClassVar, Final

from perdure.store.wording import brief, harmless, shown

_PROSE: Final = frozenset({"account", "error", "listing", "reason"})
"""Data that are told in full: what an application, or a side-by-side account, says."""


class _Telling(Formatter):
    """Puts data into a message: what callers gave only as far as it takes to know it."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        value, key = super().get_field(field_name, args, kwargs)
        is_whole = field_name in _PROSE or not isinstance(value, str)
        return value if is_whole else brief(value), str(key)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return shown(value) if conversion == "r" else super().convert_field(value, conversion)


_telling: Final = _Telling()


class PerdureError(Exception):
    """Base of all errors of Perdure; `message` is a template over the keyword arguments."""

    message: ClassVar[str] = "{detail}"

    def __init__(self, **data: object) -> None:
        super().__init__()
        self.__dict__.update(data)

    def __str__(self) -> str:
        return harmless(_telling.vformat(self.message, (), vars(self)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(vars(self)))


def _rebuild(kind: type[PerdureError], data: dict[str, object]) -> PerdureError:
    return kind(**data)


class Rejected(PerdureError):  # noqa: N818 - an answer, not a fault: applications subclass it
    """A command was refused by a rule; nothing was written."""

    message = "refused: {reason}"
    reason: str


class UsageError(PerdureError, ValueError, RuntimeError):
    """The caller's mistake; the message says what to write instead."""

    detail: str

    def __init__(self, detail: str = "", **data: object) -> None:
        super().__init__(detail=detail, **data)


class InternalError(PerdureError):
    """This is our bug; the message names the place in the log."""

    message = "this is a bug in Perdure, please report it: {detail}"
    detail: str


class StoreError(PerdureError):
    """Base of what can go wrong with the log."""


class ConcurrencyError(StoreError):
    """A unit was built on a version of the stream that is not the latest; nothing was written."""

    message = "stream {stream} is at version {actual}, not at {expected}: load it again and decide anew"
    stream: str
    expected: int
    actual: int


class CorruptLogError(StoreError):
    """The log on disk contradicts itself; it is not opened for writing."""

    message = "the log {path} is damaged at position {position}: {detail}. Run `perdure verify`, or restore a backup"
    path: str
    position: int | None
    detail: str


class LogNotFoundError(StoreError):
    """There is no log at this path; a reader never creates one."""

    message = "there is no log at {path}: check the path, or start the runtime that creates it"
    path: str


class LogUnavailableError(StoreError):
    """The file cannot be opened or read just now; nothing was changed."""

    message = "the log {path} cannot be used: {detail}"
    path: str
    detail: str


class StoreLockedError(StoreError):
    """Another runtime owns the log."""

    message = "{path} is owned by {owner}: only one process may write a log; stop it, or read with `perdure ps`"
    path: str
    owner: str
    pid: int | None


class SchemaTooNewError(StoreError):
    """The file was written by a newer Perdure."""

    message = "{path} has format {found}, this version of Perdure reads up to {supported}: upgrade Perdure"
    path: str
    found: int
    supported: int


class NotALogError(StoreError):
    """The file exists and is not a log of Perdure."""

    message = "{path} is not a log of Perdure: {detail}"
    path: str
    detail: str


class SqliteTooOldError(StoreError):
    """This Python carries an SQLite that lacks what the log needs."""

    message = "SQLite {found} is too old, {needed} is the least: use a Python that carries a newer one"
    found: str
    needed: str


class UnknownTagError(StoreError):
    """An event has a tag that no registered type claims; only its own stream is blocked."""

    message = "event {position} of {stream} has the unknown tag {tag!r}: register its type, or upgrade the application"
    tag: str
    position: int
    stream: str


class UndecodableEventError(StoreError):
    """An event's payload does not fit its type."""

    message = "event {position} of {stream} ({tag} version {version}) cannot be read: {detail}"
    tag: str
    version: int
    position: int
    stream: str
    detail: str


class LogWriteError(StoreError):
    """The log takes no more writes; what was acknowledged is safe, what waited is in doubt until it is reopened."""

    message = "the log takes no more writes: {detail}. What was acknowledged is safe: reopen it and ask again by id"
    detail: str


class LogClosedError(StoreError):
    """The log was closed by its owner."""

    message = "the log is closed"


class BacklogFullError(StoreError):
    """More waits for the disk than the bound allows; nothing was written."""

    message = "{waiting} events wait for the disk, the bound is {bound}: slow down and try again"
    waiting: int
    bound: int


class UnencodableError(StoreError, TypeError):
    """A value cannot be written to the log; nothing happened."""

    message = "{where} cannot be recorded: {detail}"
    where: str
    detail: str


class PayloadTooLargeError(StoreError, ValueError):
    """A value is over the hard limit; nothing happened."""

    message = "{where} is {size} bytes, the limit is {limit}: pass a path or a reference to it instead"
    where: str
    size: int
    limit: int
