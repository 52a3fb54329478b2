"""Whether a delivery is from who it says, and what it is called: the schemes of the senders. Pure.

Sources: GitHub, "Validating webhook deliveries"; the Standard Webhooks specification; Stripe, "Verify webhook
signatures manually"; Slack, "Verifying requests from Slack". Invariant: digests are compared in constant time, over the
bytes as they came in, and no text of a sender is ever an error of ours.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec
from standardwebhooks import Webhook

from perdure.actors.kernel.clock import SECOND
from perdure.actors.triggers.kinds import SignatureScheme
from perdure.store.errors import UsageError

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,10}")
_ID: Final = re.compile(r"[ -~]{1,1000}")
_SHORT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
"""An id that is taken as it is; others are taken by their digest."""
_SIGNED_BY: Final[dict[SignatureScheme, str]] = {
    "github": "x-hub-signature-256", "standard": "webhook-signature", "stripe": "stripe-signature",
    "slack": "x-slack-signature", "bearer": "authorization",
}  # fmt: skip
"""The header that has a delivery's signature, or the token."""
_DELIVERY_HEADERS: Final = ("x-github-delivery", "x-gitea-delivery", "webhook-id", "x-delivery-id", "idempotency-key")
"""Where senders that sign only the body, or nothing, put a delivery's id."""
_BODY_ID: Final = {"stripe": "id", "slack": "event_id"}
"""The field of the body that has the id, in the schemes that have no header for it."""


class Delivered(msgspec.Struct, frozen=True):
    """A delivery as it came in; the names of the headers are in small letters."""

    headers: Mapping[str, str]
    body: bytes


class Verifier:
    """Says whether deliveries are signed with one of a few secrets, which it keeps to itself."""

    __slots__ = ("_scheme", "_secrets", "_tolerance")

    def __init__(self, scheme: SignatureScheme, secrets: Iterable[str], tolerance_micros: int) -> None:
        """Take the secrets.

        Raises:
            UsageError: one is not what the scheme's secrets are; it is not in the text.
        """
        self._scheme: SignatureScheme = scheme
        self._tolerance = tolerance_micros
        self._secrets = tuple(_key(scheme, secret) for secret in secrets)

    def fault(self, delivered: Delivered, now: int) -> str | None:
        """Return why a delivery is not accepted, or None; *now* is microseconds since 1970 UTC."""
        said = _said_signature(self._scheme, delivered)
        match self._scheme:
            case "github":
                given = [said.removeprefix("sha256=")]
                return self._fault(delivered.body, given)
            case "standard":
                return self._standard_fault(delivered, said, now)
            case "stripe":
                at = _signed_at("stripe", delivered)
                given = [value for name, value in _pairs(said) if name == "v1"]
                return self._time_fault(at, now) or self._fault(at.encode() + b"." + delivered.body, given)
            case "slack":
                at = _signed_at("slack", delivered)
                given = [said.removeprefix("v0=")]
                return self._time_fault(at, now) or self._fault(b"v0:" + at.encode() + b":" + delivered.body, given)
            case "bearer":
                return self._token_fault(said)

    def account(self, delivered: Delivered, fault: str) -> str:
        """Return what whoever sets a route up wants to know of a fault, and its sender need not."""
        header = _SIGNED_BY[self._scheme]
        if not _said_signature(self._scheme, delivered):
            return f"there is no header {header}, which the scheme {self._scheme} asks for"
        if fault.startswith("Timestamp"):
            return "it was signed too long ago, or a clock is wrong"
        return f"{header} does not fit: the sender has another secret or scheme, or something changed the body"

    def _fault(self, signed: bytes, given: Iterable[str]) -> str | None:
        digests = [bytes.fromhex(text) for text in given if _HEX.fullmatch(text)]
        expected = [hmac.digest(secret, signed, "sha256") for secret in self._secrets]
        return None if _any_equal(expected, digests) else "Invalid signature"

    def _standard_fault(self, delivered: Delivered, said: str, now: int) -> str | None:
        id, at = (delivered.headers.get(f"webhook-{what}", "") for what in ("id", "timestamp"))
        if (fault := self._time_fault(at, now)) is not None or not _ID.fullmatch(id):
            return fault or "Invalid signature"
        given = [part[3:] for part in said.split(" ") if part[:3] == "v1,"]
        try:
            text, moment = delivered.body.decode(), datetime.fromtimestamp(int(at), UTC)
        except UnicodeDecodeError:
            return "Invalid signature"
        expected = [Webhook(secret).sign(id, moment, text).partition(",")[2].encode() for secret in self._secrets]
        signatures = [one.encode("latin-1", "replace") for one in given]
        return None if _any_equal(expected, signatures) else "Invalid signature"

    def _time_fault(self, at: str, now: int) -> str | None:
        if not _SECONDS.fullmatch(at):
            return "Invalid signature"
        return None if abs(int(at) * SECOND - now) <= self._tolerance else "Timestamp outside of the tolerance"

    def _token_fault(self, header: str) -> str | None:
        scheme, _, token = header.partition(" ")
        given = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
        return None if scheme.lower() == "bearer" and _any_equal(self._secrets, [given]) else "Invalid token"


