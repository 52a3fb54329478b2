"""Definitions and agents of a file on the command line: run, recorded, resumed, checked, shown and forked."""

import json
from pathlib import Path

import pytest

from tests.support.cli import Here

APPLICATION = """
from perdure import Agent, Step, WorkflowDefinition, load_definition

def is_large(data):
    return data["amount"] > 100

def echo(message):
    return {"n": message.data.get("n")}

AGENTS = [Agent("echo", echo)]
large = WorkflowDefinition(id="large-orders", steps=(Step(id="look", agent="echo", conditions="is_large"),))
twice = load_definition('''
id = "twice"
steps = [
  { id = "first", agent = "echo", input_mapping = { n = "a" }, output_mapping = { n = "first" } },
  { id = "second", agent = "echo", input_mapping = { n = "b" }, output_mapping = { n = "second" } },
]
''')
"""


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder with an application."""
    made = Here(tmp_path, capsys)
    made.file.write_text(APPLICATION, encoding="utf-8")
    return made


@pytest.mark.parametrize("name", ["large", "large-orders"])
def test_a_definition_is_run_by_its_variable_and_by_its_id_with_the_input_as_its_data(here: Here, name: str) -> None:
    small = here.run(name, "--input", '{"amount": 7}', id="r1")
    big = here.run(name, "--input", '{"amount": 700}', id="r2")

    assert [json.loads(ended.out)["steps_executed"] for ended in (small, big)] == [0, 1]


def test_a_recorded_definition_fits_and_is_resumed(here: Here) -> None:
    here("start", f"{here.file}:twice", "--db", here.db, "--id", "r1", "--input", '{"a": 1, "b": 2}')

    checked = here("check", here.file, "--db", here.db, "--json")
    resumed = here("resume", here.file, "--db", here.db, "--json")

    assert (checked.code, json.loads(checked.out)["verdict"]) == (0, "fits")
    assert (resumed.code, json.loads(resumed.out)["status"]) == (0, "completed")


def test_a_definition_with_a_fault_is_refused_before_the_log_is_made(here: Here) -> None:
    here.file.write_text(APPLICATION.replace('Agent("echo"', 'Agent("Echo"'), encoding="utf-8")

    ended = here.run("twice", "--input", '{"a": 1, "b": 2}')

    assert ended.code == 2
    assert "steps[0].agent" in ended.err
    assert not here.db.exists()


def test_the_run_of_a_definition_is_shown_with_its_data_and_not_with_its_definition(here: Here) -> None:
    here.run("twice", "--input", '{"a": 1, "b": 2}')

    lines = here("show", "r1", "--db", here.db).out.splitlines()

    assert "workflow  twice (sequential, 2 steps)" in lines
    assert 'input     {"a":1,"b":2}' in lines


def test_a_fork_of_a_definition_changes_entries_of_its_data(here: Here) -> None:
    here.run("twice", "--input", '{"a": 1, "b": 2}')
    here("fork", "r1", "second", "--db", here.db, "--id", "r2", "--input", '{"b": 3}')
    here("resume", here.file, "--db", here.db)

    shown = here("show", "r2", "--db", here.db, "--json")

    assert json.loads(shown.out)["result"]["final_data"] == {"a": 1, "b": 3, "first": 1, "second": 3}


def test_a_fork_of_a_saga_takes_over_its_steps_and_its_agents_are_told_of_another_saga(here: Here) -> None:
    text = APPLICATION.replace('"n": message.data.get("n")', '"n": message.metadata["saga_id"]')
    here.file.write_text(text.replace('id = "twice"', 'id = "twice"\npattern = "saga"'), encoding="utf-8")
    here.run("twice", "--input", '{"a": 1, "b": 2}')
    here("fork", "r1", "second", "--db", here.db, "--id", "r2")
    here("resume", here.file, "--db", here.db)

    shown = json.loads(here("show", "r2", "--db", here.db, "--json").out)

    data = shown["result"]["final_data"]
    assert (data["first"], data["second"]) == ("r1:saga#1", "r2:saga#1")


def test_a_run_that_the_code_cannot_read_says_so_when_it_is_resumed(here: Here) -> None:
    here("start", f"{here.file}:large", "--db", here.db, "--id", "r1", "--input", '{"amount": 1}')
    text = "from perdure import Context, workflow\n@workflow(name='large-orders')\nasync def w(ctx: Context): ...\n"
    here.file.write_text(text, encoding="utf-8")

    ended = here("resume", here.file, "--db", here.db)

    assert ended.code == 5
    assert "its code cannot go on with it: invalid arguments for large-orders" in ended.out


STUCK = """
from datetime import timedelta
from perdure import Context, Retry, tool, workflow

@tool
async def reserve() -> int:
    return 1

@tool
async def release(n: int) -> None:
    raise ConnectionError("no answer")

@tool
async def fail() -> None:
    raise ValueError("sold out")

@workflow
async def order(ctx: Context) -> None:
    async with ctx.saga() as saga:
        await saga.undo_with(release, retry=Retry(attempts=2, backoff=timedelta(0))).call(reserve)
        await saga.call(fail)
"""


def test_a_compensation_that_was_made_by_hand_is_settled_without_a_result(here: Here) -> None:
    here.file.write_text(STUCK, encoding="utf-8")
    stuck = here.run("order")

    settled = here("settle", "r1", "reserve#1#undo", "--db", here.db, "--done")
    resumed = here("resume", here.file, "--db", here.db, "--json")

    assert (stuck.code, settled.code) == (4, 0)
    assert json.loads(resumed.out)["status"] == "failed"
