"""What people are asked for, and how what they say reaches the one run and question that it is for."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from perdure import (
    AnswerForm,
    Choice,
    Confirm,
    Context,
    Form,
    FormField,
    FreeText,
    InputOutcome,
    QuestionNotOpenError,
    RunClosedError,
    RunHandle,
    Runtime,
    UsageError,
    WrongAnswerError,
    tool,
    workflow,
)
from perdure.actors.workflows.forms import question_type, read_answer
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, box_with, disk_until, on_both_logs, play, storage


class Address(msgspec.Struct):
    street: str
    floor: int = 0


@tool
async def pay(cents: int) -> str:
    return f"paid {cents}"


async def asked(box: Box, workflow: Any, *arguments: Any, id: str = "r") -> RunHandle[Any]:
    run: RunHandle[Any] = await box.runtime.with_options(id=id).start(workflow, *arguments)
    await box.clock.settle()
    return run


def played(of: Any, wrong: list[Any], right: Any) -> tuple[str, Any]:
    """Ask for something; refuse what is wrong, take what is right; return the type and what the workflow got."""

    @workflow
    async def wf(ctx: Context) -> Any:
        return await ctx.ask("what?", of=of)

    async def scenario() -> tuple[str, Any]:
        async with box_with(wf) as box:
            await box.open()
            run = await asked(box, wf)
            [question] = await box.runtime.questions()
            for each in wrong:
                with pytest.raises(WrongAnswerError):
                    await run.answer(question.id, each)
            assert [one.id for one in await box.runtime.questions()] == [question.id]
            await run.answer(question.id, right)
            return question.type, await run.result()

    return play(scenario)


# Types


@pytest.mark.parametrize(
    ("of", "kind", "wrong", "right", "got"),
    [
        (str, "free_text", [1, None], "", ""),
        (FreeText(), "free_text", ["", 1], "so", "so"),
        (FreeText(min_length=0, max_length=3, pattern="^a*$"), "free_text", ["aaaa", "b"], "", ""),
        (Choice("red", "green", 3), "choice", ["blue", "3", None], 3, 3),
        (Literal["a", "b"], "choice", ["c", 1], "b", "b"),
        (bool, "confirm", ["yes", 1], True, True),
        (Confirm(), "confirm", [0, None], False, False),
        (Address, "form", ["x", {"floor": 1}], {"street": "a"}, {"street": "a", "floor": 0}),
        (dict[str, int], "form", [{"a": "b"}], {"a": 1}, {"a": 1}),
        (int, "value", ["1", 1.5, True], 1, 1),
    ],
)
def test_an_answer_is_checked_by_what_the_question_asks_for(
    of: Any, kind: str, wrong: list[Any], right: Any, got: Any
) -> None:
    assert played(of, wrong, right) == (kind, got)


def test_a_form_takes_its_fields_and_no_others() -> None:
    form = Form(
        FormField("name"),
        FormField("age", Annotated[int, msgspec.Meta(ge=18)], label="Your age", help="in years"),
        FormField("size", choices=("s", "m"), is_required=False),
    )
    wrong: list[Any] = [
        {},
        {"name": "ada"},
        {"name": "ada", "age": 17},
        {"name": "ada", "age": 36, "size": "xl"},
        {"name": "ada", "age": 36, "nmae": "ada"},
    ]

    assert played(form, wrong, {"name": "ada", "age": 36}) == ("form", {"name": "ada", "age": 36})
    assert form.schema()["$defs"]["Form"]["properties"]["age"]["title"] == "Your age"


@pytest.mark.parametrize(
    "make",
    [
        Form,
        lambda: Form(FormField("a"), FormField("a")),
        lambda: Form(FormField("")),
        lambda: Form(FormField("a", object)),
        Choice,
        lambda: FreeText(min_length=5, max_length=4),
        lambda: FreeText(pattern="("),
        lambda: Form("street"),  # type: ignore[arg-type] # the point
    ],
)
def test_what_nobody_could_answer_is_refused_where_it_is_written(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_form_has_its_own_choices() -> None:
    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return await ctx.ask("which?", of=Choice("a"), choices=["b"])
        except UsageError as error:
            return str(error)

    async def scenario() -> str:
        async with box_with(wf) as box:
            await box.open()
            return str(await (await asked(box, wf)).result())

    assert "leave choices out" in play(scenario)


def test_a_question_that_was_recorded_before_there_were_types_has_one() -> None:
    # Recorded with the first version that had questions: no field says the type.
    old: dict[str, Any] = {"schema": {"type": "boolean"}, "choices": None, "tool": ""}

    assert question_type(old["schema"], old["choices"]) == "confirm"
    assert question_type({}, [1, 2]) == "choice"
    assert question_type({}, None, tool="pay") == "approval"
    assert question_type({"anyOf": [{"type": "string"}, {"type": "null"}]}, None) == "value"


@pytest.mark.parametrize(
    ("text", "of", "meant"),
    [
        ("yes", Confirm(), True),
        ("N", Confirm(), False),
        ("true", Confirm(), True),
        ("7", FreeText(), "7"),
        ("yes", FreeText(), "yes"),
        ('"quoted"', FreeText(), "quoted"),
        ("7", AnswerForm(int), 7),
        ("green", Choice("red", "green"), "green"),
        ("3", Choice(3, 4), 3),
        ("3", Choice("3", "4"), "3"),
        ('{"street": "a"}', AnswerForm(Address), {"street": "a"}),
    ],
)
def test_what_people_write_is_read_as_the_question_takes_it(text: str, of: AnswerForm[Any], meant: Any) -> None:
    assert read_answer(text, of.schema(), of.choices) == meant


# Addressing


@workflow
async def ask_number(ctx: Context, text: str) -> int:
    return await ctx.ask(text, of=int)


@pytest.mark.row("A3-74")
@on_both_logs
def test_a_request_for_input_says_everything_and_is_answered_once_by_its_id_also_after_a_restart(
    kind: str, tmp_path: Any
) -> None:
    async def scenario() -> None:
        async with box_with(ask_number, on=storage(kind, tmp_path)) as box:
            await box.open()
            await asked(box, ask_number, "how many?")
            [event] = await box.runtime.events.history(type="client_input_requested")
            told = event.to_dict()
            assert (told["type"], told["execution_id"], told["node_id"]) == ("client_input_requested", "r", "ask#1")
            assert told["data"] == {
                "prompt": "how many?", "request_id": "r:ask#1", "question_type": "value", "choices": None,
            }  # fmt: skip

            rt = await box.crash_and_reopen()
            assert await rt.inject_input("r:ask#1", 3, who="ada") is InputOutcome.ACCEPTED
            assert await rt.inject_input("r:ask#1", 4, who="bob") is InputOutcome.NOT_WAITING
            with pytest.raises((QuestionNotOpenError, RunClosedError)):
                await rt.run("r").answer("r:ask#1", 4)
            assert await rt.run("r", ask_number).result() == 3

    play(scenario)


@pytest.mark.row("A3-74")
def test_an_answer_is_kept_whatever_event_was_the_last_one_before_a_crash() -> None:
    async def scenario() -> None:
        disk = MarkedDisk()
        async with box_with(ask_number, on=disk) as box:
            await box.open()
            run = await asked(box, ask_number, "how many?")
            await box.runtime.inject_input("r", "3")
            await run.result()
            history = await run.history()
        answered = next(e.position for e in history if e.type == "question-answered")
        for border in [b for b in sorted(disk.borders) if history[0].position <= b < history[-1].position]:
            async with box_with(ask_number, on=disk_until(disk, border)) as box:
                rt = await box.open()
                await box.clock.settle()
                expected = InputOutcome.ACCEPTED if border < answered else InputOutcome.NOT_WAITING
                assert await rt.inject_input("r", 3) is expected
                assert await rt.run("r", ask_number).result() == 3

    play(scenario)


@pytest.mark.row("A3-75")
def test_of_two_runs_that_wait_at_the_same_step_each_gets_what_is_for_it() -> None:
    async def scenario() -> tuple[Any, ...]:
        async with box_with(ask_number) as box:
            await box.open()
            one = await asked(box, ask_number, "?", id="one")
            two = await asked(box, ask_number, "?", id="two")

            assert await box.runtime.inject_input("two", 2) is InputOutcome.ACCEPTED
            rt = await box.crash_and_reopen()
            assert await rt.inject_input("one:ask#1", 1) is InputOutcome.ACCEPTED

            return await rt.run(one.id).result(), await rt.run(two.id).result()

    assert play(scenario) == (1, 2)


@pytest.mark.row("A3-76")
def test_input_that_nobody_waits_for_is_not_waiting_and_for_nobody_is_false() -> None:
    @workflow
    async def quiet(ctx: Context) -> str:
        return await ctx.signal("go", of=str)

    async def scenario() -> list[Any]:
        async with box_with(quiet, ask_number) as box:
            rt = await box.open()
            await asked(box, quiet, id="quiet")
            run = await asked(box, ask_number, "?", id="done")
            await rt.inject_input("done", 1)
            await run.result()
            targets = ("quiet", "quiet:signal#1", "quiet:ask#1", "done", "done:ask#1", "done:ask#2", "nobody", "a b")
            outcomes = [await rt.inject_input(one, "x") for one in targets]
            assert not [e for e in await rt.run("quiet").history() if "question" in e.type]
            return outcomes

    waiting, no = InputOutcome.NOT_WAITING, False
    assert play(scenario) == [waiting, no, no, waiting, waiting, no, no, no]


def test_input_for_a_run_that_asks_twice_changes_nothing_and_says_so() -> None:
    @workflow
    async def twice(ctx: Context) -> list[Any]:
        return list(await ctx.gather(ctx.ask("a?", of=str), ctx.ask("b?", of=str)))

    async def scenario() -> Any:
        async with box_with(twice) as box:
            rt = await box.open()
            run = await asked(box, twice)
            assert await rt.inject_input("r", "x") is InputOutcome.AMBIGUOUS
            assert len(await rt.questions()) == 2

            for one in await rt.questions():
                await rt.inject_input(one.id, one.text)
            return await run.result()

    assert play(scenario) == ["a?", "b?"]


def test_input_that_does_not_fit_is_refused_and_the_question_stays_open() -> None:
    async def scenario() -> None:
        async with box_with(ask_number) as box:
            rt = await box.open()
            await asked(box, ask_number, "?")
            with pytest.raises(WrongAnswerError, match="not of the type integer"):
                await rt.inject_input("r", "many")
            assert len(await rt.questions()) == 1

    play(scenario)


def test_input_does_not_approve_a_call() -> None:
    @workflow
    async def careful(ctx: Context) -> str:
        return (await ctx.approval().of(pay, 100)).outcome

    async def scenario() -> str:
        async with box_with(careful) as box:
            rt: Runtime = await box.open()
            run = await asked(box, careful)
            with pytest.raises(WrongAnswerError, match="approve it or reject it"):
                await rt.inject_input("r", True)
            [question] = await rt.questions()
            await run.reject(question.id, who="ada")
            return str(await run.result())

    assert play(scenario) == "rejected"


def test_ids_with_colons_are_told_apart() -> None:
    async def scenario() -> list[Any]:
        async with box_with(ask_number) as box:
            rt = await box.open()
            await asked(box, ask_number, "?", id="a")
            await asked(box, ask_number, "?", id="a:b")
            await rt.inject_input("a:b", 2)
            await rt.inject_input("a:ask#1", 1)
            with pytest.raises((QuestionNotOpenError, RunClosedError)):
                await rt.run("a:b").answer("a:b:ask#1", 3)
            return [await rt.run("a").result(), await rt.run("a:b").result()]

    assert play(scenario) == [1, 2]
