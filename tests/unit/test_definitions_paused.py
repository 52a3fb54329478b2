"""Steps of a definition after which the run is paused, and where it goes on when it is resumed with an answer."""

from typing import Any

import pytest

from perdure import InvalidDefinitionError, RunHandle, Runtime, Step, Trigger
from perdure.actors.triggers.event_names import document_name
from perdure.actors.workflows.defined.model import WorkflowDefinition
from tests.support.defined import Troupe, defined
from tests.support.lives import MarkedDisk
from tests.support.runs import Box, disk_until, play


def troupe_of(*names: str) -> Troupe:
    troupe = Troupe()
    for name in names:
        troupe.agent(name, {name: "done"})
    return troupe


async def paused(box: Box, data: dict[str, Any] | None = None) -> RunHandle[Any]:
    rt = await box.open()
    run: RunHandle[Any] = await rt.start(rt.workflows["w"], data or {})
    await box.clock.settle()
    return run


REVIEW = defined(
    "sequential",
    Step(id="draft", agent="ada"),
    Step(id="review", agent="ben", pause=True, answer="verdict", output_mapping={"ben": "review"}),
    Step(id="publish", agent="cleo"),
)


@pytest.mark.row("A3-72")
def test_a_step_with_pause_is_performed_and_then_the_run_is_paused_and_not_completed() -> None:
    async def scenario() -> None:
        troupe = troupe_of("ada", "ben", "cleo")
        async with troupe.box(REVIEW) as box:
            run = await paused(box, {"n": 1})

            view = await run.status()
            assert (view.status, view.paused_at, view.result) == ("paused", "review", '{"n":1,"review":"done"}')
            assert troupe.called() == ["ada", "ben"]
            told = {document_name(event.type) for event in await run.history()}
            assert "execution_paused" in told
            assert not told & {"execution_completed", "execution_failed", "execution_resumed"}

    play(scenario)


@pytest.mark.row("A3-73")
def test_the_answer_is_in_the_data_and_the_next_step_follows() -> None:
    async def scenario() -> None:
        troupe = troupe_of("ada", "ben", "cleo")
        async with troupe.box(REVIEW) as box:
            run = await paused(box)
            await run.resume({"good": True})
            result = await run.result()

            assert result["final_data"] == {"review": "done", "verdict": {"good": True}}
            assert [one["step_id"] for one in result["step_results"]] == ["draft", "review", "publish"]
            assert troupe.data("cleo") == [{"review": "done", "verdict": {"good": True}}]
            assert troupe.called() == ["ada", "ben", "cleo"]
            assert "execution_resumed" in {document_name(event.type) for event in await run.history()}

    play(scenario)


@pytest.mark.row("A3-73")
@pytest.mark.parametrize("pattern", ["sequential", "saga"])
def test_it_goes_on_at_the_step_called_after_it_if_there_is_one(pattern: str) -> None:
    definition = defined(
        pattern,
        Step(id="ask", agent="ada", pause=True, conditions={"if": "answer", "exists": False}),
        Step(id="passed_over", agent="ben"),
        Step(id="ask_resume", agent="cleo"),
        Step(id="last", agent="dora"),
    )

    async def scenario() -> Any:
        troupe = troupe_of("ada", "ben", "cleo", "dora")
        async with troupe.box(definition) as box:
            run = await paused(box)
            await run.resume("yes")
            result = await run.result()
            return troupe.called(), result["final_data"]

    assert play(scenario) == (["ada", "cleo", "dora"], {"answer": "yes"})


def circle() -> dict[str, Any]:
    return {
        "id": "w",
        "pattern": "conditional",
        "steps": [
            {"id": "ask", "agent": "ada", "pause": True},
            {
                "id": "ask_resume",
                "agent": "ben",
                "next": {"condition": {"if": "answer", "eq": "again"}, "true": "ask"},
            },
        ],
    }


@pytest.mark.row("A3-73")
def test_a_step_that_is_come_to_again_pauses_again() -> None:
    async def scenario() -> Any:
        troupe = troupe_of("ada", "ben")
        async with troupe.box(circle()) as box:
            run = await paused(box)
            for answer in ("again", "again", "enough"):
                assert (await run.status()).paused_at == "ask"
                await run.resume(answer)
                await box.clock.settle()
            result = await run.result()
            return troupe.called(), [entry["step"] for entry in result["path"]]

    called, path = play(scenario)

    assert called == ["ada", "ben"] * 3
    assert path == ["ask", "ask_resume"] * 3


@pytest.mark.row("A3-72", "A3-73")
@pytest.mark.parametrize("definition", [REVIEW, circle()])
def test_a_crash_after_any_event_of_it_changes_nothing(definition: Any) -> None:
    async def scenario() -> None:
        disk, troupe = MarkedDisk(), troupe_of("ada", "ben", "cleo")
        async with troupe.box(definition, on=disk) as box:
            run = await paused(box, {"n": 1})
            await run.resume("enough")
            expected = await run.result()
            history = await run.history()
        borders = [b for b in sorted(disk.borders) if history[0].position <= b < history[-1].position]
        assert len(borders) > 6
        for border in borders:
            again = troupe_of("ada", "ben", "cleo")
            async with again.box(definition, on=disk_until(disk, border)) as box:
                rt = await box.open()
                await box.clock.settle()
                run = rt.run(run.id)
                if (await run.status()).status == "paused":
                    await run.resume("enough")
                result = await run.result()
                done = [e for e in history if e.type == "step-completed" and e.position <= border]
                assert _shape(result) == _shape(expected), border
                assert len(again.called()) == len(troupe.called()) - len(done)

    play(scenario)


