"""The rules of a run's actor and of the runtime's own, given / when / then."""

from datetime import timedelta

import msgspec
import pytest

from perdure import NotInDoubtError, RunConflictError, UnknownRunError
from perdure.actors.kernel.messages import Index
from perdure.actors.workflows.commands import (
    CancelRun,
    GetRun,
    Interrupt,
    Launch,
    Note,
    ResumeRun,
    Settled,
    SettleStep,
    StartRun,
)
from perdure.actors.workflows.events import (
    AttemptFailed,
    AttemptStarted,
    RunBlocked,
    RunCancelled,
    RunCancelRequested,
    RunCompleted,
    RunFailed,
    RunParked,
    RunResumed,
    RunStarted,
    RunSuspended,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepInDoubt,
    StepNotDone,
    StepStarted,
    TimerFired,
    TimerSet,
)
from perdure.actors.workflows.run import RunBehavior
from perdure.actors.workflows.state import NotOpenError, RunState, needs_solitude
from perdure.runtime.life import CloseRuntime, LifeBehavior, OpenRuntime, RuntimeClosed, RuntimeOpened
from perdure.testing import Given, given

INPUT = msgspec.Raw(b'{"name":"ada"}')
STARTED = RunStarted("greet", INPUT, "d1", 1)
NOW = 1767225600_000000


def a_run(*events: object) -> Given[RunState]:
    return given(RunBehavior(), [STARTED, *events], stream="run/r")  # type: ignore[list-item] # events


def step(key: str = "pay#1", effect: str = "idempotent") -> StepStarted:
    return StepStarted(key, "", "tool", key.partition("#")[0], effect, msgspec.Raw(b"{}"), "d")


def done(key: str = "pay#1") -> StepCompleted:
    return StepCompleted(key, msgspec.Raw(b"1"), 1, 5)


def resumed(life: int, *in_flight: str, crash: bool = False, alone: bool = False) -> RunResumed:
    return RunResumed(life, after_crash=crash, is_alone=alone, in_flight=in_flight)


def test_a_start_is_recorded_and_launches_the_code() -> None:
    run = given(RunBehavior(), stream="run/r").when(StartRun("greet", INPUT, "d1", 1)).then(
        [STARTED], effects=[Launch(INPUT)]
    )  # fmt: skip

    assert (run.state.status, run.index) == ("running", Index(is_open=True))


def test_the_same_start_again_changes_nothing() -> None:
    view = a_run().when(StartRun("greet", INPUT, "d1", 2)).then([], effects=[])

    assert view.state.life == 1


@pytest.mark.parametrize(
    ("command", "difference"),
    [(StartRun("greet", INPUT, "d2", 1), "other input"), (StartRun("part", INPUT, "d1", 1), "another workflow")],
)
def test_another_start_under_the_same_id_is_refused(command: StartRun, difference: str) -> None:
    refusal = a_run().when(command).then_refused(RunConflictError)

    assert (refusal.run, refusal.difference) == ("r", difference)


@pytest.mark.parametrize("command", [GetRun(), CancelRun("x"), SettleStep("a", done())])
def test_what_nobody_started_is_unknown(command: GetRun | CancelRun | SettleStep) -> None:
    given(RunBehavior(), stream="run/r").when(command).then_refused(UnknownRunError)


def test_a_run_that_nobody_started_is_not_resumed() -> None:
    given(RunBehavior(), stream="run/r").when(ResumeRun(2)).then([], reply=False)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (RunCompleted(msgspec.Raw(b'"hi"')), "completed"),
        (RunFailed("ValueError", "bad"), "failed"),
        (RunCancelled("enough"), "cancelled"),
    ],
)
def test_a_closed_run_stays_as_it_is(end: object, status: str) -> None:
    run = a_run(step(), TimerSet("sleep#1", "", 5), end)

    assert (run.state.status, run.state.in_flight, run.state.timers) == (status, {}, 0)
    assert run.index == Index(is_open=False)
    run.when(ResumeRun(2)).then([], reply=False)
    run.when(CancelRun("late")).then([], reply=False, effects=[])
    run.when(Note(done())).then_refused(NotOpenError)
    run.when(StartRun("greet", INPUT, "d1", 1)).then([], effects=[])


def test_steps_in_flight_are_known_until_they_end() -> None:
    run = a_run(step("a#1"), step("b#1"), step("c#1"), done("a#1"), StepCancelled("c#1", 1, stopped=True))

    assert set(run.state.in_flight) == {"b#1"}
    assert run.state.steps_done == 2


def test_timers_are_counted() -> None:
    assert a_run(TimerSet("s#1", "", 5), TimerSet("s#2", "", 6), TimerFired("s#1")).state.timers == 1


def test_a_parked_run_is_found_by_its_time() -> None:
    assert a_run(RunParked(NOW, None)).index == Index(is_open=True, wake_at=NOW)
    assert a_run(RunParked(None, "attention")).index == Index(is_open=True, waits_on="attention")
    assert a_run(RunParked(NOW, None), resumed(2)).index == Index(is_open=True)


