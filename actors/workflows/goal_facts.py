"""The fact of a run about the goals that it pursues. What the goal itself has of it is in the same unit.

The tag is for ever. Not here: the events of the goals (`actors/state/goal_events.py`).
"""

from typing import Literal, TypeAlias

import msgspec

from perdure.store.codec import Event

Telling: TypeAlias = Literal["decision", "outcome", "violation", "progress"]


class GoalTold(Event, frozen=True, tag="goal-told"):
    """The workflow told a goal something, or asked how far it is; `result` is what the code got."""

    step: str
    branch: str
    goal: str
    what: Telling
    digest: str
    result: msgspec.Raw