CHOREOGRAPHY = defined(
    "event_driven",
    Step(id="ask", agent="ada", on=(Trigger(event="came"),), pause=True),
    Step(id="tell", agent="ben", on=(Trigger(event="went"),), conditions={"if": "answer"}),
    Step(id="ask_resume", agent="cleo", input_mapping={"told": "answer", "of": "event.type"}),
)


async def published(box: Box) -> None:
    for event in ("came", "went"):
        await box.runtime.publish(event, {}, id=event)
    await box.clock.settle()


@pytest.mark.row("A3-72", "A3-73")
def test_a_step_that_an_event_started_pauses_and_its_successor_waits_for_the_answer_and_for_no_event() -> None:
    async def scenario() -> Any:
        troupe = troupe_of("ada", "ben", "cleo")
        async with troupe.box(CHOREOGRAPHY) as box:
            run = await paused(box)
            await published(box)
            before = (await run.status()).paused_at, troupe.called()
            await run.resume("yes")
            result = await run.result()
            return before, troupe.called(), troupe.data("cleo"), result["final_data"]

    before, called, told, data = play(scenario)

    assert before == ("ask", ["ada"])
    assert called == ["ada", "cleo", "ben"]
    assert (told, data) == ([{"told": "yes", "of": "came"}], {"answer": "yes"})


@pytest.mark.row("A3-72", "A3-73")
def test_a_pause_among_events_goes_through_a_crash_after_any_event() -> None:
    async def scenario() -> None:
        disk, troupe = MarkedDisk(), troupe_of("ada", "ben", "cleo")
        async with troupe.box(CHOREOGRAPHY, on=disk) as box:
            run = await paused(box)
            await published(box)
            await run.resume("yes")
            expected, history = await run.result(), await run.history()
        borders = [b for b in sorted(disk.borders) if history[0].position <= b < history[-1].position]
        assert len(borders) > 10
        for border in borders:
            again = troupe_of("ada", "ben", "cleo")
            async with again.box(CHOREOGRAPHY, on=disk_until(disk, border)) as box:
                run = (await box.open()).run(run.id)
                await box.clock.settle()
                await published(box)
                if (await run.status()).status == "paused":
                    await run.resume("yes")
                result = await run.result()
            done = [e for e in history if e.type == "step-completed" and e.position <= border]
            assert _shape(result) == _shape(expected), border
            assert again.called() == ["ada", "cleo", "ben"][len(done) :], border

    play(scenario)


def _shape(result: Any) -> Any:
    return [result["final_data"], result.get("path"), [one["step_id"] for one in result.get("step_results", ())]]


def test_data_of_a_run_do_not_pause_it() -> None:
    plain = defined("sequential", Step(id="a", agent="ada"), Step(id="b", agent="ben"))

    async def scenario() -> Any:
        troupe = troupe_of("ada", "ben")
        async with troupe.box(plain) as box:
            run = await paused(box, {"pause_requested": True, "pause": True, "paused_at": "a"})
            return (await run.status()).status

    assert play(scenario) == "completed"


def test_a_step_that_is_skipped_does_not_pause_and_one_that_failed_and_is_passed_over_does() -> None:
    definition = defined(
        "sequential",
        Step(id="no", agent="ada", conditions={"if": "x"}, pause=True),
        Step(id="bad", agent="ben", on_failure="continue", pause=True),
    )

    async def scenario() -> str | None:
        troupe = troupe_of("ada")
        troupe.agent("ben", errors=(ValueError("broken"),) * 9)
        async with troupe.box(definition) as box:
            run = await paused(box)
            await box.clock.advance(100)
            return (await run.status()).paused_at

    assert play(scenario) == "bad"


@pytest.mark.parametrize(
    ("definition", "at", "text"),
    [
        (
            defined("parallel", Step(id="a", agent="ada", pause=True)),
            "steps[0].pause",
            "only a step of sequential, conditional, saga or event_driven has it, and this is parallel",
        ),
        (
            defined("map_reduce", Step(id="a", agent="ada"), Step(id="b", agent="ada", answer="x")),
            "steps[1].answer",
            "only a step of sequential, conditional, saga or event_driven",
        ),
        (
            defined(
                "event_driven",
                Step(id="a", agent="ada", on=(Trigger(event="e"),), pause=True),
                Step(id="a_resume", agent="ada", on=(Trigger(event="e"),)),
            ),
            "steps[1].on",
            "a_resume is performed when the run is resumed",
        ),
        (
            defined("sequential", Step(id="a_resume", agent="ada"), Step(id="a", agent="ada", pause=True)),
            "steps[1].pause",
            "which comes before it",
        ),
        (
            defined(
                "conditional",
                Step(id="a", agent="ada", pause=True, next="b"),
                Step(id="b", agent="ada"),
                Step(id="a_resume", agent="ada", next="b"),
            ),
            "steps[0].next",
            "it would never be followed",
        ),
        (defined("sequential", Step(id="a", agent="ada", answer="x")), "steps[0].answer", "only a step with pause"),
        (
            defined("sequential", Step(id="a", agent="ada", pause=True, answer="x..y")),
            "steps[0].answer",
            "empty key",
        ),
        (
            defined("conditional", Step(id="a", agent="ada", pause=True), Step(id="b", agent="ada")),
            "steps[1]",
            "no way from a leads to b",
        ),
    ],
)
def test_what_is_wrong_with_a_pause_is_told_before_the_definition_is_registered(
    definition: WorkflowDefinition, at: str, text: str
) -> None:
    with pytest.raises(InvalidDefinitionError) as caught:
        Runtime("unused", workflows=[definition], agents=troupe_of("ada").agents)

    assert [(fault.path, text in fault.text) for fault in caught.value.faults] == [(at, True)]