def delivery_id(scheme: SignatureScheme | None, delivered: Delivered, payload: Any, header: str | None) -> str | None:
    """Return what a delivery is called by its sender, or None: then no other can be known to be the same.

    At most 64 characters: a longer id, or one of other characters, is taken by its digest. A scheme that signs the time
    and names no delivery (a slash command of Slack's) is called by what is signed, its time and its body: the same
    request sent once more has those too, however its signature is written then.
    """
    found = _said_id(scheme, delivered, payload, header)
    if found is None or _SHORT_ID.fullmatch(found):
        return found
    return hashlib.blake2b(found.encode(), digest_size=16).hexdigest()


def body_id(body: bytes) -> str:
    """Return what a delivery is called by what it says: all that a scheme without an id or a time signs."""
    return f"body-{hashlib.blake2b(body, digest_size=20).hexdigest()}"


def _said_id(scheme: SignatureScheme | None, delivered: Delivered, payload: Any, header: str | None) -> str | None:
    field = _BODY_ID.get(scheme or "") if header is None else None
    if field is None:
        names = _DELIVERY_HEADERS if header is None else (header.lower(),)
        names = ("webhook-id",) if scheme == "standard" and header is None else names
        return next((text for name in names if (text := delivered.headers.get(name, "").strip())), None)
    known = cast("dict[str, Any]", payload).get(field) if isinstance(payload, dict) else None
    if isinstance(known, str) and known:
        return known
    return f"{_signed_at(scheme, delivered)} {hashlib.sha256(delivered.body).hexdigest()}"


def _signed_at(scheme: SignatureScheme | None, delivered: Delivered) -> str:
    if scheme == "slack":
        return delivered.headers.get("x-slack-request-timestamp", "")
    return next((value for name, value in _pairs(_said_signature("stripe", delivered)) if name == "t"), "")


def _said_signature(scheme: SignatureScheme, delivered: Delivered) -> str:
    return delivered.headers.get(_SIGNED_BY[scheme], "")


def challenge(scheme: SignatureScheme | None, payload: Any) -> str | None:
    """Return what Slack wants to be told when it asks whether a URL is the application's, or None."""
    if scheme != "slack" or not isinstance(payload, dict):
        return None
    said = cast("dict[str, Any]", payload)
    asked = said.get("challenge") if said.get("type") == "url_verification" else None
    return asked if isinstance(asked, str) else None


def _key(scheme: SignatureScheme, secret: str) -> bytes:
    if scheme == "bearer":
        return hashlib.sha256(secret.encode()).digest()
    if scheme != "standard":
        return secret.encode()
    return standard_key(secret)


def standard_key(secret: str) -> bytes:
    """Return the key that a secret of Standard Webhooks stands for.

    Raises:
        UsageError: it is not base64; it is not in the text.
    """
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise UsageError("a secret of Standard Webhooks is base64, with or without whsec_ before it")
    return key


def _any_equal(expected: Iterable[bytes], given: Iterable[bytes]) -> bool:
    given = list(given)
    return any([hmac.compare_digest(one, other) for one in expected for other in given])  # noqa: C419 - no short cut


def _pairs(header: str) -> Iterator[tuple[str, str]]:
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        yield name, value
