"""A run's pure core in a process that dies now and then, and what holds of it at any time.

Not here: what its code and others do to it (`tests/properties/test_run_rules.py`).
"""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perdure import (
    ControlRefusedError,
    QuestionNotOpenError,
    RunClosedError,
    RunConflictError,
    RunContinuedError,
    SignalConflictError,
    WrongAnswerError,
)
from perdure.actors.kernel.messages import Command, Decision, Event, Moment
from perdure.actors.kernel.replay import replay
from perdure.actors.workflows import commands as asks
from perdure.actors.workflows import events as facts
from perdure.actors.workflows import mail
from perdure.actors.workflows.links import ChildStarted, Parent
from perdure.actors.workflows.occurrences import EventAwaited
from perdure.actors.workflows.run import RunBehavior
from perdure.actors.workflows.state import CLOSED, NotOpenError, RunState, report
from perdure.store.codec import Codec
from perdure.store.records import Recorded, StreamId

LIVES_FOR = 8
"""Events, at least: otherwise most runs would end before anything has happened to them."""
STREAM = StreamId("run/r")
CODEC = Codec(RunBehavior.events)
NULL = msgspec.Raw(b"null")
PARENT = Parent("p", "child#1", is_awaited=True)
SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"n":{"type":"integer"}}}')
BEGINS: dict[str, type[Event]] = {
    "s": facts.StepStarted,
    "w": mail.SignalAwaited,
    "q": mail.QuestionAsked,
    "p": mail.QuestionAsked,
    "e": EventAwaited,
    "c": ChildStarted,
}
"""What begins with each letter of a key."""
OTHERS = st.one_of(
    st.builds(asks.SendSignal, st.sampled_from("ab"), st.just(NULL), st.sampled_from([None, "1", "2"])),
    st.builds(asks.CancelRun, st.just("enough")),
    st.builds(asks.PauseRun, st.just("wait")),
    st.builds(asks.UnpauseRun),
    st.builds(asks.FindEvent, st.just("e1"), st.integers(1, 9)),
    st.builds(asks.GetRun),
)
ANSWERS = [NULL, msgspec.Raw(b"1")]
CHANGES = [NULL, NULL, msgspec.Raw(b'{"n":2}'), msgspec.Raw(b'{"n":"x"}')]
EXPECTED_REFUSALS = (
    RunClosedError, RunContinuedError, QuestionNotOpenError, WrongAnswerError, ControlRefusedError, SignalConflictError,
)  # fmt: skip


def through_the_log(event: Event, position: int) -> Event:
    new, _ = CODEC.encode(event)
    return CODEC.decode(
        Recorded(position, STREAM, position, new.type, new.type_version, 0, bytes(new.data).decode(), None)
    )


