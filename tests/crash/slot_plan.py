"""What every trajectory of the crash tests of slots calls, and in which order. Pure, and no test.

It is a function of seed, trajectory and number, so that every life, and the oracle, know the same plan.
"""

import random
from typing import Any, Literal

import msgspec

TRAJECTORIES = 20
LEAVERS = 4
"""The last ones give their slots back again and again."""
TERMINALS = 2
"""The first ones have a terminal."""
SLOTS = TRAJECTORIES - LEAVERS // 2
"""Two for four leavers: they wait for each other, and get slots that were somebody else's."""
STAY = 8
"""Calls of a leaver in one slot; the last two are a look at what was done there, and the release."""

Kind = Literal["token", "once", "daemons", "repeatable", "stateful", "write", "read", "terminal", "look", "release"]


DRAWN: tuple[Kind, ...] = (
    *("once", "once", "once", "once", "daemons", "daemons", "repeatable", "repeatable", "repeatable"),
    *("stateful", "stateful", "write", "read"),
)  # fmt: skip
"""What a trajectory mostly does, by how often."""


LONG_SHARE = 0.05
"""Of commands that would still run when the next life has opened the log, if nobody ended them."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one life is to do."""

    directory: str
    """Of the log and the acknowledgements."""
    slots: str
    first_uid: int
    seed: str
    tag: str
    """Digits that stand in every command."""
    point: str | None = None
    """`before begin:3`: die when the third execution is about to begin."""
    seconds: float | None = None
    """How long after it has opened the log, slots and all, it is to die."""
    finishes: bool = False
    """Whether it ends by itself: every trajectory does what it has asked for, and leaves its slot for good."""


class Planned(msgspec.Struct, frozen=True):
    """One thing that a trajectory does."""

    kind: Kind
    tool: str = ""
    arguments: dict[str, Any] = {}
    effect: Literal["read", "idempotent", "irreversible"] = "irreversible"


def name_of(trajectory: int) -> str:
    return f"work-{trajectory}"


def id_of(trajectory: int, number: int) -> str:
    return f"{trajectory}-{number}"


def is_leaver(trajectory: int) -> bool:
    return trajectory >= TRAJECTORIES - LEAVERS


def has_terminal(trajectory: int) -> bool:
    return trajectory < TERMINALS


def token(trajectory: int, number: int) -> str:
    """Return what stands in the workspace while this call is made."""
    return f"{name_of(trajectory)} {number // STAY if is_leaver(trajectory) else 0}"


def plan(order: Order, trajectory: int, number: int) -> Planned:
    """Return what the trajectory does at this place."""
    place = number % STAY if is_leaver(trajectory) else number
    if place == 0:
        return Planned("token", "write_file", {"path": "token", "content": token(trajectory, number)}, "idempotent")
    if is_leaver(trajectory) and place == STAY - 2:
        return Planned("look", "bash", {"command": "[ ! -e effects ] || cat effects"}, "read")  # perhaps none
    if is_leaver(trajectory) and place == STAY - 1:
        return Planned("release")
    if has_terminal(trajectory) and place <= 2:
        keys = ["C-u", f"TOKEN={name_of(trajectory)}", "Enter"]
        arguments = {"action": "start"} if place == 1 else {"action": "send_keys", "keys": keys, "block": True}
        return Planned("terminal", "tmux", arguments, "idempotent")
    return _drawn(order, trajectory, number)


def _drawn(order: Order, trajectory: int, number: int) -> Planned:
    chance = random.Random(f"{order.seed}/{trajectory}/{number}")
    kind = chance.choice([*DRAWN, "terminal"] if has_terminal(trajectory) else DRAWN)
    call, tag = id_of(trajectory, number), order.tag
    seconds = "1.0" if chance.random() < LONG_SHARE else f"0.0{chance.randrange(1, 7)}"
    work = f"echo {call} >>effects; sleep {seconds}{tag}; echo done {call}"
    match kind:
        case "daemons":
            quiet = f"sleep 9999.{tag} </dev/null >/dev/null 2>&1"
            command = f"setsid {quiet} & (setsid nohup {quiet} &) ; nohup sh -c '{quiet} & exec {quiet}' & {work}"
            return Planned(kind, "bash", {"command": command})
        case "repeatable":
            return Planned(kind, "bash", {"command": work}, "idempotent")
        case "stateful":
            counted = f"N=$((N+1)); echo {call} >>counter; sleep 0.02{tag}; echo $N"
            return Planned(kind, "bash_stateful", {"command": counted})
        case "write":
            return Planned(kind, "write_file", {"path": f"written/{number % 3}", "content": call}, "idempotent")
        case "read":
            return Planned(kind, "read_file", {"path": "token"}, "read")
        case "terminal":
            keys = ["C-u", "echo $TOKEN >>told", "Enter"]
            return Planned(kind, "tmux", {"action": "send_keys", "keys": keys, "block": True})
        case _:
            return Planned("once", "bash", {"command": work})
