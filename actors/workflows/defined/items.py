"""The items of a map-reduce, page by page: from the data of the run, or from a first step that is asked for each page.

Invariant: no event holds more than one page, unless the items came with the start of the run.
"""

from typing import TYPE_CHECKING, Any

from perdure.actors.workflows.defined.calling import Way
from perdure.actors.workflows.defined.data import MISSING, look_up
from perdure.actors.workflows.defined.model import Step

if TYPE_CHECKING:
    from perdure.actors.workflows.defined.flow import Flow

MAP_AND_REDUCE = 2
"""Steps of a map-reduce; one more, the first, is the source of the items."""


class Items:
    """Where the items come from, and how far they have been read."""

    def __init__(self, flow: "Flow") -> None:
        steps = flow.definition.steps
        self._flow = flow
        self._source: Step | None = steps[0] if len(steps) > MAP_AND_REDUCE else None
        self._pages = 0
        self._cursor: Any = None
        self._is_over = False

    async def next_page(self) -> list[Any]:
        """Return the next items, at most a page of them from the data; none when there are no more.

        Raises:
            WorkflowFailedError: the source failed for good, or what it gives are no items.
        """
        if self._source is None:
            size = self._flow.definition.page_size
            self._pages += 1
            return self._items_in(self._flow.data)[(self._pages - 1) * size : self._pages * size]
        page: list[Any] = []
        while not page and not self._is_over:
            page = await self._ask(self._source)
        return page

    async def _ask(self, source: Step) -> list[Any]:
        """Ask the source for the page at the cursor; it says where the next one is, null being the end."""
        key = source.id if self._pages == 0 else f"{source.id}@{self._pages + 1}"
        self._pages += 1
        data = {**self._flow.data, "cursor": self._cursor}
        if not self._flow.applies(source, data, key):
            self._is_over = True
            return []
        answer = (await self._flow.perform(source, data, Way(key=key))).data
        found = look_up(answer, "cursor")
        following = None if found is MISSING else found
        if following is not None and following == self._cursor:
            # It would give the same page again, for ever.
            raise self._flow.broken(f"step {source.id} gave the cursor that it was asked with", "InvalidItems", source)
        self._cursor = following
        self._is_over = self._cursor is None
        return self._items_in(answer)

    def _items_in(self, data: Any) -> list[Any]:
        items = look_up(data, self._flow.definition.items)
        if items is MISSING or items is None:
            return []
        if not isinstance(items, list):
            raise self._flow.broken(f"{self._flow.definition.items} is not a list of items", "InvalidItems")
        return items  # pyright: ignore[reportUnknownVariableType] # JSON
