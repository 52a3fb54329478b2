"""The commands that start runs and steer them: what they record, what they print, and how they exit."""

import json
from pathlib import Path

import pytest

from tests.support.cli import Ended, Here


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder with an application."""
    return Here(tmp_path, capsys)


def start(here: Here, workflow: str, *arguments: str) -> Ended:
    return here("start", f"{here.file}:{workflow}", "--db", here.db, "--id", "r1", *arguments)


def status(here: Here) -> str:
    ended = here("ps", "--db", here.db, "--all", "--json")
    return str(json.loads(ended.out.splitlines()[0])["status"])


def test_start_records_a_run_and_runs_none_of_its_code(here: Here) -> None:
    ended = start(here, "total")

    assert (ended.code, ended.out) == (0, "r1\n")
    assert f"queued: recorded, and its code runs with: perdure resume {here.file}" in ended.err
    assert "application prints" not in ended.err
    assert status(here) == "queued"


def test_a_run_that_was_started_is_run_by_resume(here: Here) -> None:
    start(here, "total", "--json")

    ended = here("resume", here.file, "--db", here.db)

    assert ended.code == 0
    assert status(here) == "completed"


def test_a_paused_run_is_passed_over_by_resume_until_it_is_resumed_itself(here: Here) -> None:
    start(here, "total")

    paused = here("pause", "r1", "--db", here.db, "--because", "not yet", "--who", "ada")
    passed_over = here("resume", here.file, "--db", here.db)
    resumed = here("resume", "r1", "--db", here.db)

    assert paused.out == "run r1 is paused by ada: not yet\n"
    assert passed_over.code == 5
    assert "resume: paused by ada: not yet" in passed_over.out
    assert resumed.code == 0
    assert "paused no more; it goes on with: perdure resume FILE.py" in resumed.out
    assert status(here) == "queued"
    assert here("resume", here.file, "--db", here.db).code == 0


def test_run_says_how_a_paused_run_goes_on(here: Here) -> None:
    start(here, "total")
    here("pause", "r1", "--db", here.db, "--because", "not yet")

    ended = here.run("total")

    assert ended.code == 5
    assert f"run r1 is paused: not yet: perdure resume r1 --db {here.db}" in ended.err


@pytest.mark.parametrize(("command", "changed"), [("pause", False), ("resume", True)])
def test_in_json_a_command_says_whether_it_changed_anything(here: Here, command: str, changed: bool) -> None:
    start(here, "total")
    here("pause", "r1", "--db", here.db)

    ended = here(command, "r1", "--db", here.db, "--json")

    assert json.loads(ended.out) == {"run": "r1", "paused": command == "pause", "changed": changed}


def test_a_failed_run_is_retried_and_its_step_fails_again(here: Here) -> None:
    here.run("fails")

    retried = here("retry", "r1", "--db", here.db, "--who", "ada")

    assert retried.code == 0
    assert retried.out.startswith("run r1 is to be tried again from broken#1; it goes on with: perdure resume")
    assert status(here) == "due"
    assert "attempt 1 failed" in here("resume", here.file, "--db", here.db).err
    assert "to be tried again from broken#1, by ada" in here("show", "r1", "--db", here.db).out


@pytest.mark.parametrize("command", ["retry", "pause", "resume"])
def test_a_run_that_has_ended_well_is_neither_retried_nor_paused_nor_resumed(here: Here, command: str) -> None:
    here.run("total")

    ended = here(command, "r1", "--db", here.db)

    assert ended.code == 4
    assert "completed" in ended.err


def test_a_fork_begins_at_a_step_with_other_input(here: Here) -> None:
    here.run("buy", "--input", '{"amount": 5}')

    forked = here("fork", "r1", "pay#1", "--db", here.db, "--id", "f1", "--input", '{"amount": 6}')
    resumed = here("resume", here.file, "--db", here.db)

    assert (forked.code, forked.out) == (0, "f1\n")
    assert forked.err.startswith("forked from r1, before pay#1; its code runs with: perdure resume FILE.py")
    assert resumed.code == 0
    assert "application prints price" not in resumed.err
    shown = here("show", "f1", "--db", here.db).out
    assert "forked from r1" in shown
    assert '"receipt 6"' in shown


def test_a_fork_at_a_step_that_there_is_not_names_those_that_there_are(here: Here) -> None:
    here.run("buy", "--input", '{"amount": 5}')

    ended = here("fork", "r1", "pay#2", "--db", here.db)

    assert ended.code == 2
    assert "run r1 has no step 'pay#2'; it has search#1, pay#1" in ended.err


def test_who_resumes_is_said_of_runs_only(here: Here) -> None:
    start(here, "total")

    ended = here("resume", here.file, "--db", here.db, "--who", "ada")

    assert ended.code == 2
    assert "--who is of runs" in ended.err


def test_the_view_of_runs_has_pauses_and_forks(here: Here) -> None:
    here.run("buy", "--input", '{"amount": 5}')
    here("fork", "r1", "pay#1", "--db", here.db, "--id", "f1")
    here("pause", "f1", "--db", here.db)

    ended = here("log", "--db", here.db, "--sql", "SELECT run, status, forked_from FROM runs ORDER BY run", "--json")

    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"run": "f1", "status": "paused", "forked_from": "r1"},
        {"run": "r1", "status": "completed", "forked_from": None},
    ]


def published(here: Here) -> list[tuple[str, str]]:
    ended = here("log", "--db", here.db, "--type", "event-published", "--json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    return [(event["stream"], event["principal"]) for event in events]


def test_an_event_is_published_once_and_the_run_that_waits_for_it_goes_on_with_resume(here: Here) -> None:
    start(here, "shipment")
    here("resume", here.file, "--db", here.db)

    first = here("publish", "order.paid", '{"amount": 7}', "--db", here.db, "--id", "bank-1", "--who", "till 3")
    again = here("publish", "order.paid", '{"amount": 7}', "--db", here.db, "--id", "bank-1", "--json")
    other = here("publish", "order.paid", '{"amount": 8}', "--db", here.db, "--id", "bank-1")

    how = f"who waits for it goes on with: perdure resume FILE.py --db {here.db}"
    assert first.out == f"order.paid is published; {how}\n"
    assert json.loads(again.out) == {"type": "order.paid", "id": "bank-1", "is_new": False}
    assert (other.code, "bank-1" in other.err) == (2, True)
    assert published(here) == [("topic/order.paid", "till 3")]
    here("resume", here.file, "--db", here.db)
    assert status(here) == "completed"


@pytest.mark.parametrize(("type", "data"), [("order paid", "1"), ("order.paid", "{")])
def test_what_is_no_event_is_not_published(here: Here, type: str, data: str) -> None:
    start(here, "total")

    ended = here("publish", type, data, "--db", here.db)

    assert ended.code == 2
    assert published(here) == []


def test_an_event_is_published_into_a_log_that_is_there(here: Here) -> None:
    ended = here("publish", "order.paid", "--db", here.db)

    assert ended.code == 2
    assert not Path(here.db).exists()


def test_ps_and_show_say_which_event_a_run_waits_for(here: Here) -> None:
    start(here, "shipment")
    here("resume", here.file, "--db", here.db)

    listed = here("ps", "--db", here.db)
    shown = here("show", "r1", "--db", here.db)

    assert "r1   shipment  waiting      0" in listed.out
    assert listed.out.rstrip().endswith("an event: order.paid")
    assert "; for an event: order.paid" in shown.out
    assert "waits for order.paid" in shown.out


def test_run_leaves_a_run_that_waits_for_an_event_and_says_how_it_goes_on(here: Here) -> None:
    ended = here.run("shipment")

    assert ended.code == 5
    assert f"run r1 waits for an event: perdure publish TYPE JSON --db {here.db}" in ended.err