def test_a_cancel_is_asked_for_once() -> None:
    run = a_run().when(CancelRun("enough")).then([RunCancelRequested("enough")], reply=True, effects=[Interrupt()])

    run.when(CancelRun("more")).then([], reply=True, effects=[])


def test_a_blocked_run_is_cancelled_at_once() -> None:
    a_run(RunBlocked("mismatch", "both sides")).when(CancelRun("enough")).then(
        [RunCancelRequested("enough"), RunCancelled("enough")], reply=True
    )


# Doubt


def in_doubt(*more: object) -> Given[RunState]:
    return a_run(
        step(effect="irreversible"), resumed(2, "pay#1", crash=True), StepInDoubt("pay#1", 1, "who knows"), *more
    )


@pytest.mark.parametrize(
    "fact", [done(), StepFailed("pay#1", "E", "bad", retryable=False, attempt=1, micros=0), StepNotDone("pay#1", "ada")]
)
def test_a_verdict_is_recorded_and_handed_to_the_code(fact: StepCompleted | StepFailed | StepNotDone) -> None:
    run = in_doubt().when(SettleStep("pay#1", fact)).then([fact], effects=[Settled("pay#1", fact)])

    run.when(SettleStep("pay#1", fact)).then_refused(NotInDoubtError)


def test_a_verdict_wakes_a_parked_run_also_when_the_process_dies_now() -> None:
    run = in_doubt(RunParked(None, "attention")).when(SettleStep("pay#1", done())).then([done(), RunParked(NOW, None)])

    assert run.index.wake_at == NOW


def test_only_what_is_in_doubt_is_settled() -> None:
    refusal = in_doubt(step("other#1")).when(SettleStep("other#1", done("other#1"))).then_refused(NotInDoubtError)

    assert refusal.in_doubt == "pay#1"


# Crashes


def test_a_run_without_a_step_at_work_is_no_suspect() -> None:
    for run in (
        a_run(),
        a_run(step(), done()),
        a_run(step(), AttemptFailed("pay#1", 1, "E", "bad", NOW)),
        a_run(step(effect="irreversible"), StepInDoubt("pay#1", 1, "timed out")),
        a_run(step(), RunParked(NOW, None)),
        a_run(step(), RunSuspended(("pay#1",))),
        a_run(step(), RunCancelRequested("enough")),
    ):
        resumes = run.when(ResumeRun(2))._decision
        assert resumes is not None
        [event] = resumes.events
        assert isinstance(event, RunResumed)
        assert event.after_crash is False


def test_crashes_in_a_row_make_a_suspect_then_a_lonely_one_then_poison() -> None:
    run = a_run(step())
    run = run.when(ResumeRun(2)).then([resumed(2, "pay#1", crash=True)], reply=True)
    run = run.evolved([AttemptStarted("pay#1", 1)])
    assert needs_solitude(run.state, 3)
    run = run.when(ResumeRun(3)).then([resumed(3, "pay#1", crash=True, alone=True)], reply=True)
    run = run.evolved([AttemptStarted("pay#1", 1)])
    account = "the process died 3 times in a row while it ran, the last time alone, in: pay#1"
    run = run.when(ResumeRun(4)).then([RunBlocked("poison", account)], reply=False)

    assert run.state.status == "blocked"
    run.when(ResumeRun(5)).then([], reply=False)


@pytest.mark.parametrize(
    "survived",
    [
        done(),
        StepFailed("pay#1", "E", "bad", retryable=True, attempt=1, micros=0),
        StepCancelled("pay#1", 1, stopped=True),
        AttemptFailed("pay#1", 1, "E", "bad", NOW),
        StepInDoubt("pay#1", 1, "who knows"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_attempt_that_ends_clears_the_run(survived: object) -> None:
    run = a_run(
        step(), resumed(2, "pay#1", crash=True), AttemptStarted("pay#1", 1), resumed(3, "pay#1", crash=True, alone=True)
    )
    assert run.state.crashes == 2

    run = run.evolved([survived])  # type: ignore[list-item] # an event

    assert (run.state.crashes, run.state.suspects, run.state.was_alone) == (0, (), False)


def test_the_same_life_does_not_count_as_a_crash() -> None:
    a_run(step()).when(ResumeRun(1)).then([resumed(1, "pay#1")], reply=True)


# The runtime itself


def test_lives_are_counted_and_a_life_that_was_not_closed_crashed() -> None:
    me = OpenRuntime(7, "host", "0.1")
    runtime = given(LifeBehavior())
    runtime = runtime.when(me).then([RuntimeOpened(1, 7, "host", "0.1", after_crash=False)])
    runtime = runtime.when(me).then([RuntimeOpened(2, 7, "host", "0.1", after_crash=True)])
    runtime = runtime.after(timedelta(days=1)).when(CloseRuntime()).then([RuntimeClosed(2)])
    runtime = runtime.when(me).then([RuntimeOpened(3, 7, "host", "0.1", after_crash=False)])

    assert not runtime.index.is_open
