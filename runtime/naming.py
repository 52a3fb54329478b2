"""What a caller may name runs, conversations and principals: checked before anything is recorded. Pure."""

import re

from perdure.store.errors import UsageError

CONVERSATION = re.compile(r"[!-~]{1,60}")
"""What a conversation may be called: with a tool's name it makes a stream's."""

MAX_PRINCIPAL_LENGTH = 200
"""Of what a principal is called: an e-mail address, a service's name, a subject of a token."""

MAX_ID_LENGTH = 128
"""Of a run's id, so that idempotency keys stay below the limits of the services that they are sent to (255)."""


def checked_run_id(run: str) -> str:
    """Return a run's id if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not run or len(run) > MAX_ID_LENGTH or not all("!" <= c <= "~" for c in run):
        raise UsageError(f"a run's id is 1 to {MAX_ID_LENGTH} printable ASCII characters without a space, not {run!r}")
    return run


def check_signal(name: str, signal: str | None) -> None:
    """Check what a signal is called, and its id; None is none.

    Raises:
        UsageError: it cannot be called that.
    """
    if not (0 < len(name) <= MAX_ID_LENGTH and name.isprintable()):
        raise UsageError(f"a signal's name is 1 to {MAX_ID_LENGTH} printable characters, not {name!r}")
    if signal is not None and not (0 < len(signal) <= MAX_ID_LENGTH and signal.isprintable() and signal[0] != "#"):
        detail = f"a signal's id is 1 to {MAX_ID_LENGTH} printable characters and does not begin with #, not {signal!r}"
        raise UsageError(detail)


def check_conversation(conversation: str | None) -> None:
    """Check a conversation's id; None is none.

    Raises:
        UsageError: it cannot be one.
    """
    if conversation is not None and not CONVERSATION.fullmatch(conversation):
        detail = f"a conversation's id is 1 to 60 printable ASCII characters without a space, not {conversation!r}"
        raise UsageError(detail)


def check_principal(principal: str | None) -> None:
    """Check what a principal is called; None is nobody.

    Raises:
        UsageError: nobody can be called that.
    """
    if principal is not None and not (0 < len(principal) <= MAX_PRINCIPAL_LENGTH and principal.isprintable()):
        raise UsageError(f"a principal is 1 to {MAX_PRINCIPAL_LENGTH} printable characters, not {principal!r}")
