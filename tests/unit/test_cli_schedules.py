"""The commands about schedules: what they show, record and print, with a running owner and without one."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import BlockingRuntime, Context, EntryPoint, Query, Recorded, Runtime, Schedule, workflow
from perdure.runtime.cli.events import summary
from perdure.store.records import stream_id
from tests.support.cli import Here


@workflow
async def note(ctx: Context, event: dict[str, Any]) -> str:
    del ctx
    return str(event["reason"])


POINTS = [
    EntryPoint("nightly", note, Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")),
    EntryPoint("often", note, Schedule(every=timedelta(hours=1), run_immediately=True)),
]


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder with an application, and a log with two schedules."""
    found = Here(tmp_path, capsys)
    asyncio.run(live(found.db))
    return found


async def live(db: Path) -> None:
    """Have a runtime with the schedules, long enough for one of them to fire."""
    async with Runtime(db, entry_points=POINTS) as rt:
        ends = cast("AsyncGenerator[Recorded]", rt.tail(0, Query(types=("run-completed",))))
        await anext(ends)
        await ends.aclose()


def listed(here: Here, entry: str) -> dict[str, Any]:
    lines = here("schedules", "--db", here.db, "--json").out.splitlines()
    return next(found for found in map(json.loads, lines) if found["schedule"] == entry)


def history(here: Here) -> list[tuple[str, str | None]]:
    async def read() -> list[tuple[str, str | None]]:
        async with Runtime(here.db, resume=False) as rt:
            found = await rt.read(Query(stream_prefix="schedule/nightly"))
            return [(event.type, event.principal) for event in found]

    return asyncio.run(read())


def test_schedules_shows_when_each_is_due_and_what_it_did(here: Here) -> None:
    ended = here("schedules", "--db", here.db)

    head, nightly, often = ended.out.splitlines()
    assert head.split() == ["SCHEDULE", "STATE", "WHEN", "NEXT", "IN", "FIRED", "SKIPPED", "LAST", "RUN"]
    assert "at 30 2 * * * Europe/Berlin" in nightly
    assert nightly.split()[-2:] == ["0", "0"]
    assert "often:" in often
    assert ended.err == "no runtime owns the log: nothing fires before one is there\n"


def test_schedules_in_json_has_the_definition_and_the_next_time(here: Here) -> None:
    often, nightly = listed(here, "often"), listed(here, "nightly")

    assert (often["fired"], often["paused"], often["definition"]["every"]) == (1, False, "PT3600S")
    assert often["last_run"].startswith("often:")
    assert nightly["definition"]["cron"] == "30 2 * * *"
    assert nightly["next"] == nightly["next_due"]


def test_a_log_without_schedules_says_so(here: Here) -> None:
    here.run("total", id="r1")
    other = here.folder / "other.db"
    here("run", f"{here.file}:total", "--db", other)

    ended = here("schedules", "--db", other)

    assert (ended.code, ended.out, ended.err) == (0, "", f"there is no schedule in {other}\n")


def test_a_schedule_is_paused_and_resumed_where_no_runtime_is(here: Here) -> None:
    paused = here("schedules", "pause", "nightly", "--db", here.db, "--because", "holidays", "--who", "ada")
    again = here("schedules", "pause", "nightly", "--db", here.db, "--who", "ada")
    shown = listed(here, "nightly")
    resumed = here("schedules", "resume", "nightly", "--db", here.db, "--who", "eve")

    assert paused.out == "the schedule of nightly is paused by ada: holidays\n"
    assert again.out == "the schedule of nightly was paused before: nothing is recorded\n"
    assert (shown["paused"], shown["because"], shown["next"]) == (True, "holidays", None)
    assert resumed.out.startswith("the schedule of nightly goes on: next at ")
    assert history(here) == [("schedule-set", None), ("schedule-paused", "ada"), ("schedule-resumed", "eve")]


def test_the_log_is_named_before_the_subcommand_too(here: Here) -> None:
    ended = here("schedules", "--db", here.db, "pause", "nightly", "--who", "ada", "--json")

    assert json.loads(ended.out) == {"schedule": "nightly", "paused": True, "changed": True}


@pytest.mark.parametrize("verb", ["pause", "resume", "fire"])
def test_a_schedule_that_is_not_there_is_named_with_those_that_are(here: Here, verb: str) -> None:
    ended = here("schedules", verb, "weekly", "--db", here.db, "--who", "ada")

    assert ended.code == 2
    assert ended.err == f"error: {here.db} knows no schedule 'weekly'; there are: nightly, often\n"


def test_nobody_fires_a_schedule_where_no_runtime_is(here: Here) -> None:
    ended = here("schedules", "fire", "nightly", "--db", here.db, "--who", "ada")

    assert ended.code == 2
    assert ended.err == f"error: no runtime owns {here.db}: nobody there could start the run of nightly\n"


def test_a_running_owner_is_asked_to_pause_resume_and_fire(here: Here) -> None:
    with BlockingRuntime(here.db, entry_points=POINTS) as rt:
        paused = here("schedules", "pause", "nightly", "--db", here.db, "--who", "ada")
        shown = here("schedules", "--db", here.db)
        resumed = here("schedules", "resume", "nightly", "--db", here.db, "--who", "ada", "--json")
        fired = here("schedules", "fire", "nightly", "--db", here.db, "--who", "ada")
        result: object = rt.run(fired.out.strip()).result()

    assert paused.out.startswith("the schedule of nightly is paused by ada")
    assert (" paused " in shown.out, shown.err) == (True, "")
    assert json.loads(resumed.out)["changed"] is True
    assert (fired.code, fired.out, result) == (0, "nightly:by-hand-1\n", "by_hand")
    assert ("schedule-fired-by-hand", "ada") in history(here)


def test_times_within_others_are_shown_as_every_other_time_is(here: Here) -> None:
    lines = here("log", "--db", here.db, "--stream", "schedule/*").out.splitlines()

    fired = next(line for line in lines if "schedule-fired" in line)
    assert re.search(r"next=\{\"due\":(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d\.\d{3},", fired)
    assert not any(re.search(r"\d{15}", line) for line in lines)


def event_with(data: dict[str, Any], at: int = 1_767_225_600_000_000) -> Recorded:
    return Recorded(
        position=1, stream=stream_id("topic/a"), version=1, type="event-published", type_version=1, at=at,
        data=json.dumps(data, separators=(",", ":")), blobs=None, correlation=None, causation=None, principal=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"until": 25}, "until=25"),
        ({"cursor": {"until": 1_000}}, 'cursor={"until":1000}'),
        ({"data": {"due": 1_767_225_600_000}}, 'data={"due":1767225600000}'),
        ({"data": {"text": '"due":1767225600000000,'}}, 'data={"text":"\\"due\\":1767225600000000,"}'),
    ],
)
def test_what_is_no_time_stays_the_number_that_it_is(data: dict[str, Any], told: str) -> None:
    assert summary(event_with(data)) == told
