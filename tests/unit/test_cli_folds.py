"""The folds behind show, ps and progress: raw events in, what a person is told out."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.actors.workflows.events import RUN_EVENTS
from perdure.runtime.cli import outcomes
from perdure.runtime.cli import timeline as timelines
from perdure.runtime.cli.facts import NONE, Facts, facts_of, run_of
from perdure.runtime.cli.outcomes import Step
from perdure.runtime.cli.progress import Progress
from perdure.runtime.cli.standing import Owner, Status, status_of
from perdure.runtime.cli.timeline import Timeline
from perdure.store.records import Recorded, StreamId

SECOND = 1_000_000
OWNER = Owner(is_there=True, text="process 1", life=3)
NOBODY = Owner(is_there=False, text=None, life=3)


class Story:
    """Events of one run, a second apart."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []

    def tell(self, tag: str, /, *, stream: str = "run/r1", **data: Any) -> "Story":
        number = len(self.events) + 1
        text = msgspec.json.encode(data).decode()
        event = Recorded(number, StreamId(stream), number, tag, 1, number * SECOND, text, correlation="r1")
        self.events.append(event)
        return self

    def started(self, step: str = "pay#1", **data: Any) -> "Story":
        tool = step.rpartition("/")[2].partition("#")[0]
        branch = step[: step.rfind("/") + 1]
        fields = {"step": step, "branch": branch, "kind": "tool", "tool": tool, "effect": "irreversible", **data}
        return self.tell("step-started", **fields)

    def timeline(self) -> Timeline:
        timeline = Timeline("r1")
        for event in self.events:
            timeline.add(event)
        return timeline

    def step(self, key: str = "pay#1") -> Step:
        return self.timeline().steps[key]

    def said(self, run: str | None = "r1") -> list[str]:
        progress = Progress(run)
        return [said for event in self.events if (said := progress.add(event)) is not None]

    def progress(self) -> Progress:
        progress = Progress("r1")
        for event in self.events:
            progress.add(event)
        return progress


def test_an_event_of_another_version_says_nothing_rather_than_failing() -> None:
    event = Recorded(1, StreamId("run/x"), 1, "step-started", 9, 0, '{"step": {"a": 1}}')

    assert facts_of(event) == NONE


def test_an_erased_event_says_nothing() -> None:
    assert facts_of(Recorded(1, StreamId("run/x"), 1, "step-started", 1, 0, None)) == NONE


@pytest.mark.parametrize(("stream", "run"), [("run/a/b", "a/b"), ("tool/t", "r9")])
def test_an_event_belongs_to_the_run_of_its_stream_or_of_its_correlation(stream: str, run: str) -> None:
    assert run_of(Recorded(1, StreamId(stream), 1, "x", 1, 0, "{}", correlation="r9")) == run


# The timeline


def test_a_step_that_went_well_has_one_attempt_and_no_notes() -> None:
    step = Story().started().tell("step-completed", step="pay#1", result=1, attempt=1, micros=7).step()

    assert (step.status, step.attempts, step.ended_at, step.notes) == ("done", 1, 2 * SECOND, [])


def test_failed_attempts_are_notes_and_the_last_one_counts() -> None:
    story = Story().started()
    story.tell("attempt-failed", step="pay#1", attempt=1, error_type="E", error="no", retry_at=5 * SECOND)
    story.tell("attempt-started", step="pay#1", attempt=2)

    step = story.step()

    assert (step.status, step.attempts, step.due) == ("in flight", 2, None)
    assert [note.text for note in step.notes] == ["attempt 1 failed: E: no; again in 3 s"]


def test_a_refused_attempt_does_not_count_as_a_try() -> None:
    story = Story().started()
    story.tell("attempt-refused", step="pay#1", attempt=1, reason="open", retry_at=5 * SECOND)

    step = story.step()

    assert (step.status, step.attempts, step.refusals, step.due) == ("retrying", 0, 1, 5 * SECOND)


