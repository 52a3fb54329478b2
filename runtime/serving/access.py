"""Who may ask a server: bearer tokens, the Host header, and where a server may listen. Knows no HTTP library.

Invariants: a token is kept and compared only as a digest, so it can be in no log and no traceback; a server that
other machines can reach has a token.
"""

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, Self

import msgspec

from perdure.store.errors import UsageError

OPEN_PATHS: Final = frozenset({"/", "/health"})
"""What says nothing that a stranger may not know."""

_SCHEME: Final = "bearer"
_OWN_SITES: Final = ("none", "same-origin")
"""What `Sec-Fetch-Site` says of a person's own doing, and of a page of the server itself."""


class Denial(msgspec.Struct, frozen=True):
    """Why a request is not let in."""

    status: int
    detail: str


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who is let in; without a token everybody is."""

    token_digest: bytes | None = None
    hosts: frozenset[str] | None = None
    """The names that the server answers to; None: to all. Browsers are kept from it by nothing else."""

    @classmethod
    def by_token(cls, token: str | None) -> Self:
        """Let in who bears *token*; None or nothing: everybody.

        Raises:
            UsageError: it has characters that a header cannot carry.
        """
        if not token:
            return cls()
        check_token(token)
        return cls(token_digest=sha256(token.encode()).digest())

    def bound_to(self, host: str) -> "Access":
        """Return the access of a server that listens on *host*.

        On a loopback address requests that name another host are refused: a web page whose name was made to point to
        this machine (DNS rebinding) can then ask nothing.

        Raises:
            UsageError: other machines could reach it, and there is no token.
        """
        if is_loopback(host):
            return msgspec.structs.replace(self, hosts=frozenset({"localhost", "127.0.0.1", "::1", host.lower()}))
        if self.token_digest is None:
            raise UsageError(f"{host} can be reached from other machines: set a token, or listen on 127.0.0.1")
        return self

    def denial(self, path: str, headers: Mapping[str, str]) -> Denial | None:
        """Return why a request is refused, or None; names of *headers* are in small letters."""
        if self.hosts is not None and host_name(headers.get("host", "")) not in self.hosts:
            return Denial(403, "Invalid Host header")
        if self.hosts is not None and not _is_same_origin(headers):
            return Denial(403, "Cross-origin requests are refused")
        if self.token_digest is None or path in OPEN_PATHS:
            return None
        return self._check(headers.get("authorization"))

    def _check(self, header: str | None) -> Denial | None:
        if header is None:
            return Denial(401, "Missing Authorization header")
        scheme, space, token = header.partition(" ")
        if not space or scheme.lower() != _SCHEME:
            return Denial(401, "Invalid Authorization header")
        given = sha256(token.strip().encode("latin-1", "replace")).digest()
        if self.token_digest is None or not hmac.compare_digest(given, self.token_digest):
            return Denial(403, "Invalid token")
        return None


OPEN: Final = Access()
"""Everybody; for a server inside this process."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on *host*."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port and in small letters."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_same_origin(headers: Mapping[str, str]) -> bool:
    # A page may send a plain POST to any address without asking first; programs send no Origin. For a picture, a frame
    # or a link browsers send no Origin either, but the kind of place that it stands in.
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()


def check_token(token: str) -> None:
    """Do nothing if a header can carry *token*.

    Raises:
        UsageError: it cannot; the token is not in the text.
    """
    if not all("!" <= character <= "~" for character in token):
        raise UsageError("a token is printable ASCII characters without a space")


def first_token(candidates: Iterable[str | None]) -> str | None:
    """Return the first that says something, without the blanks around it."""
    return next((text.strip() for text in candidates if text and text.strip()), None)
