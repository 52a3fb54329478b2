"""How a map-reduce reduces: all results in one call of its last step, or page by page over what came of those before.

Invariant: the results come in the order of the items. What one call is sent is at most 8 MiB; `fold` stays below that
however many items there are.
"""

from typing import TYPE_CHECKING, Any

from perdure.actors.workflows.defined.calling import USUAL, Data, Way
from perdure.actors.workflows.defined.model import Step

if TYPE_CHECKING:
    from perdure.actors.workflows.defined.flow import Flow


class Reduction:
    """What the results of the items come to."""

    def __init__(self, flow: "Flow", reducer: Step) -> None:
        self._flow = flow
        self._reducer = reducer
        self._is_fold = flow.definition.reduce == "fold"
        self._answers: list[Any] = []
        self._pages = 0
        self._reduced: Any = None

    async def add(self, answers: list[Any]) -> None:
        """Take in the results of the next page.

        Raises:
            WorkflowFailedError: the step failed for good.
        """
        if self._is_fold:
            await self._reduce({"map_results": answers, "reduced": self._reduced})
        else:
            self._answers += answers

    async def result(self) -> Any:
        """Return what all of them came to; of no items too, the step is asked.

        Raises:
            WorkflowFailedError: the step failed for good.
        """
        if not self._is_fold:
            await self._reduce({"map_results": self._answers})
        elif not self._pages:
            await self.add([])
        return self._reduced

    async def _reduce(self, data: Data) -> None:
        self._pages += 1
        way = USUAL if self._pages == 1 else Way(key=f"{self._reducer.id}@{self._pages}")
        if not self._flow.applies(self._reducer, data, way.key):
            return  # what there was stays
        self._reduced = (await self._flow.perform(self._reducer, data, way)).data
