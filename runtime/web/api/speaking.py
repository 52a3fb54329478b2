"""In whose name an answer over HTTP is given: that of the token, or what the body says where the token has no name.

Not here: what a token may do (`roles.py`). Invariant: what comes with a token that has a name is recorded under that
name, whatever the body says; only an admin passes on what somebody else said, and both names are recorded.
"""

import msgspec

from perdure.actors.workflows.people import person_key
from perdure.runtime.web.api.problems import Refused
from perdure.runtime.web.api.roles import Caller


class Speaker(msgspec.Struct, frozen=True):
    """Who says something, and whose word they pass on."""

    who: str | None
    on_behalf: str | None = None


def speaker(caller: Caller, who: str | None) -> Speaker:
    """Return in whose name the log takes what *caller* says, who says that it is the word of *who*.

    Raises:
        Refused: the token is somebody else's.
    """
    if caller.name is None:
        return Speaker(who)  # everybody on this machine
    if not caller.is_named:
        return Speaker(caller.name if who is None else f"{who} via {caller.name}")
    if who is None or person_key(who) == person_key(caller.name):
        return Speaker(caller.name)
    if caller.may("admin"):
        return Speaker(caller.name, who)
    detail = f"this token is {caller.name}'s, and what is said with it is recorded as theirs: leave out who={who!r}"
    raise Refused(403, "ForbiddenError", f"{detail}, or use a token of that name; an admin's may pass it on")