def test_a_step_that_the_circuit_breaker_refused_for_good_was_not_tried() -> None:
    story = Story().started()
    story.tell("step-failed", step="pay#1", error_type="CircuitOpenError", error="open", attempt=1, micros=0)

    assert (story.step().status, story.step().attempts) == ("failed", 0)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("2 of 2 calls failed, last E", "refused by the circuit breaker: 2 of 2 calls failed, last E; again in 3 s"),
        (
            "the rate limit of 5 calls in 1 s is used up",
            "refused: the rate limit of 5 calls in 1 s is used up; again in 3 s",
        ),
        ("3 calls run and 2 wait", "refused, no place at the tool: 3 calls run and 2 wait; again in 3 s"),
    ],
)
def test_a_refused_attempt_says_who_refused_it(reason: str, said: str) -> None:
    story = Story().started().tell("attempt-refused", step="pay#1", attempt=1, reason=reason, retry_at=5 * SECOND)

    assert [note.text for note in story.step().notes] == [said]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("circuit", "refused by the circuit breaker: 3 calls run and 2 wait"),
        ("rate", "refused: 3 calls run and 2 wait"),
        ("bulkhead", "refused, no place at the tool: 3 calls run and 2 wait"),
        ("warden", "refused by the warden: 3 calls run and 2 wait"),
    ],
)
def test_what_an_event_says_of_who_refused_goes_before_its_text(by: str, said: str) -> None:
    story = Story().started()
    story.tell("attempt-refused", step="pay#1", attempt=1, reason="3 calls run and 2 wait", retry_at=None, by=by)

    assert [note.text for note in story.step().notes] == [said]


@pytest.mark.parametrize("error_type", ["RateLimitedError", "BulkheadFullError"])
def test_a_step_that_found_no_place_for_good_was_not_tried(error_type: str) -> None:
    story = Story().started().tell("step-failed", step="pay#1", error_type=error_type, error="no", attempt=1, micros=0)

    assert (story.step().status, story.step().attempts) == ("failed", 0)


def test_a_step_waits_for_its_turn_under_a_rate_limit_and_then_it_is_made() -> None:
    story = Story().started().tell("attempt-delayed", step="pay#1", attempt=1, until=5 * SECOND)
    waiting = story.step()

    made = story.tell("attempt-started", step="pay#1", attempt=1).step()

    assert (waiting.status, waiting.due) == ("waiting", 5 * SECOND)
    assert (made.status, made.due, made.attempts) == ("in flight", None, 1)
    assert [note.text for note in made.notes] == ["waits for its turn under the rate limit; begins in 3 s"]


def test_a_step_in_doubt_is_listed_until_somebody_settles_it() -> None:
    story = Story().started().tell("step-in-doubt", step="pay#1", attempt=1, reason="the process ended")
    before = story.timeline().in_doubt

    story.tell("step-completed", step="pay#1", result="ok", attempt=0, micros=0)

    assert before == ["pay#1"]
    assert story.timeline().in_doubt == []
    assert story.step().notes[-1].text == "somebody said that it happened"


def test_a_step_found_not_to_have_happened_is_in_flight_again() -> None:
    story = (
        Story()
        .started()
        .tell("step-in-doubt", step="pay#1", reason="x")
        .tell("step-not-done", step="pay#1", source="me")
    )

    assert story.step().status == "in flight"


def test_a_second_dispatch_without_an_outcome_is_noted() -> None:
    story = Story().started(effect="idempotent").tell("attempt-started", step="pay#1", attempt=1)

    assert story.step().attempts == 1
    assert "dispatched again" in story.step().notes[0].text


def test_a_step_of_a_branch_knows_its_branch() -> None:
    story = Story().tell("branches-opened", step="map#1", branch="", count=2).started("map#1.1/pay#1")

    assert story.step("map#1").count == 2
    assert story.step("map#1.1/pay#1").branch == "map#1.1/"


def test_a_cancelled_thread_is_said_to_go_on() -> None:
    story = Story().started().tell("step-cancelled", step="pay#1", attempt=1, stopped=False)

    assert story.step().status == "cancelled"
    assert "whether its work has ended is not known" in story.step().notes[0].text


def test_what_happened_to_the_run_itself_stands_between_its_steps() -> None:
    story = Story().tell("run-started", workflow="w", input={}, life=1)
    story.tell("run-suspended").tell("run-resumed", life=2, after_crash=True)
    story.tell("run-parked", wake_at=7 * SECOND).tell("run-cancel-requested", reason="why not")

    timeline = story.timeline()

    assert [turn.name for turn in timeline.turns] == [
        "stopped in good order",
        "resumed after a crash",
        "left memory for 3 s",
        "cancel requested: why not",
    ]
    assert (timeline.turn, timeline.life, timeline.wake_at) == ("run-parked", 2, 7 * SECOND)


def test_an_unknown_event_of_a_run_is_counted_and_changes_nothing() -> None:
    timeline = Story().tell("run-danced", reason="x").tell("step-danced", step="pay#1").timeline()

    assert (timeline.events, timeline.turn, timeline.steps) == (2, "", {})


