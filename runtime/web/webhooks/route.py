"""A route of the webhooks: where deliveries of one source come in, and how their sender proves who it is. Data only.

Not here: whether a signature is right (`signatures.py`), and what becomes of a delivery (`receiving.py`). Invariant: a
route that exists can be served; its secret is in no `repr` and in no error.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias

import msgspec

from perdure.actors.kernel.payloads import Secret
from perdure.actors.kernel.spans import check_limit
from perdure.actors.triggers.kinds import Dedupe, SignatureScheme, Webhook
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields

RouteSecret: TypeAlias = Secret | str | tuple[Secret | str, ...]
"""What the sender signs with; several while it is being changed, of which any one will do."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a delivery, unless its route says otherwise."""
LARGEST_BODY_BYTES: Final = 8 * 1024 * 1024
"""That a route may let in: what a value of the log may be."""

_SOURCE: Final = re.compile(r"[!-~]{1,60}")
_PATH: Final = re.compile(r"/[!-~]{0,199}")
_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(:[a-z]+)?\}")
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_SCHEMES: Final = ("github", "standard", "stripe", "slack", "bearer")


class WebhookRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries that come in at a path become events `webhook_received` of a source.

    Raises:
        UsageError: something of it cannot be; an empty secret is no secret, and is refused.
    """

    source: str
    """Who the deliveries are from: the `source` of their events, and the `stream_id` in their dictionaries."""
    path: str
    """Where they come in, `/github`; `{name}` in it is a parameter, `{name:path}` one with slashes."""
    methods: tuple[str, ...] = ("POST",)
    secret: RouteSecret | None = None
    """None lets anybody in. Better a `Secret`, which is looked up by its name when the runtime is opened."""
    scheme: SignatureScheme = "github"
    """How the sender signs, where there is a secret."""
    tolerance: timedelta = timedelta(minutes=5)
    """How far the time of a signed delivery may be off, where the scheme has one."""
    max_bytes: int = MAX_BODY_BYTES
    """Of a body; a larger one is refused."""
    delivery_header: str | None = None
    """Which header has the delivery's id, where the scheme's own way to tell deliveries apart does not fit."""
    dedupe: Dedupe = "id"
    """What tells one delivery from another; `body` where the scheme signs no id and no two bodies are the same."""

    def __post_init__(self) -> None:
        """Check it all."""
        _check_place(self)
        check_fields(self)
        given: Any = self.methods  # not every caller is checked
        methods = tuple(dict.fromkeys(method.upper() for method in given))
        if isinstance(given, str) or not methods or not all(map(_METHOD.fullmatch, methods)):
            raise UsageError(f"the methods of webhook {self.path} are such as ('POST',), not {self.methods!r}")
        msgspec.structs.force_setattr(self, "methods", methods)
        if self.scheme not in _SCHEMES:
            raise UsageError(f"the scheme of webhook {self.path} is one of {', '.join(_SCHEMES)}, not {self.scheme!r}")
        check_limit(self.tolerance, f"the tolerance of webhook {self.path}")
        if not 0 < self.max_bytes <= LARGEST_BODY_BYTES:
            raise UsageError(f"max_bytes of webhook {self.path} is 1 to {LARGEST_BODY_BYTES}, not {self.max_bytes}")
        if self.delivery_header is not None and not _HEADER.fullmatch(self.delivery_header):
            raise UsageError(f"the delivery_header of webhook {self.path} is the name of a header")
        if self.dedupe == "body" and self.delivery_header is not None:
            raise UsageError(f"webhook {self.path} knows deliveries by their bodies: leave out delivery_header")
        if self.secret is not None:
            check_secrets(self.secrets, self.path)

    def __repr__(self) -> str:
        """Show no secret."""
        signed = "open" if self.secret is None else self.scheme
        return f"<WebhookRoute {self.source} {'/'.join(self.methods)} {self.path} {signed}>"

    @property
    def secrets(self) -> tuple[Secret | str, ...]:
        """The secrets, none when anybody is let in."""
        if self.secret is None:
            return ()
        return self.secret if isinstance(self.secret, tuple) else (self.secret,)

    @classmethod
    def of_entry(cls, entry: str, trigger: Webhook) -> Self:
        """Return the route of an entry point: its source is the entry point's id."""
        return cls(
            source=entry,
            path=trigger.path,
            methods=trigger.methods,
            secret=trigger.secret,
            scheme=trigger.scheme or "github",
            tolerance=trigger.tolerance,
            dedupe=trigger.dedupe,
        )

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """Return the route that `{"source_id": …, "path": …, "methods": […], "secret": …}` says.

        Raises:
            UsageError: something is missing, unknown or cannot be.
        """
        unknown = sorted(spec.keys() - {"source_id", "path", "methods", "secret", "scheme"})
        missing = sorted({"source_id", "path"} - spec.keys())
        if unknown or missing:
            faults = [f"has no {name}" for name in missing] + [f"has an unknown {name!r}" for name in unknown]
            raise UsageError(f"a webhook route {', '.join(faults)}: source_id, path, methods, secret, scheme")
        given: Any = spec.get("methods", ("POST",))
        methods: Any = given if isinstance(given, str) else tuple(given)
        return cls(
            source=spec["source_id"],
            path=spec["path"],
            methods=methods,
            secret=spec.get("secret"),
            scheme=spec.get("scheme") or "github",
        )


def check_secrets(secrets: tuple[Secret | str, ...], path: str) -> None:
    """Check what a sender signs with, before it is looked up.

    Raises:
        UsageError: there is none in it, one is empty, or is no secret at all; it is not in the text.
    """
    if not secrets or "" in secrets:
        raise UsageError(f"the secret of webhook {path} is empty: leave it out to let anybody in")
    if not all(isinstance(one, (str, Secret)) for one in secrets):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"the secret of webhook {path} is a text or Secret('NAME')")


def _check_place(route: WebhookRoute) -> None:
    source: Any = route.source  # not every caller is checked
    path: Any = route.path
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        shape = "1 to 60 printable ASCII characters without a space"
        raise UsageError(f"the source of a webhook is {shape}, such as 'github', not {source!r}")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise UsageError(f"the path of a webhook begins with /, such as '/github', not {path!r}")
    if not {"{", "}"}.isdisjoint(_PARAMETER.sub("", path)):
        raise UsageError(f"a parameter in the path of a webhook is such as '/t/{{id}}', not {path!r}")
