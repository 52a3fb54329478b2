"""Looking back at events: which way the log is read for it, and that the way makes no difference to what is found."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from perdure import LogEvent
from perdure.actors.triggers.matching import EventFilter
from perdure.runtime.entries.history import newest_events
from perdure.runtime.entries.log_events import LogEvents
from perdure.store.protocols import EventLog
from perdure.store.records import Query
from tests.support.runs import box_with, play


class Asked:
    """Stands for the log: notes what is asked, and has nothing."""

    def __init__(self) -> None:
        self.streams: list[str | None] = []

    async def read(self, tags: Sequence[str], query: Query) -> tuple[list[LogEvent], int | None]:
        del tags
        self.streams.append(query.stream)
        return [], None


@pytest.mark.parametrize(
    ("types", "stream"),
    [
        (("order.paid",), "topic/order.paid"),
        (("order.paid", "order.shipped"), None),
        (("run-completed",), None),
        (("*",), None),
    ],
    ids=["one published type", "two", "one of the runtime's own", "all"],
)
def test_the_events_of_one_published_type_are_read_from_their_own_stream(
    types: tuple[str, ...], stream: str | None
) -> None:
    asked = Asked()

    asyncio.run(newest_events(cast("EventLog", None), cast("LogEvents", asked), EventFilter.of(types), 10))

    assert asked.streams == [stream]


def test_a_history_of_one_type_has_what_a_history_of_all_has_of_it() -> None:
    async def scenario() -> None:
        box = box_with()
        rt = await box.open()
        for number in range(5):
            await rt.publish("order.paid", number, source="shop" if number % 2 else "office")
            await rt.publish("order.shipped", number)

        paid = await rt.events.history("order.paid")
        of_shop = await rt.events.history("order.paid", stream="shop", limit=1)
        everything = await rt.events.history()

        assert [event.data for event in paid] == [4, 3, 2, 1, 0]
        assert paid == [event for event in everything if event.type == "order.paid"]
        assert [event.data for event in of_shop] == [3]
        await box.close()

    play(scenario)
