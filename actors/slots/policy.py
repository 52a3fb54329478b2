"""What is decided of a call before anybody runs it: its limit, what it is sent as, what a crash means for it. Pure.

Whether a command may use the network, and whether it must be isolated, is said by the application and never by the
model: what the call's arguments say of it is thrown away.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.actors.tools.definition import EffectClass

MIN_TIMEOUT_SECONDS = 1.0
MAX_TIMEOUT_SECONDS = 600.0

BACKGROUND = "terminal background execution is not supported in sandbox"

EFFECTS: Mapping[str, EffectClass] = {
    "bash": "irreversible",
    "bash_stateful": "irreversible",
    "tmux": "irreversible",
    "write_file": "idempotent",
    "read_file": "read",
}
"""Of the tools that run in slots: a command may do anything, so it is never run twice unless its caller allows it."""

ALIASES: Mapping[str, str] = {"terminal": "bash", "terminal_stateful": "bash_stateful"}

SANDBOX_TOOLS = frozenset({*EFFECTS, *ALIASES})


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What commands may do; set by the application."""

    allow_network: bool = True
    require_sandbox: bool = False
    """Whether `bash` fails where commands cannot be isolated."""
    require_stateful_sandbox: bool = False
    """The same of `bash_stateful` and `tmux`."""


class Sent(msgspec.Struct, frozen=True):
    """A call as it is sent into a slot."""

    tool: str
    arguments: dict[str, Any]


def limit(explicit: float | None, arguments: Mapping[str, Any]) -> float | None:
    """Return how many seconds a call may take: what its caller says, else its argument `timeout`, within 1 to 600.

    None when neither says it. What is not a finite number is as if it were not there.
    """
    for asked in (explicit, arguments.get("timeout")):
        if isinstance(asked, int | float) and not isinstance(asked, bool) and math.isfinite(asked):
            return min(max(float(asked), MIN_TIMEOUT_SECONDS), MAX_TIMEOUT_SECONDS)
    return None


def sent_as(tool: str, arguments: Mapping[str, Any], policy: Policy) -> Sent | str:
    """Return how a call of a slot's tool is sent, or why it is not."""
    if tool == "terminal" and arguments.get("background"):
        return BACKGROUND
    name = ALIASES.get(tool, tool)
    match name:
        case "bash":
            removed = {"timeout", "background"} if tool == "terminal" else {"timeout"}
            forced = {"allow_network": policy.allow_network, "require_sandbox": policy.require_sandbox}
        case "bash_stateful":
            removed = {"timeout", "require_sandbox"}
            forced = _stateful(policy)
        case "tmux":
            removed = {"require_sandbox"}  # its `timeout` stays
            forced = _stateful(policy)
        case _:
            return Sent(name, {key: value for key, value in arguments.items() if key != "timeout"})
    kept = {key: value for key, value in arguments.items() if key not in removed}
    return Sent(name, {**kept, **forced})


def _stateful(policy: Policy) -> dict[str, bool]:
    return {"allow_network": policy.allow_network, "require_stateful_sandbox": policy.require_stateful_sandbox}
