"""The commands of durable subscriptions, on a log of a program that has ended and on one that is open."""

import asyncio
import json
from pathlib import Path

import pytest

from perdure import LogEvent, Retry, Runtime, UsageError, connect
from perdure.actors.triggers.subscription import AskRedrive, subscription_stream
from tests.support.cli import Here


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder for a log."""
    return Here(tmp_path, capsys)


class Shop:
    """A handler that takes no event with a number under 10, until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.taken: list[int] = []

    async def __call__(self, event: LogEvent) -> None:
        if event.data < 10 and not self.is_mended:
            raise ValueError(f"{event.data} is too little")
        self.taken.append(event.data)


async def play(db: Path, shop: Shop, *numbers: int, letters: int = 0) -> None:
    async with Runtime(db) as rt:
        await rt.subscribe(shop, "paid", name="shop", retry=Retry()).opened()
        for number in numbers:
            await rt.publish("paid", number)
        while sum(one.statistics.delivered + one.statistics.dead for one in rt.events.list()) < len(numbers) + letters:  # noqa: ASYNC110 - the handler is in this program
            await asyncio.sleep(0)


def letters(here: Here) -> list[tuple[str, int, str]]:
    lines = here("dead-letters", "--db", here.db, "--json").out.splitlines()
    return [(one["subscription"], one["position"], one["error"]) for one in map(json.loads, lines)]


def test_subscriptions_shows_how_far_each_is(here: Here) -> None:
    asyncio.run(play(here.db, Shop(), 20, 5))

    shown = here("subscriptions", "--db", here.db)
    found = json.loads(here("subscriptions", "--db", here.db, "--json").out)

    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == ["SUBSCRIPTION", "EVENTS", "POSITION", "BEHIND", "RETRY", "DEAD"]
    assert (found["subscription"], found["events"], found["dead"]) == ("shop", ["paid"], 1)
    assert found["wanted"] == {"tags": ["paid"]}
    assert found["position"] > 0


def test_how_far_a_subscription_is_is_shown_as_a_position_and_is_no_open_run(here: Here) -> None:
    asyncio.run(play(here.db, Shop(), 20, 30))

    (line,) = here("log", "--db", here.db, "--type", "events-handled", "--last", "1").out.splitlines()
    (fields,) = here("log", "--db", here.db, "--type", "events-handled", "--last", "1", "--json").out.splitlines()

    assert line.endswith(f" until={json.loads(fields)['data']['until']}")
    assert "0 runs open, of which 0 sleep" in here("doctor", here.db).out


def test_a_log_of_no_subscription_says_so(here: Here) -> None:
    here.run("total")

    ended = here("subscriptions", "--db", here.db)

    assert (ended.code, ended.out) == (0, "")
    assert "nobody has subscribed under a name" in ended.err
    assert "there is no dead letter" in here("dead-letters", "--db", here.db).err


def test_a_dead_letter_is_shown_and_asked_for_and_delivered_by_the_program_that_subscribes(here: Here) -> None:
    shop = Shop()
    asyncio.run(play(here.db, shop, 20, 5, 30))
    [(name, position, error)] = letters(here)

    shown = here("dead-letters", "shop", "--db", here.db)
    first = here("redrive", "shop", str(position), "--db", here.db, "--who", "ada")
    again = here("redrive", "shop", str(position), "--db", here.db, "--json")
    shop.is_mended = True
    asyncio.run(play(here.db, shop, 40, letters=1))

    assert (name, error) == ("shop", "5 is too little")
    assert shown.out.splitlines()[1].split()[:4] == ["shop", str(position), "paid", "1"]
    assert first.out == (
        f"shop: the event at {position} is to be delivered again; it is delivered when a program subscribes as shop\n"
    )
    assert json.loads(again.out) == {"subscription": "shop", "position": position, "is_new": False}
    assert sorted(shop.taken) == [5, 20, 30, 40]
    assert letters(here) == []


def test_what_is_published_says_who_did_and_what_it_is_tied_to(here: Here) -> None:
    asyncio.run(play(here.db, Shop(), 20))

    ended = here("publish", "paid", "7", "--source", "till", "--correlation", "c-1", "--db", here.db)
    rows = here("log", "--db", here.db, "--type", "event-published", "--json").out.splitlines()

    assert ended.code == 0
    assert json.loads(rows[-1])["data"] == {"id": "#2", "data": 7, "source": "till", "correlation": "c-1"}


def test_what_is_no_dead_letter_is_refused(here: Here) -> None:
    asyncio.run(play(here.db, Shop(), 20))

    ended = here("redrive", "shop", "7", "--db", here.db)

    assert ended.code == 2
    assert "there is no dead letter of the event 7" in ended.err


def test_a_dead_letter_is_delivered_at_once_where_a_runtime_owns_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        shop, db = Shop(), tmp_path / "shop.db"
        async with Runtime(db) as rt:
            rt.subscribe(shop, "paid", name="shop", retry=Retry())
            await rt.publish("paid", 5)
            found = await rt.events.wait_for("paid", after="start")
            assert found is not None
            while not (await rt.events.dead_letters("shop"))["shop"]:  # noqa: ASYNC110 - a few turns
                await asyncio.sleep(0)
            shop.is_mended = True
            async with connect(db) as owner:
                asked = await owner.ask(subscription_stream("shop"), AskRedrive(found.position), principal="ada")
                with pytest.raises(UsageError, match="no dead letter of the event 999"):
                    await owner.ask(subscription_stream("shop"), AskRedrive(999))
            while (await rt.events.dead_letters("shop"))["shop"]:  # noqa: ASYNC110 - a few turns
                await asyncio.sleep(0)

        assert asked
        assert shop.taken == [5]

    asyncio.run(scenario())
