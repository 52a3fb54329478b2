"""The patterns that neither undo nor wait for events: who is called with what, beside whom, and what comes of it."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from perdure import RunFailedError, WorkflowFailedError
from perdure.actors.workflows.defined.model import Branching, RetryPolicy, Step
from tests.support.defined import Troupe, defined, execute, failing
from tests.support.runs import events, facts, play


def run_once(
    troupe: Troupe, definition: Any, given: dict[str, Any] | None = None, *, seconds: float = 0, **options: Any
) -> Any:
    async def scenario() -> Any:
        box = troupe.box(definition, **options)
        try:
            return await execute(troupe, await box.open(), given, seconds=seconds)
        finally:
            await box.close()

    return play(scenario)


@pytest.mark.row("A2-02")
def test_what_a_step_puts_into_the_data_the_next_one_is_sent() -> None:
    troupe = Troupe()
    troupe.agent("one", {"v": 1})
    troupe.agent("two", {"w": 2})
    first = Step(id="s1", agent="one", output_mapping={"v": "x"})
    second = Step(id="s2", agent="two", input_mapping={"in": "x"})

    found = run_once(troupe, defined("sequential", first, second), {"given": 0})

    assert troupe.data("two") == [{"in": 1}]
    assert found["status"] == "completed"
    assert set(found["result"]) == {"pattern", "steps_executed", "final_data", "step_results"}
    assert found["result"]["steps_executed"] == 2
    assert found["result"]["final_data"] == {"given": 0, "x": 1}
    assert [each["data"] for each in found["result"]["step_results"]] == [{"v": 1}, {"w": 2}]


def test_fan_in_merges_of_each_answer_what_its_mapping_takes() -> None:
    troupe = Troupe()
    troupe.agent("one", {"v": 1, "noise": "x"})
    troupe.agent("two", [2])
    mapped = Step(id="s1", agent="one", output_mapping={"v": "first.v"})
    whole = Step(id="s2", agent="two", output_mapping={".": "second"})

    found = run_once(troupe, defined("fan_out_fan_in", mapped, whole, merge="error"))["result"]

    assert found["aggregated_data"] == {"first": {"v": 1}, "second": [2]}
    assert [each["data"] for each in found["fan_out_results"]] == [{"v": 1, "noise": "x"}, [2]]


def test_an_answer_that_a_mapping_finds_no_place_for_fails_the_fan_in() -> None:
    troupe = Troupe()
    troupe.agent("one", [1])

    error = run_once(troupe, defined("fan_out_fan_in", Step(id="s1", agent="one", output_mapping={".": "."})))

    assert (error.step_id, error.error_type) == ("s1", "DataPathError")


@pytest.mark.parametrize("pattern", ["parallel", "fan_out_fan_in"])
@pytest.mark.parametrize(("second", "ends"), [("continue", False), ("stop", True)])
def test_steps_beside_one_another_may_all_fail_only_if_each_of_them_says_so(
    pattern: str, second: Any, ends: bool
) -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=(ValueError("one"), ValueError("two")))
    steps = [Step(id="s1", agent="bad", on_failure="continue"), Step(id="s2", agent="bad", on_failure=second)]

    found = run_once(troupe, defined(pattern, *steps))

    assert isinstance(found, WorkflowFailedError) is ends
    assert getattr(found, "step_id", None) == ("s2" if ends else None)


def test_a_source_that_is_skipped_gives_no_items_and_a_last_step_that_is_skipped_no_result() -> None:
    troupe = Troupe()
    for name in ("source", "each", "last"):
        troupe.agent(name, {"items": [1]})
    steps = [
        Step(id="s", agent="source", conditions={"if": "wanted"}),
        Step(id="e", agent="each"),
        Step(id="l", agent="last", conditions={"if": "map_results"}),
    ]

    found = run_once(troupe, defined("map_reduce", *steps))["result"]

    assert (found["map_count"], found["reduce_result"], troupe.called()) == (0, None, [])


def test_a_fold_passes_over_the_pages_whose_results_its_step_is_not_for() -> None:
    troupe = Troupe()
    troupe.agent("each", lambda message: message.data["item"])
    troupe.agent("last", lambda message: message.data["map_results"])
    last = Step(id="l", agent="last", conditions={"if": "map_results.0", "gt": 1})

    found = run_once(
        troupe,
        defined("map_reduce", Step(id="e", agent="each"), last, reduce="fold", page_size=1),
        {"items": [1, 2, 1]},
    )["result"]

    assert (found["map_count"], found["reduce_result"], troupe.called().count("last")) == (3, [2], 1)


@pytest.mark.row("A2-03")
def test_an_agent_is_sent_the_action_the_data_and_which_step_it_is_for() -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    run_once(troupe, defined("sequential", Step(id="s1", agent="one", action="look")), {"k": "v"})

    ((_, message),) = troupe.sent
    assert (message.type, message.data, message.sender) == ("look", {"k": "v"}, "orchestrator")
    assert message.metadata == {"workflow_step": "s1"}


@pytest.mark.row("A2-04")
def test_a_mapping_whose_keys_are_all_missing_sends_nothing() -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    run_once(troupe, defined("sequential", Step(id="s1", agent="one", input_mapping={"a": "nowhere"})), {"secret": 1})

    assert troupe.data("one") == [{}]


@pytest.mark.row("A2-05")
def test_a_step_that_answers_failure_ends_a_sequence_and_is_named() -> None:
    troupe = Troupe()
    troupe.agent("one", {})
    troupe.agent("two", errors=(failing("no data"),))
    troupe.agent("three", {})
    steps = [Step(id=f"s{n}", agent=name) for n, name in enumerate(("one", "two", "three"), 1)]

    error = run_once(troupe, defined("sequential", *steps))

    assert isinstance(error, WorkflowFailedError)
    assert (error.status, error.workflow_id, error.step_id, error.agent) == ("failed", "w", "s2", "two")
    assert "no data" in str(error)
    assert troupe.called() == ["one", "two"]


def test_a_step_may_fail_without_ending_a_sequence() -> None:
    troupe = Troupe()
    troupe.agent("one", errors=(ValueError("broken"),))
    troupe.agent("two", {})

    found = run_once(
        troupe,
        defined("sequential", Step(id="s1", agent="one", on_failure="continue"), Step(id="s2", agent="two")),
    )

    assert [each["success"] for each in found["result"]["step_results"]] == [False, True]
    assert found["result"]["step_results"][0]["error_type"] == "ValueError"


@pytest.mark.row("A2-09")
def test_of_steps_beside_one_another_one_may_fail() -> None:
    troupe = Troupe()
    troupe.agent("good", {"v": 1})
    troupe.agent("bad", errors=(ValueError("broken"),))

    found = run_once(troupe, defined("parallel", Step(id="s1", agent="good"), Step(id="s2", agent="bad")))

    result = found["result"]
    assert (found["status"], result["pattern"], result["steps_executed"]) == ("completed", "parallel", 2)
    assert [each["step_id"] for each in result["results"]] == ["s1"]
    ((error),) = result["errors"]
    assert (error["step_id"], error["agent"], error["error_type"]) == ("s2", "bad", "ValueError")
    assert "broken" in error["error"]


@pytest.mark.row("A2-10")
def test_steps_beside_one_another_that_all_fail_fail_the_workflow() -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=(ValueError("broken"), ValueError("broken")))

    error = run_once(troupe, defined("parallel", Step(id="s1", agent="bad"), Step(id="s2", agent="bad")))

    assert error.status == "failed"
    assert [each["step_id"] for each in error.result["errors"]] == ["s1", "s2"]


@pytest.mark.row("A2-11")
def test_steps_beside_one_another_take_as_long_as_the_slowest() -> None:
    troupe = Troupe()
    troupe.agent("slow", {}, seconds=0.3)

    found = run_once(troupe, defined("parallel", *(Step(id=f"s{n}", agent="slow") for n in range(3))), seconds=0.4)

    assert found["duration"] == 0.3
    assert [each["duration"] for each in found["result"]["results"]] == [0.3, 0.3, 0.3]


@pytest.mark.row("A2-12")
def test_a_step_that_is_cancelled_by_itself_is_an_error_and_no_result() -> None:
    troupe = Troupe()
    troupe.agent("good", {"v": 1})
    troupe.agent("gone", errors=(asyncio.CancelledError(),))

    found = run_once(troupe, defined("parallel", Step(id="s1", agent="good"), Step(id="s2", agent="gone")))

    assert [each["step_id"] for each in found["result"]["results"]] == ["s1"]
    assert [each["error_type"] for each in found["result"]["errors"]] == ["CancelledError"]


@pytest.mark.row("A2-13")
def test_fan_in_merges_in_the_order_of_the_steps_and_passes_over_nothing() -> None:
    troupe = Troupe()
    troupe.agent("one", {"a": 1}, seconds=3)
    troupe.agent("two", {"a": 2, "b": 3}, seconds=1)
    troupe.agent("three", None)
    steps = [Step(id=name, agent=name) for name in ("one", "two", "three")]

    found = run_once(troupe, defined("fan_out_fan_in", *steps), seconds=5)

    assert found["result"]["aggregated_data"] == {"a": 2, "b": 3}
    assert set(found["result"]) == {"pattern", "fan_out_results", "aggregated_data"}


@pytest.mark.parametrize(
    ("merge", "expected"),
    [("first_wins", {"a": 1, "b": 3}), ("last_wins", {"a": 2, "b": 3}), ("add", {"a": 3}), ("error", None)],
)
def test_fan_in_merges_as_the_definition_says(merge: str, expected: Any) -> None:
    troupe = Troupe()
    troupe.agent("one", {"a": 1})
    troupe.agent("two", {"a": 2, "b": 3})
    reducers = {"add": lambda given: {"a": sum(each["a"] for each in given)}}

    found = run_once(
        troupe,
        defined("fan_out_fan_in", Step(id="s1", agent="one"), Step(id="s2", agent="two"), merge=merge),
        reducers=reducers,
    )

    if expected is None:
        assert found.error_type == "MergeError"
        assert "steps s1 and s2 both returned 'a'" in found.error
    else:
        assert found["result"]["aggregated_data"] == expected


@pytest.mark.row("A2-14")
def test_a_map_works_on_its_items_at_once_and_reduces_in_their_order() -> None:
    troupe = Troupe()
    troupe.agent("square", lambda message: message.data["item"] ** 2, seconds=0.3)
    troupe.agent("total", lambda message: {"all": message.data["map_results"]})
    definition = defined("map_reduce", Step(id="m", agent="square"), Step(id="r", agent="total"))

    found = run_once(troupe, definition, {"items": [1, 2, 3]}, seconds=0.4)

    assert found["duration"] == 0.3
    assert found["result"]["map_count"] == 3
    assert found["result"]["reduce_result"] == {"all": [1, 4, 9]}
    assert troupe.data("square") == [{"item": 1}, {"item": 2}, {"item": 3}]


def picky(message: Any) -> Any:
    if message.data["item"] == 2:
        raise ValueError("not this one")
    return message.data["item"]


@pytest.mark.row("A2-15")
@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_an_item_that_fails_is_listed_and_ends_the_map_or_not(policy: Any) -> None:
    troupe = Troupe()
    troupe.agent("picky", picky)
    troupe.agent("total", lambda message: {"all": message.data["map_results"]})
    definition = defined("map_reduce", Step(id="m", agent="picky"), Step(id="r", agent="total"), on_item_failure=policy)

    found = run_once(troupe, definition, {"items": [1, 2, 3]})

    result = found.result if policy == "fail" else found["result"]
    ((failed),) = result["failed_items"]
    assert (failed["index"], failed["error_type"]) == (1, "ValueError")
    assert "not this one" in failed["error"]
    if policy == "fail":
        assert (found.status, found.step_id) == ("failed", "m")
        assert "total" not in troupe.called()
    else:
        assert troupe.data("total") == [{"map_results": [1, 3]}]


def test_items_come_page_by_page_from_a_step_that_gives_them() -> None:
    troupe = Troupe()
    pages = {None: {"items": [1, 2], "cursor": "b"}, "b": {"items": [], "cursor": "c"}, "c": {"items": [3]}}
    troupe.agent("source", lambda message: pages[message.data["cursor"]])
    troupe.agent("same", lambda message: message.data["item"])
    troupe.agent("total", lambda message: {"all": message.data["map_results"]})
    steps = [Step(id="s", agent="source"), Step(id="m", agent="same"), Step(id="r", agent="total")]

    found = run_once(troupe, defined("map_reduce", *steps), {"of": "x"})

    assert found["result"]["reduce_result"] == {"all": [1, 2, 3]}
    assert troupe.data("source")[1] == {"of": "x", "cursor": "b"}


TRIAGE = defined(
    "conditional",
    Step(id="s1", agent="one", next=Branching(condition={"if": "anomalies", "gt": 0}, if_true="s2")),
    Step(
        id="s2",
        agent="two",
        next=Branching(condition={"if": "risk", "eq": "high"}, if_true="s4", if_false="s3"),
    ),
    Step(id="s3", agent="three"),
    Step(id="s4", agent="four"),
)


@pytest.mark.row("A2-17", "A2-18")
def test_a_conditional_workflow_goes_where_the_data_lead_and_records_the_way() -> None:
    troupe = Troupe()
    troupe.agent("one", {"anomalies": 3})
    troupe.agent("two", {"risk": "low"})
    troupe.agent("three", {})
    troupe.agent("four", {})

    async def scenario() -> tuple[Any, list[dict[str, Any]]]:
        box = troupe.box(TRIAGE)
        rt = await box.open()
        found = await execute(troupe, rt)
        ways = await events(rt, "r", "path-taken")
        await box.close()
        return found, ways

    found, ways = play(scenario)
    assert [each["step"] for each in found["result"]["path"]] == ["s1", "s2", "s3"]
    assert found["result"]["final_data"] == {"anomalies": 3, "risk": "low"}
    assert [(way["left"], way["next"]) for way in ways] == [("s1", "s2"), ("s2", "s3"), ("s3", None)]
    assert "risk" in ways[1]["because"]


@pytest.mark.row("A2-19")
def test_a_conditional_workflow_that_goes_round_ends_after_so_many_visits() -> None:
    troupe = Troupe()
    troupe.agent("one", {"again": True})
    turn = Branching(condition={"if": "again"}, if_true="s1")

    error = run_once(troupe, defined("conditional", Step(id="s1", agent="one", next=turn), max_visits=5))

    assert error.status == "failed"
    assert "s1 was reached more than 5 times" in str(error)
    assert len(troupe.sent) == 5


@pytest.mark.row("A2-21")
def test_a_step_that_takes_too_long_is_told_as_such() -> None:
    troupe = Troupe()
    troupe.agent("slow", {}, seconds=1)

    error = run_once(troupe, defined("sequential", Step(id="X", agent="slow", timeout=0.05)), seconds=2)

    assert error.error == "Step X timed out after 0.05s"


@pytest.mark.row("A2-22")
def test_an_agent_that_raises_timeout_error_is_not_the_steps_timeout() -> None:
    troupe = Troupe()
    troupe.agent("one", errors=(TimeoutError("the network"),))

    error = run_once(troupe, defined("sequential", Step(id="X", agent="one", timeout=5)))

    assert (error.error_type, error.error) == ("TimeoutError", "Step X failed: the network")


@pytest.mark.row("A2-23")
def test_a_workflow_that_takes_too_long_is_ended_with_the_step_that_runs() -> None:
    troupe = Troupe()
    troupe.agent("slow", {}, seconds=0.15)
    definition = defined("sequential", *(Step(id=f"s{n}", agent="slow") for n in range(3)), timeout=0.2)

    async def scenario() -> tuple[Any, list[str]]:
        box = troupe.box(definition)
        rt = await box.open()
        error = await execute(troupe, rt, seconds=1)
        told = await facts(rt, "r")
        await box.close()
        return error, told

    error, told = play(scenario)
    assert error.status == "timed_out"
    assert told.count("step-started") == 2
    assert told.count("step-cancelled") == 1


@pytest.mark.row("A2-24")
def test_a_step_that_fails_twice_is_tried_a_third_time() -> None:
    troupe = Troupe()
    troupe.agent("flaky", {"v": 1}, errors=(ValueError("one"), ValueError("two")))
    step = Step(id="s1", agent="flaky", retry=RetryPolicy(max_retries=2, backoff=2.0, jitter=False))

    async def scenario() -> tuple[Any, list[dict[str, Any]]]:
        box = troupe.box(defined("sequential", step))
        rt = await box.open()
        found = await execute(troupe, rt, seconds=10)
        failed = await events(rt, "r", "attempt-failed")
        await box.close()
        return found, failed

    found, failed = play(scenario)
    assert found["status"] == "completed"
    assert [(each["attempt"], each["error"]) for each in failed] == [(1, "one"), (2, "two")]
    assert len(troupe.sent) == 3


@pytest.mark.row("A2-25")
def test_retries_wait_one_two_and_four_seconds_and_the_last_error_keeps_its_type() -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=tuple(KeyError("gone") for _ in range(4)))
    step = Step(id="s1", agent="bad", retry=RetryPolicy(jitter=False))

    async def scenario() -> tuple[Any, list[float], str]:
        box = troupe.box(defined("sequential", step))
        rt = await box.open()
        error = await execute(troupe, rt, seconds=10)
        history = await rt.run("r").history()
        begun = [event.at for event in history if event.type in ("step-started", "attempt-started")]
        rt = await box.crash_and_reopen()
        with pytest.raises(RunFailedError) as replayed:
            await rt.run("r").result()
        await box.close()
        return error, [(b - a) / 1e6 for a, b in pairwise(begun)], replayed.value.error_type

    error, waits, replayed = play(scenario)
    assert waits == [1, 2, 4]
    assert error.error_type == replayed == "KeyError"
    assert isinstance(error.__cause__, KeyError)


@pytest.mark.row("A2-26")
def test_the_fallback_is_called_once_after_the_last_attempt() -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=tuple(ValueError("no") for _ in range(3)))
    troupe.agent("standby", {"v": "from the standby"})
    policy = RetryPolicy(max_retries=2, jitter=False, fallback_agent="standby")

    found = run_once(troupe, defined("sequential", Step(id="s1", agent="bad", retry=policy)), seconds=10)

    assert troupe.called() == ["bad", "bad", "bad", "standby"]
    (result,) = found["result"]["step_results"]
    assert (result["agent"], result["data"]) == ("standby", {"v": "from the standby"})


def test_a_fallback_that_fails_is_not_called_again() -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=tuple(ValueError("no") for _ in range(3)))
    troupe.agent("standby", errors=(OSError("neither"),))
    policy = RetryPolicy(max_retries=2, jitter=False, fallback_agent="standby")

    error = run_once(troupe, defined("sequential", Step(id="s1", agent="bad", retry=policy)), seconds=10)

    assert (error.agent, error.error_type) == ("standby", "OSError")
    assert troupe.called().count("standby") == 1


@pytest.mark.row("A2-27")
def test_an_error_that_is_not_to_be_retried_is_not() -> None:
    troupe = Troupe()
    troupe.agent("bad", errors=(ValueError("no"), ValueError("no")))
    step = Step(id="s1", agent="bad", retry=RetryPolicy(dont_retry_on=("ValueError",)))

    error = run_once(troupe, defined("sequential", step), seconds=10)

    assert error.error_type == "ValueError"
    assert len(troupe.sent) == 1


@pytest.mark.row("A2-28")
def test_an_answer_of_failure_is_a_failed_attempt() -> None:
    troupe = Troupe()
    troupe.agent("shy", {"v": 1}, errors=(failing("not now"),))

    found = run_once(troupe, defined("sequential", Step(id="s1", agent="shy", retry=RetryPolicy())), seconds=10)

    assert found["status"] == "completed"
    assert len(troupe.sent) == 2


@pytest.mark.row("A2-51")
def test_an_error_tells_where_it_happened_and_has_the_original_as_its_cause_live() -> None:
    troupe = Troupe()
    original = ZeroDivisionError("by zero")
    troupe.agent("bad", errors=(original,))
    definition = defined("sequential", Step(id="s1", agent="bad"))

    async def scenario() -> tuple[Any, Any]:
        box = troupe.box(definition)
        live = await execute(troupe, await box.open())
        again = await execute(troupe, await box.crash_and_reopen())
        await box.close()
        return live, again

    live, again = play(scenario)
    for error in (live, again):
        told = (error.workflow_id, error.step_id, error.agent, error.error_type, error.status)
        assert told == ("w", "s1", "bad", "ZeroDivisionError", "failed")
    assert live.__cause__ is original
    assert again.__cause__ is None


def test_a_step_whose_conditions_do_not_hold_is_skipped_with_the_reason() -> None:
    troupe = Troupe()
    troupe.agent("one", {})

    async def scenario() -> tuple[Any, list[dict[str, Any]]]:
        steps = [Step(id="s1", agent="one", conditions={"if": "n", "gt": 1}), Step(id="s2", agent="one")]
        box = troupe.box(defined("sequential", *steps))
        rt = await box.open()
        found = await execute(troupe, rt, {"n": "text"})
        skipped = await events(rt, "r", "step-skipped")
        await box.close()
        return found, skipped

    found, skipped = play(scenario)
    assert found["result"]["steps_executed"] == 1
    assert [each["step"] for each in skipped] == ["s1"]
    assert "cannot be compared" in skipped[0]["reason"]


@pytest.mark.row("A2-49", "A2-50")
def test_the_figures_add_up_and_outlive_a_restart() -> None:
    troupe = Troupe()
    troupe.agent("work", {}, seconds=0.2, errors=())
    troupe.agent("bad", errors=(ValueError("no"),))
    definitions = [
        defined("sequential", Step(id="s1", agent="work")),
        {"id": "f", "pattern": "parallel", "steps": [{"id": "s1", "agent": "bad"}]},
        {"id": "c", "steps": [{"id": "s1", "agent": "work"}]},
    ]

    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        box = troupe.box(*definitions)
        rt = await box.open()
        await execute(troupe, rt, seconds=1)
        await execute(troupe, rt, id="r2", workflow="f")
        before = await rt.get_stats()
        cancelled = await rt.with_options(id="r3").start("c", {})
        await troupe.clock.settle()
        await cancelled.cancel()
        await troupe.clock.settle()
        rt = await box.close_and_reopen()
        after = await rt.get_stats()
        await box.close()
        return before, after

    before, after = play(scenario)
    assert {key: before[key] for key in list(before)[:4]} == {
        "total_executions": 2,
        "successful_executions": 1,
        "failed_executions": 1,
        "cancelled_executions": 0,
    }
    assert (before["success_rate"], before["average_duration"]) == (0.5, 0.2)
    assert before["pattern_usage"] == {"sequential": 1, "parallel": 1}
    assert before["agent_performance"]["work"] == {"executions": 1, "avg_time": 0.2, "min_time": 0.2, "max_time": 0.2}
    assert before["circuit_breakers"]["bad"] == {"state": "closed", "failure_count": 1}
    assert (after["total_executions"], after["cancelled_executions"], after["running_executions"]) == (3, 1, 0)


def test_an_unknown_workflow_is_told_and_counted_nowhere() -> None:
    troupe = Troupe()

    async def scenario() -> dict[str, Any]:
        box = troupe.box()
        rt = await box.open()
        with pytest.raises(LookupError, match="'nothing' not found"):
            await rt.execute("nothing")
        figures = await rt.get_stats()
        await box.close()
        return figures

    assert play(scenario)["total_executions"] == 0
