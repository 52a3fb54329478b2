"""The commands for people, pauses, conversations and checkpoints: what they print, what they record, how they exit."""

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from perdure import Runtime
from tests.support.cli import Ended, Here

APPLICATION = """
from perdure import Choice, Confirm, Context, Form, FormField, FreeText, tool, workflow


@tool
async def draft(text: str) -> str:
    return text


@workflow
async def release(ctx: Context) -> list:
    text = await ctx.call(draft, "hello")
    verdict = await ctx.pause("review", result={"text": text}, text="is it good?", of=dict)
    form = Form(FormField("street", label="Street"), FormField("floor", int, is_required=False))
    where = await ctx.ask("where?", of=form)
    which = await ctx.ask("which?", of=Choice("small", "large"))
    sure = await ctx.ask("sure?", of=Confirm())
    return [verdict, where, which, sure, await ctx.ask("why?", of=FreeText())]
"""


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder with an application."""
    (tmp_path / "releases.py").write_text(APPLICATION, encoding="utf-8")
    asyncio.run(begin(tmp_path))
    return Here(tmp_path, capsys)


async def begin(folder: Path) -> None:
    """Start a run in a conversation that keeps something."""
    spec = importlib.util.spec_from_file_location("releases_of_the_test", folder / "releases.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with Runtime(folder / "people.db", workflows=[module.release]) as rt:
        chat = rt.conversation("chat-1")
        await chat.keep("plan", {"a": 1})
        await chat.with_options(id="r-1").start(module.release)
        await rt.until_idle()


def call(here: Here, *arguments: str, folder: Path) -> Ended:
    return here(*arguments, "--db", str(folder / "people.db"))


def test_a_run_that_paused_itself_is_shown_as_paused_and_resumed_with_an_answer(here: Here, tmp_path: Path) -> None:
    listed = call(here, "ps", folder=tmp_path)
    refused = call(here, "resume", "r-1", "--answer", "[1]", folder=tmp_path)
    resumed = call(here, "resume", "r-1", "--answer", '{"ok": true}', "--who", "ada", folder=tmp_path)
    again = call(here, "resume", "r-1", "--answer", '{"ok": false}', folder=tmp_path)

    assert "resume with --answer: paused at review: is it good?" in listed.out
    assert refused.code == 2
    assert "not of the type object" in refused.err
    assert (resumed.code, "paused no more" in resumed.out) == (0, True)
    assert (again.code, "it is not paused" in again.err) == (4, True)


def test_what_people_write_answers_what_a_question_asks_for(here: Here, tmp_path: Path) -> None:
    file = str(tmp_path / "releases.py")
    call(here, "resume", "r-1", "--answer", "{}", folder=tmp_path)
    asked: list[str] = []
    for number, said in enumerate(('{"street": "a"}', "large", "yes", "because"), 1):
        call(here, "resume", file, folder=tmp_path)
        asked.append(call(here, "questions", folder=tmp_path).out)
        wrong = call(here, "answer", f"r-1:ask#{number}", '{"no": 1}', folder=tmp_path)
        answered = call(here, "answer", f"r-1:ask#{number}", said, folder=tmp_path)
        assert (wrong.code, answered.code) == (2 if number < 4 else 0, 0 if number < 4 else 4)
    call(here, "resume", file, folder=tmp_path)
    shown = json.loads(call(here, "show", "r-1", "--json", folder=tmp_path).out)

    assert "street: string (Street) ↵ floor: integer, may be left out" in asked[0]
    assert [kind in text for kind, text in zip(("form", "choice", "confirm", "free_text"), asked, strict=True)] == [
        True
    ] * 4
    assert shown["result"] == [{}, {"street": "a"}, "large", True, '{"no": 1}']


def test_a_run_in_place_of_its_question_is_a_wrong_call_that_says_what_to_write(here: Here, tmp_path: Path) -> None:
    refused = call(here, "answer", "r-1", "yes", folder=tmp_path)

    assert (refused.code, refused.out) == (2, "")
    assert "r-1 is a run: name its question, r-1:STEP; perdure questions" in refused.err


def test_conversations_are_listed_with_their_runs_and_artifacts(here: Here, tmp_path: Path) -> None:
    every = call(here, "conversations", folder=tmp_path)
    one = call(here, "conversations", "chat-1", folder=tmp_path)
    plain = json.loads(call(here, "conversations", "--json", folder=tmp_path).out)
    none = call(here, "conversations", "chat-2", folder=tmp_path)

    assert [word in every.out for word in ("chat-1", "paused", "r-1: release")] == [True] * 3
    assert [word in one.out for word in ("conversation chat-1 is paused", "r-1", "plan", "application/json")] == [
        True
    ] * 4
    assert (plain["status"], plain["runs"]) == ("paused", [{"run": "r-1", "workflow": "release", "status": "paused"}])
    assert none.code == 2


def test_a_run_is_forked_at_a_checkpoint_that_is_listed_and_at_no_other(here: Here, tmp_path: Path) -> None:
    listed = call(here, "checkpoints", "r-1", "--json", folder=tmp_path)
    first = json.loads(listed.out.splitlines()[0])
    forked = call(here, "fork", "r-1", "--checkpoint", first["id"], "--id", "r-2", folder=tmp_path)
    unknown = call(here, "fork", "r-1", "--checkpoint", "r-1#99", folder=tmp_path)
    neither = call(here, "fork", "r-1", folder=tmp_path)

    assert (first["step"], first["type"]) == ("draft#1", "step-completed")
    assert (forked.code, forked.out) == (0, "r-2\n")
    assert f"forked from r-1, at {first['id']}" in forked.err
    assert (unknown.code, "its latest is r-1#" in unknown.err) == (2, True)
    assert (neither.code, "say one of" in neither.err) == (2, True)
