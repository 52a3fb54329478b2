"""Who may do what over HTTP: roles, and the tokens that carry them. Knows no HTTP library.

Invariant: a token is kept and compared only as a digest, so it can be in no log, no traceback and no `repr`.
"""

import hmac
import os
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Literal, Self, TypeAlias

import msgspec

from perdure.runtime.serving.access import check_token
from perdure.store.errors import UsageError

Role: TypeAlias = Literal["read", "operate", "admin"]
"""`read` looks at everything; `operate` also moves runs; `admin` also takes over what holds for all of them."""

RANK: Final[dict[Role, int]] = {"read": 1, "operate": 2, "admin": 3}
LEAST_CHARACTERS: Final = 16
"""Of a token: whoever guesses one is let in."""
VARIABLE: Final = "PERDURE_TOKENS"

_NAME: Final = re.compile(r"[A-Za-z0-9._@+-]{1,100}")
_HOW: Final = "a line is ROLE:TOKEN or ROLE:NAME:TOKEN, with the role read, operate or admin"


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    role: Role
    name: str | None = None
    """As the log is to name them; None: anybody on this machine."""
    is_named: bool = False
    """Whether the token was given that name, so that it is somebody's; else it is no more than `api-ROLE`."""

    def may(self, role: Role) -> bool:
        """Return whether the caller may do what *role* may."""
        return RANK[self.role] >= RANK[role]


LOCAL: Final = Caller("operate")
"""Everybody who reaches a server that has no tokens, which listens on a loopback address only."""


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    caller: Caller


class Tokens(msgspec.Struct, frozen=True):
    """The tokens that a server lets in, as digests; of none, everybody who reaches it may `operate`."""

    known: tuple[_Known, ...] = ()

    @classmethod
    def of(cls, lines: Iterable[str]) -> Self:
        """Read tokens, one a line: `ROLE:TOKEN` or `ROLE:NAME:TOKEN`; blank lines and lines with `#` are passed over.

        A name makes a token somebody's: what is said with it is theirs. Several tokens may have one name. Without a
        name, the log names who asks `api-ROLE`.

        Raises:
            UsageError: a line is none of these, or two tokens are the same; no token is in the text.
        """
        known: list[_Known] = []
        for number, line in enumerate(lines, 1):
            if (text := line.strip()) and not text.startswith("#"):
                one = _read(text, number)
                if any(other.digest == one.digest for other in known):
                    raise UsageError(f"line {number} of the tokens: the same token was there before")
                known.append(one)
        return cls(tuple(known))

    @classmethod
    def from_environment(cls) -> Self:
        """Read the tokens in PERDURE_TOKENS, one a line, and take the variable away.

        Raises:
            UsageError: as `of`.
        """
        return cls.of(os.environ.pop(VARIABLE, "").splitlines())

    def caller(self, token: str | None) -> Caller | None:
        """Return who bears *token*, which is None where none was sent; None: nobody who is let in."""
        if not self.known:
            return LOCAL
        if token is None:
            return None
        given = sha256(token.encode("latin-1", "replace")).digest()
        found: Caller | None = None
        for one in self.known:  # all of them, so that the time it takes tells nothing
            if hmac.compare_digest(one.digest, given):
                found = one.caller
        return found


def _read(line: str, number: int) -> _Known:
    role, *rest = line.split(":", 2)
    if role not in RANK or not rest:
        raise UsageError(f"line {number} of the tokens: {_HOW}")
    is_named = len(rest) == 2  # noqa: PLR2004 - a name and a token
    name = rest[0] if is_named else f"api-{role}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"line {number} of the tokens: a name is 1 to 100 letters, digits or any of . _ @ + -")
    token = rest[-1]
    if len(token) < LEAST_CHARACTERS:
        how = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        raise UsageError(f"line {number} of the tokens: a token has at least {LEAST_CHARACTERS} characters: {how}")
    try:
        check_token(token)
    except UsageError as error:
        raise UsageError(f"line {number} of the tokens: {error}") from None
    return _Known(sha256(token.encode()).digest(), Caller(_role(role), name, is_named))


def _role(name: str) -> Role:
    role: Role = msgspec.convert(name, Role)
    return role