class RunLife(RuleBasedStateMachine):
    """A run whose code is in memory or not, in a process that dies now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.behavior = RunBehavior()
        self.state = self.behavior.initial(STREAM)
        self.log: list[Event] = []
        self.now = 1_000
        self.life = 1
        self.is_awake = False
        """Whether its code is in memory."""
        self.flying: set[str] = set()
        self.waits: dict[str, str] = {}
        """Steps that wait, by what: signal, question, event or child."""

    def ask(self, command: Command) -> Decision[object]:
        """Have the run decide; the log keeps what it decided as it would be read again.

        Raises:
            PerdureError: it refuses; then nothing has changed.
        """
        decision = self.behavior.decide(self.state, command, Moment(self.now, self.now))
        for event in decision.events:
            self.log.append(through_the_log(event, len(self.log) + 1))
            self.state = self.behavior.evolve(self.state, event)
        return decision

    def note(self, fact: facts.RunFact) -> None:
        self.ask(asks.Note(fact))

    def next_key(self, kind: str) -> str:
        return f"{kind}{sum(isinstance(event, BEGINS[kind]) for event in self.log) + 1}"

    def is_closed(self) -> bool:
        return self.state.status in CLOSED

    def is_open(self) -> bool:
        return not self.is_closed()

    # The start

    @initialize(
        deadline=st.sampled_from([None, None, 100_000]),
        place=st.sampled_from([None, None, facts.Place("mail")]),
        parent=st.sampled_from([None, PARENT]),
        letters=st.integers(0, 2),
    )
    def starts(self, deadline: int | None, place: facts.Place | None, parent: Parent | None, letters: int) -> None:
        sent = tuple(mail.SignalReceived(f"m{n}", "a", NULL, 0) for n in range(letters))
        self.start = asks.StartRun(
            "w", msgspec.Raw(b"{}"), "d", self.life, deadline, place=place, parent=parent, mail=sent
        )
        self.ask(self.start)
        self.is_awake = place is None

    @rule(other=st.booleans())
    def starts_again(self, *, other: bool) -> None:
        again = msgspec.structs.replace(self.start, digest="other") if other else self.start
        try:
            assert self.ask(again).events == ()
        except RunConflictError:
            assert other

    # The process

    @rule(seconds=st.sampled_from([1, 1_000, 60_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def the_process_dies(self) -> None:
        self.life += 1
        self.is_awake = False

    @precondition(lambda self: not self.is_awake)
    @rule()
    def is_resumed(self) -> None:
        before = self.state
        decision = self.ask(asks.ResumeRun(self.life))
        self.is_awake = decision.reply is True
        assert self.is_awake is any(isinstance(event, facts.RunResumed) for event in decision.events)
        if before.status in CLOSED:
            assert decision.events == ()
        deadline = before.deadline
        if before.paused is not None and before.cancel_reason is None and (deadline is None or deadline > self.now):
            assert not self.is_awake

    def is_in_memory(self) -> bool:
        """Bring the code into memory, as its time comes; return whether it may report something."""
        if not self.is_awake:
            self.is_resumed()
        return self.is_awake

    @precondition(is_open)
    @rule(
        how=st.sampled_from(["parked"] * 6 + ["suspended", "blocked"]),
        wake_at=st.sampled_from([None, 50_000]),
        waits_on=st.sampled_from([None, "signal", "answer", "attention"]),
    )
    def leaves_memory(self, how: str, wake_at: int | None, waits_on: str | None) -> None:
        if not self.is_in_memory():
            return
        match how:
            case "parked":
                self.note(facts.RunParked(wake_at, waits_on))
            case "suspended":
                self.note(facts.RunSuspended(tuple(self.flying)))
                self.life += 1
            case _:
                self.note(facts.RunBlocked("mismatch", "it differs"))
        self.is_awake = False

    # What holds at any time

    @invariant()
    def the_log_tells_all_of_it(self) -> None:
        assert replay(self.behavior, self.log, STREAM) == self.state
        assert msgspec.json.decode(msgspec.json.encode(self.state), type=RunState) == self.state, "in a snapshot"

    @invariant()
    def what_is_open_is_what_was_begun_and_not_ended(self) -> None:
        if self.is_closed():
            self.flying.clear()
            self.waits = {step: kind for step, kind in self.waits.items() if kind == "c"}
            assert not self.state.mailbox.questions
            assert not self.state.mailbox.awaited
            assert not self.state.events.waits
        assert set(self.state.in_flight) == self.flying
        assert set(self.state.events.waits) == {step for step, kind in self.waits.items() if kind == "e"}
        assert set(self.state.mailbox.awaited) == {step for step, kind in self.waits.items() if kind == "w"}
        assert set(self.state.children.awaited) == {step for step, kind in self.waits.items() if kind == "c"}

    @invariant()
    def a_run_that_has_ended_is_open_work_only_as_long_as_it_owes_something(self) -> None:
        index = self.behavior.index(self.state)
        if self.is_closed():
            assert index.is_open is (report(self.state) is not None or bool(self.state.children.awaited))
            assert index.wake_at is None
        else:
            assert index.is_open is bool(self.log)

    @invariant()
    def a_paused_run_has_nothing_to_wake_for_but_its_deadline(self) -> None:
        if self.state.paused is not None and self.state.status != "blocked":
            index = self.behavior.index(self.state)
            assert (index.wake_at, index.waits_on) == (self.state.deadline, "resume")

    @invariant()
    def a_run_that_has_ended_takes_no_facts(self) -> None:
        if self.is_closed():
            for command in (asks.Note(facts.TimerFired("t")), asks.EndRun(facts.RunCompleted(NULL))):
                try:
                    self.behavior.decide(self.state, command, Moment(self.now, self.now))
                except NotOpenError:
                    continue
                raise AssertionError(command)