# How a run stands


@pytest.mark.parametrize(
    ("turn", "facts", "owner", "expected"),
    [
        ("run-started", Facts(life=3), OWNER, "running"),
        ("run-resumed", Facts(life=3), OWNER, "running"),
        ("run-resumed", Facts(life=2), OWNER, "interrupted"),
        ("run-resumed", Facts(life=3), NOBODY, "interrupted"),
        ("run-suspended", Facts(), OWNER, "suspended"),
        ("run-parked", Facts(wake_at=11), NOBODY, "sleeping"),
        ("run-parked", Facts(wake_at=10), NOBODY, "due"),
        ("run-blocked", Facts(kind="mismatch"), NOBODY, "blocked"),
        ("run-completed", Facts(), NOBODY, "completed"),
        ("run-failed", Facts(), OWNER, "failed"),
        ("run-cancelled", Facts(), OWNER, "cancelled"),
    ],
)
def test_how_a_run_stands_depends_on_its_last_turn_and_on_who_owns_the_log(
    turn: str, facts: Facts, owner: Owner, expected: Status
) -> None:
    status = status_of(turn, facts, owner=owner, now=10, is_new=False, is_cancelled=False, is_in_doubt=False)

    assert status == expected


def test_a_run_whose_code_never_ran_is_queued() -> None:
    facts = Facts(life=1)

    status = status_of("run-started", facts, owner=NOBODY, now=1, is_new=True, is_cancelled=False, is_in_doubt=False)

    assert status == "queued"


def test_a_doubt_goes_before_a_request_to_cancel() -> None:
    status = status_of("run-parked", NONE, owner=NOBODY, now=1, is_new=False, is_cancelled=True, is_in_doubt=True)

    assert status == "in doubt"


# Progress


def test_progress_counts_what_is_done_in_flight_and_backing_off() -> None:
    story = Story().started("a#1").started("b#1").started("c#1").tell("step-completed", step="a#1")
    story.tell("attempt-failed", step="b#1", attempt=1, error_type="E", error="", retry_at=99 * SECOND)

    progress = story.progress()

    assert (progress.done, progress.in_flight, progress.backing_off) == (1, 1, 1)
    assert progress.figures() == "1 step done, 1 in flight, 1 waiting to be tried again"


def test_an_opened_circuit_is_said_once_and_remembered_until_it_closes() -> None:
    story = Story().tell("circuit-opened", stream="tool/t", reason="3 failures").started()
    story.tell("attempt-refused", step="pay#1", attempt=1, reason="3 failures", retry_at=9 * SECOND)
    circuits = dict(story.progress().circuits)

    story.tell("circuit-closed", stream="tool/t")

    assert circuits == {"t": "open: 3 failures"}
    assert story.progress().circuits == {}
    assert story.said() == ["circuit of t opened: 3 failures", "circuit of t closed"]


def test_steps_that_wait_for_their_turn_are_counted_apart() -> None:
    story = Story().started("a#1").started("b#1")
    story.tell("attempt-delayed", step="a#1", attempt=1, until=99 * SECOND)

    progress = story.progress()

    assert (progress.in_flight, progress.backing_off, progress.taking_turns) == (1, 0, 1)
    assert progress.figures() == "0 steps done, 1 in flight, 1 waiting for their turn"


def test_an_operators_word_is_said_and_remembered_until_the_circuit_is_given_back() -> None:
    story = Story().tell("circuit-forced", stream="tool/t", to="open", because="it moves")
    held = dict(story.progress().circuits)

    story.tell("circuit-forced", stream="tool/t", to="auto", because="it has moved")

    assert held == {"t": "held open by an operator: it moves"}
    assert story.progress().circuits == {}
    assert story.said() == [
        "circuit of t held open by an operator: it moves",
        "circuit of t closed by an operator: it has moved",
    ]


def test_the_run_is_named_where_several_are_watched() -> None:
    story = Story().tell("run-failed", error_type="E", error="no")

    assert story.said(None) == ["r1: failed: E: no"]
    assert story.said("r1") == ["failed: E: no"]


def test_a_run_that_waits_for_a_person_is_told_from_one_that_sleeps() -> None:
    asleep = Story().tell("run-parked", wake_at=99 * SECOND, waits_on=None).progress()
    stuck = Story().tell("run-parked", wake_at=None, waits_on="attention").progress()

    assert (asleep.parked, asleep.attention) == ({"r1": 99 * SECOND}, {})
    assert stuck.attention == {"r1": "attention"}


