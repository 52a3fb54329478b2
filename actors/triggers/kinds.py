"""What starts an entry point: by hand, the application, an event, a webhook, a time. Data only, checked when made.

Not here: what waits for events, deliveries and times. Invariant: a trigger that exists can be wired up, except that an
`OnEvent` of no types waits for nothing.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

import msgspec

from perdure.actors.kernel.payloads import Secret
from perdure.actors.workflows.entrance import TriggerKind
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

SignatureScheme: TypeAlias = Literal["github", "standard", "stripe", "slack", "bearer"]
"""How the sender of a webhook proves that it is the sender."""

Dedupe: TypeAlias = Literal["id", "body"]
"""What tells one delivery from another: the id that its sender gives it, or the bytes of its body."""

Misfire: TypeAlias = Literal["one", "skip", "all"]
"""What becomes of the times of a schedule that passed while nothing ran."""

Overlap: TypeAlias = Literal["queue", "skip", "cancel_previous"]
"""What becomes of a time of a schedule that comes while the run before is not over."""

After: TypeAlias = Literal["now", "start"] | int
"""From where on events are looked at: from now, from the beginning of the log, or after a position of it."""


class Manual(msgspec.Struct, frozen=True, tag="manual"):
    """A person starts it: `Runtime.trigger`, `perdure trigger`."""

    @property
    def kind(self) -> TriggerKind:
        """Why its runs are started."""
        return "manual"


class Api(msgspec.Struct, frozen=True, tag="api"):
    """The application starts it: `Runtime.trigger`, the HTTP API."""

    @property
    def kind(self) -> TriggerKind:
        """Why its runs are started."""
        return "api"


class OnEvent(msgspec.Struct, frozen=True, tag="event"):
    """Events start it: each that fits, once."""

    types: tuple[str, ...] | str = ()
    """What the events are called; `"*"` is any. Of none there is a warning, and nothing starts it."""
    stream: str | None = None
    """Only events of this entry point, or of this source (of a webhook, of who published it)."""
    node: str | None = None
    """Only events of this step."""
    run: str | None = None
    correlation: str | None = None
    where: dict[str, Any] | None = None
    """Only events whose data are so: `{"if": "amount", "gt": 100}`, `{"and": […]}`, `{"or": […]}`, `{"not": …}`."""
    after: After = "now"
    """Where it begins when the entry point is new to the log; from then on it goes on where it was."""

    def __post_init__(self) -> None:
        types = several(self.types)
        if not all(isinstance(one, str) and one for one in types):
            raise UsageError(f"OnEvent('order.paid') or OnEvent(('order.paid', …)), not {self.types!r}")
        msgspec.structs.force_setattr(self, "types", types)
        if isinstance(self.after, str) and self.after not in ("now", "start"):
            raise UsageError(f"OnEvent(after=…) is 'now', 'start' or a position of the log, not {self.after!r}")
        check_fields(self)

    @property
    def kind(self) -> TriggerKind:
        """Why its runs are started."""
        return "event"


class Webhook(msgspec.Struct, frozen=True, tag="webhook"):
    """A delivery over HTTP starts it: each that is signed as told, once."""

    path: str
    """Of the route, `/github`; `{name}` in it is a parameter."""
    methods: tuple[str, ...] = ("POST",)
    secret: Secret | str | None = None
    """What the sender signs with; None lets anybody in. Better a `Secret`, which is looked up by its name."""
    scheme: SignatureScheme | None = None
    """How it signs; `github` when there is a secret and nothing is said."""
    tolerance: timedelta = timedelta(minutes=5)
    """How far the time of a signed delivery may be off, where the scheme has one."""
    dedupe: Dedupe = "id"
    """What tells one delivery from another; `body` where the scheme signs no id and no two bodies are the same."""

    def __post_init__(self) -> None:
        if not str(self.path).startswith("/"):
            raise UsageError(f"the path of a webhook begins with /, not {self.path!r}")
        given: object = self.methods
        methods = () if isinstance(given, str) else several(given)
        if not methods or not all(isinstance(method, str) for method in methods):
            raise UsageError(f"Webhook({self.path!r}, methods=('POST',)), not {self.methods!r}")
        msgspec.structs.force_setattr(self, "methods", tuple(method.upper() for method in methods))
        if self.dedupe not in get_args(Dedupe):
            raise UsageError(f"the dedupe of webhook {self.path} is 'id' or 'body', not {self.dedupe!r}")
        if self.secret == "":
            raise UsageError(f"the secret of webhook {self.path} is empty: None lets anybody in")
        if self.secret is None and self.scheme is not None:
            raise UsageError(f"webhook {self.path} has a scheme and no secret: Webhook(…, secret=Secret('NAME'))")
        if self.secret is not None and self.scheme is None:
            msgspec.structs.force_setattr(self, "scheme", "github")
        check_fields(self)

    def __repr__(self) -> str:
        return f"Webhook({self.path!r}, methods={self.methods!r}, scheme={self.scheme!r})"

    @property
    def kind(self) -> TriggerKind:
        """Why its runs are started."""
        return "webhook"


class Schedule(msgspec.Struct, frozen=True, kw_only=True, tag="schedule"):
    """The clock starts it: every so often, or when a cron expression says so."""

    every: timedelta | None = None
    """The interval, at least a second."""
    cron: str | None = None
    time_zone: str = "UTC"
    """The time zone of the cron expression, such as `Europe/Berlin`; an interval has none."""
    misfire: Misfire = "one"
    """Of the times that passed while nothing ran: one run for all, none, or each up to `misfire_limit`."""
    misfire_limit: int = 100
    """Of `misfire="all"`: the newest ones."""
    overlap: Overlap = "queue"
    """While the run before is not over: wait for it, pass this time over, or cancel that run."""
    jitter: timedelta = timedelta(0)
    """Up to how much later than due it starts, the same for a due time on every try."""
    run_immediately: bool = False
    """Whether it starts once when the entry point is new to the log."""
    paused: bool = False
    """Whether it is paused when the entry point is new to the log."""

    def __post_init__(self) -> None:
        if (self.every is None) == (self.cron is None):
            raise UsageError("a schedule is Schedule(every=timedelta(…)) or Schedule(cron='0 3 * * *'), one of the two")
        _check_types(self)
        if self.every is not None and self.every <= timedelta(0):
            raise UsageError(f"Schedule(every=…) is more than 0, not {self.every!r}")
        if self.jitter < timedelta(0) or self.misfire_limit < 1:
            raise UsageError("the jitter of a schedule is 0 or more, its misfire_limit 1 or more")
        try:
            ZoneInfo(self.time_zone)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise UsageError(f"there is no time zone {self.time_zone!r}") from error
        except KeyError as error:
            raise UsageError(f"there is no time zone {self.time_zone!r}") from error

    @property
    def kind(self) -> TriggerKind:
        """Why its runs are started."""
        return "schedule"


def several(given: object) -> tuple[Any, ...]:
    """Return one or several things as several."""
    several_of: Any = given
    return (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(several_of)


def _check_types(one: Schedule) -> None:
    """Check what a type checker knows, for those who have none."""
    _expect("every", one.every, (timedelta, type(None)), "timedelta(minutes=5)")
    _expect("cron", one.cron, (str, type(None)), "'0 3 * * *'")
    _expect("time_zone", one.time_zone, (str,), "'Europe/Berlin'")
    _expect("jitter", one.jitter, (timedelta,), "timedelta(minutes=5)")
    _expect("misfire_limit", one.misfire_limit, (int,), "100")
    for name in ("run_immediately", "paused"):
        _expect(name, getattr(one, name), (bool,), "True")
    for name, words in (("misfire", get_args(Misfire)), ("overlap", get_args(Overlap))):
        if getattr(one, name) not in words:
            raise UsageError(f"Schedule({name}=…) is one of {', '.join(map(repr, words))}, not {getattr(one, name)!r}")


def _expect(name: str, value: object, kinds: tuple[type, ...], example: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UsageError(f"Schedule({name}=…) is such as {example}, not {value!r}")


Trigger: TypeAlias = Manual | Api | OnEvent | Webhook | Schedule
"""What starts an entry point."""


def in_words(trigger: Trigger) -> str:
    """Return what starts an entry point, in words, without secrets."""
    match trigger:
        case Manual():
            return "by hand"
        case Api():
            return "by the application"
        case OnEvent(types=types, stream=stream):
            named = ", ".join(types) or "none"
            return f"on {named}" + ("" if stream is None else f" of {stream}")
        case Webhook(path=path, methods=methods):
            return f"{' '.join(methods)} {path}"
        case Schedule(cron=str(cron), time_zone=zone):
            return f"at {cron} {zone}"
        case Schedule(every=every):
            return f"every {every}"
