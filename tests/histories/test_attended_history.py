"""The history of schedules and subscriptions that was recorded once: wherever it is cut, today's runtime goes on."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from perdure import Recorded
from perdure.actors.triggers.schedule import SCHEDULE_EVENTS
from perdure.actors.triggers.subscription import SUBSCRIPTION_FACTS
from perdure.store.codec import Codec
from perdure.testing import TestClock
from tests.histories.attending import ENTRIES, NAME, Ear, box_on, listen, redrive, say
from tests.histories.loading import Line, disk_of, read
from tests.support.runs import HOUR, data, play
from tests.support.schedules import every_event

TURNS = 6
LINES = read(NAME)[1]


class Outcome(msgspec.Struct, frozen=True):
    """What came of a history that was cut."""

    cut: int
    is_once: bool
    """Whether no due time was fired twice, and none was passed over that was fired."""
    is_heard: bool
    """Whether the handler has heard what was published, and nothing is left over."""
    fired: tuple[int, ...]
    """How many runs each schedule has started since."""


def cuts(lines: list[Line], part: int) -> list[int]:
    """Return a third of the places at which a log may end."""
    return [number for number, line in enumerate(lines, 1) if not line.more][part::3]


def dues(log: Iterable[Recorded], entry: str) -> Counter[int]:
    """Return the due times of a schedule that were done with, one way or the other, and how often."""
    found: Counter[int] = Counter()
    for row in log:
        if row.stream != f"schedule/{entry}":
            continue
        fact = data(row)
        if row.type == "schedule-fired":
            found[fact["due"]] += 1
        elif row.type == "firings-skipped":
            found.update({fact["first"], fact["last"]})
    return found


async def gone_on(cut: int) -> Outcome:
    """Open what is left of the history, let some hours pass, and return what came of it."""
    lines = LINES[:cut]
    clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=lines[-1].at))
    async with box_on(await disk_of(lines), clock) as box:
        rt, ear = await box.open(), Ear()
        ear.takes_all = True
        await listen(rt, ear)
        before = [(await rt.schedules.get(entry.id)).fired for entry in ENTRIES]
        await rt.schedules.resume("bell")
        await say(rt, "again")
        for _ in range(TURNS):
            await clock.advance(HOUR.total_seconds())
        await redrive(rt)
        await clock.advance(1)
        after = [(await rt.schedules.get(entry.id)).fired for entry in ENTRIES]
        log = await every_event(rt)
        letters = (await rt.events.dead_letters("ear"))["ear"]
        return Outcome(
            cut,
            all(count == 1 for entry in ENTRIES for count in dues(log, entry.id).values()),
            ear.heard.count("again") == 1 and not letters,
            tuple(now - then for now, then in zip(after, before, strict=True)),
        )


def test_the_history_holds_every_event_of_schedules_and_of_subscriptions() -> None:
    tags = Codec([*SCHEDULE_EVENTS, *SUBSCRIPTION_FACTS]).tags

    assert tags - {line.type for line in LINES} == set()


@pytest.mark.parametrize("part", range(3))
def test_schedules_and_subscriptions_go_on_wherever_the_history_is_cut(part: int) -> None:
    async def scenario() -> list[Outcome]:
        return [await gone_on(cut) for cut in cuts(LINES, part)]

    found = play(scenario)

    assert len(found) > 20
    assert [one for one in found if not one.is_once or not one.is_heard] == []
    # Every hour; or when the run before, of an hour and a half, is over: every third hour at the least.
    assert {one.cut: one.fired for one in found if not all(TURNS // 3 <= n <= TURNS + 1 for n in one.fired)} == {}