def test_a_run_that_ended_leaves_nothing_in_flight() -> None:
    progress = Story().started().tell("timer-set", step="sleep#1", due=99 * SECOND).tell("run-cancelled").progress()

    assert (progress.flights, progress.sleeps, progress.ended) == ({}, {}, {"r1": "run-cancelled"})


def test_events_of_other_runs_do_not_concern_the_one_that_is_watched() -> None:
    other = Recorded(1, StreamId("tool/t"), 1, "call-failed", 1, 0, "{}", correlation="r2")

    assert not Progress("r1").concerns(other)
    assert Progress().concerns(other)


# Events between runs, and facts about the run itself


def waiting() -> Story:
    return Story().tell("event-awaited", step="event#1", branch="", events="paid,refunded", until=9 * SECOND)


def test_a_wait_for_an_event_says_for_which_and_until_when() -> None:
    step = waiting().step("event#1")

    assert (step.what, step.status, step.due) == ("event", "waiting", 9 * SECOND)
    assert [note.text for note in step.notes] == ["waits for paid or refunded"]


@pytest.mark.parametrize(
    ("tag", "data", "status", "text"),
    [
        ("event-taken", {"event": "paid", "id": "#1", "data": 7, "run": None}, "done", "got paid #1: 7"),
        ("event-taken", {"event": "paid", "id": "x", "data": 7, "run": "p"}, "done", "got paid x, published by p: 7"),
        ("event-expired", {"seen": 3}, "failed", "nothing came in time"),
        ("event-wait-withdrawn", {"seen": 3}, "cancelled", "waits for paid or refunded"),
        ("event-found", {"position": 3}, "waiting", "one was published"),
    ],
)
def test_a_wait_for_an_event_says_how_it_ended(tag: str, data: dict[str, Any], status: str, text: str) -> None:
    step = waiting().tell(tag, step="event#1", **data).step("event#1")

    assert (step.status, step.notes[-1].text) == (status, text)


@pytest.mark.parametrize(
    ("tag", "data", "text"),
    [
        ("event-sent", {"event": "paid"}, "published paid"),
        ("step-skipped", {"reason": "x is 1, not: gt 2"}, "x is 1, not: gt 2"),
        ("path-taken", {"left": "a", "next": "b", "because": "x is true"}, "on to b: x is true"),
        ("path-taken", {"left": "a", "next": None, "because": "x is true"}, "to the end: x is true"),
        ("pivot-passed", {}, "from here on nothing is undone"),
        ("saga-failed", {"error_type": "E", "error": "no"}, "is undone: E: no"),
    ],
)
def test_a_fact_of_the_workflow_is_a_line_with_what_it_says(tag: str, data: dict[str, Any], text: str) -> None:
    step = Story().tell(tag, step="it#1", branch="", **data).step("it#1")

    assert (step.what, step.status, [note.text for note in step.notes]) == ("fact", "done", [text])


def test_an_undone_saga_names_what_was_not_undone() -> None:
    story = Story().tell("saga-failed", step="saga#1", branch="", error_type="E", error="no")

    step = story.tell("saga-compensated", step="saga#1", undone=["a#1"], given_up=["b#1"]).step("saga#1")

    assert step.notes[-1].text == "what it had done is undone; not undone: b#1"


@pytest.mark.parametrize(
    ("tag", "data", "text"),
    [
        ("version-chosen", {"name": "new-prices", "version": 2}, "goes by version 2 of new-prices"),
        ("parent-told", {"run": "p", "step": "ship#1"}, "p knows how it ended"),
        ("event-places-moved", {"since": 1, "cursors": {}}, "takes over the place among the events that it waits for"),
    ],
)
def test_what_concerns_the_whole_run_is_a_line_of_its_own(tag: str, data: dict[str, Any], text: str) -> None:
    assert [turn.name for turn in Story().tell(tag, **data).timeline().turns] == [text]


def test_a_failed_run_says_why_though_no_step_is_to_blame() -> None:
    timeline = Story().tell("run-failed", error_type="ValueError", error="no", step=None).timeline()

    assert timeline.error == "ValueError: no"


def test_the_timeline_knows_every_event_of_a_run() -> None:
    text = "".join(Path(module.__file__ or "").read_text(encoding="utf-8") for module in (timelines, outcomes))

    assert [kind.__struct_config__.tag for kind in RUN_EVENTS if f'"{kind.__struct_config__.tag}"' not in text] == []
