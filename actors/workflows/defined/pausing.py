"""Steps of a definition after which its run is paused, and where it goes on when it is resumed. Pure.

Not here: the pause itself (`workflows/pausing.py`). Invariant: a step that was performed and paused is not performed
again by the resume, whether or not the definition names a step to go on at.
"""

from collections.abc import Iterator
from typing import Final

from perdure.actors.workflows.defined.errors import Fault
from perdure.actors.workflows.defined.model import Pattern, Step, WorkflowDefinition

PAUSING: Final[tuple[Pattern, ...]] = ("sequential", "conditional", "saga", "event_driven")
"""Patterns in which one step after the other is performed: where there is one place to go on at."""

RESUME: Final = "_resume"


def after_pause(definition: WorkflowDefinition, step: Step) -> Step | None:
    """Return the step at which a run goes on that was paused after *step*; None: with whatever comes next."""
    wanted = step.id + RESUME
    return next((each for each in definition.steps if step.pause and each.id == wanted), None)


def pause_faults(definition: WorkflowDefinition) -> Iterator[Fault]:
    """Yield what is wrong with the steps after which a run is paused."""
    places = {step.id: number for number, step in enumerate(definition.steps)}
    for number, step in enumerate(definition.steps):
        following = after_pause(definition, step)
        if not step.pause and step.answer != "answer":
            yield Fault(f"steps[{number}].answer", "only a step with pause has an answer")
        if following is None:
            continue
        if definition.pattern == "conditional" and step.next is not None:
            text = f"it would never be followed: the run goes on at {following.id} when it is resumed"
            yield Fault(f"steps[{number}].next", text)
        if definition.pattern == "event_driven" and following.on:
            text = f"it would never be waited for: {following.id} is performed when the run is resumed"
            yield Fault(f"steps[{places[following.id]}].on", text)
        if definition.pattern in ("sequential", "saga") and places[following.id] < number:
            text = f"the run goes on at {following.id} when it is resumed, which comes before it: move it after it"
            yield Fault(f"steps[{number}].pause", text)


class InOrder:
    """The steps of a definition, one after the other, where one may say at which later one to go on."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self._steps = definition.steps
        self._next = 0

    def __iter__(self) -> Iterator[Step]:
        while self._next < len(self._steps):
            self._next += 1
            yield self._steps[self._next - 1]

    def go_on_at(self, step: Step | None) -> None:
        """Pass over the steps before *step*; None passes over none."""
        if step is not None:
            self._next = self._steps.index(step)
