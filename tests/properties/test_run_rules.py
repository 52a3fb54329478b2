"""The rules of a run through any order of what its code, other people, other runs and crashes do to it.

The code reports only what code can: what it has begun it ends, once. What others ask may come at any time.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from perdure import (
    ControlRefusedError,
    NotInDoubtError,
    RunContinuedError,
)
from perdure.actors.kernel.messages import Command
from perdure.actors.workflows import commands as asks
from perdure.actors.workflows import events as facts
from perdure.actors.workflows import mail
from perdure.actors.workflows.links import ChildCancelRequested, ChildEnded, ChildStarted, RunContinued
from perdure.actors.workflows.occurrences import EventAwaited, EventExpired, EventTaken, EventWaitWithdrawn
from perdure.actors.workflows.state import CLOSED, report
from tests.support.run_life import ANSWERS, CHANGES, EXPECTED_REFUSALS, LIVES_FOR, NULL, OTHERS, SCHEMA, RunLife


class RunMachine(RunLife):
    """What the code of the run and others do, in any order."""

    # What its code does

    @precondition(RunLife.is_open)
    @rule(effect=st.sampled_from(["idempotent", "irreversible"]), undoes=st.sampled_from(["", "", "s0"]))
    def begins_a_step(self, effect: str, undoes: str) -> None:
        if not self.is_in_memory():
            return
        step = self.next_key("s")
        self.note(facts.StepStarted(step, "", "tool", "t", effect, NULL, "d", undoes))
        self.flying.add(step)

    @precondition(lambda self: self.is_open() and self.flying)
    @rule(data=st.data(), kind=st.sampled_from(["failed", "refused", "delayed", "again", "doubt"]))
    def is_at_a_step(self, data: st.DataObject, kind: str) -> None:
        if not self.is_in_memory():
            return
        step = data.draw(st.sampled_from(sorted(self.flying)))
        match kind:
            case "failed":
                self.note(facts.AttemptFailed(step, 1, "OSError", "down", self.now + 5))
            case "refused":
                self.note(facts.AttemptRefused(step, 1, "open", self.now + 5))
            case "delayed":
                self.note(facts.AttemptDelayed(step, 1, self.now + 5))
            case "again":
                self.note(facts.AttemptStarted(step, 2))
            case _:
                self.note(facts.StepInDoubt(step, 1, "who knows"))

    @precondition(lambda self: self.is_open() and self.flying)
    @rule(data=st.data(), kind=st.sampled_from(["done", "failed", "cancelled"]))
    def ends_a_step(self, data: st.DataObject, kind: str) -> None:
        if not self.is_in_memory():
            return
        step = data.draw(st.sampled_from(sorted(self.flying)))
        ends: dict[str, facts.RunFact] = {
            "done": facts.StepCompleted(step, NULL, 1, 0),
            "failed": facts.StepFailed(step, "OSError", "down", retryable=True, attempt=1, micros=0),
            "cancelled": facts.StepCancelled(step, 1, stopped=True),
        }
        self.note(ends[kind])
        self.flying.discard(step)

    @precondition(RunLife.is_open)
    @rule(kind=st.sampled_from("wqpec"))
    def begins_to_wait(self, kind: str) -> None:
        if not self.is_in_memory():
            return
        step = self.next_key(kind)
        begins: dict[str, Callable[[], facts.RunFact]] = {
            "w": lambda: mail.SignalAwaited(step, "", "a"),
            "q": lambda: mail.QuestionAsked(step, "", step, "?", msgspec.Raw(b'{"type":"integer"}'), NULL, (), "d"),
            "p": lambda: mail.QuestionAsked(
                step, "", step, "t?", SCHEMA, NULL, (), "d", several=2, tool="t", arguments=msgspec.Raw(b'{"n":1}')
            ),
            "e": lambda: EventAwaited(step, "", "t", msgspec.Raw(b'[["t",{}]]'), "", "d", 0),
            "c": lambda: ChildStarted(step, "", f"child/{step}", "w", "d", is_awaited=True),
        }
        self.note(begins[kind]())
        self.waits[step] = kind

    @precondition(lambda self: self.is_open() and self.waits)
    @rule(data=st.data(), is_given_up=st.booleans())
    def ends_a_wait(self, data: st.DataObject, *, is_given_up: bool) -> None:
        if not self.is_in_memory():
            return
        step = data.draw(st.sampled_from(sorted(self.waits)))
        match self.waits[step]:
            case "w" if not is_given_up and (found := self.state.mailbox.matches().get(step)):
                self.note(mail.SignalTaken(step, found.id))
            case "w":
                self.note(mail.SignalWaitWithdrawn(step) if is_given_up else mail.SignalExpired(step))
            case "q" | "p" if step not in self.state.mailbox.questions:
                pass  # it was answered
            case "q" | "p":
                self.note(mail.QuestionWithdrawn(step, step) if is_given_up else mail.QuestionExpired(step, step))
            case "e" if is_given_up:
                self.note(EventWaitWithdrawn(step, 3))
            case "e":
                is_in_time = data.draw(st.booleans())
                self.note(EventTaken(step, "t", "1", 2, 0, NULL) if is_in_time else EventExpired(step, 4))
            case _:
                self.note(ChildCancelRequested(step, f"child/{step}"))
                return  # it is waited for
        del self.waits[step]

    @precondition(lambda self: self.is_open() and len(self.log) > LIVES_FOR)
    @rule(end=st.sampled_from(["completed", "failed", "failed", "cancelled", "continued"]))
    def ends(self, end: str) -> None:
        if not self.is_in_memory():
            return
        ends: dict[str, facts.RunCompleted | facts.RunFailed | facts.RunCancelled | RunContinued] = {
            "completed": facts.RunCompleted(NULL),
            "failed": facts.RunFailed("OSError", "down"),
            "cancelled": facts.RunCancelled("enough"),
            "continued": RunContinued("r~2"),
        }
        self.ask(asks.EndRun(ends[end]))
        self.is_awake = False
        assert self.state.status == end

    # What others do

    @rule(command=OTHERS)
    def is_asked(self, command: Command) -> None:
        before = self.state
        try:
            decision = self.ask(command)
        except EXPECTED_REFUSALS:
            assert self.state is before
            return
        if before.status == "queued" and self.is_closed():
            self.is_awake = False
        if before.status in CLOSED:
            assert decision.events == ()
        is_told = any(isinstance(effect, (asks.Interrupt, asks.Arrived, asks.Wake)) for effect in decision.effects)
        if before.status == "waiting" and is_told and self.state.paused is None:
            # The next life would wake it too, should this one end before the effect.
            wake_at = self.behavior.index(self.state).wake_at
            assert wake_at is not None
            assert wake_at <= self.now

    @precondition(lambda self: self.state.events.waits)
    @rule(data=st.data(), position=st.integers(1, 9))
    def something_is_published(self, data: st.DataObject, position: int) -> None:
        step = data.draw(st.sampled_from(sorted(self.state.events.waits)))
        self.is_asked(asks.FindEvent(step, position))

    @precondition(lambda self: self.state.mailbox.questions)
    @rule(data=st.data(), who=st.sampled_from(["ada", "ben"]), is_right=st.sampled_from([True, True, True, False]))
    def somebody_says_something(self, data: st.DataObject, who: str, *, is_right: bool) -> None:
        question = data.draw(st.sampled_from(sorted(self.state.mailbox.questions)))
        if question.startswith("p") is is_right:
            verdict: Literal["approved", "rejected"] = data.draw(st.sampled_from(["approved", "approved", "rejected"]))
            self.is_asked(asks.DecideApproval(question, verdict, who, data.draw(st.sampled_from(CHANGES))))
        else:
            self.is_asked(asks.AnswerQuestion(question, data.draw(st.sampled_from(ANSWERS)), who))
        if question not in self.state.mailbox.questions:
            self.waits.pop(question, None)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), kind=st.sampled_from(["done", "failed", "not done"]))
    def is_settled(self, data: st.DataObject, kind: str) -> None:
        step = data.draw(st.sampled_from(sorted(self.flying)))
        flight = self.state.in_flight.get(step)
        ends: dict[str, facts.StepCompleted | facts.StepFailed | facts.StepNotDone] = {
            "done": facts.StepCompleted(step, NULL, 0, 0),
            "failed": facts.StepFailed(step, "Settled", "no", retryable=False, attempt=0, micros=0),
            "not done": facts.StepNotDone(step, "ada"),
        }
        try:
            self.ask(asks.SettleStep(step, ends[kind]))
        except (NotInDoubtError, RunContinuedError):
            assert flight is None or not flight.in_doubt
            return
        assert flight is not None
        assert flight.in_doubt
        if kind != "not done":
            self.flying.discard(step)

    @rule(reopens=st.booleans())
    def is_retried(self, *, reopens: bool) -> None:
        was, steps = self.state.status, self.state.retries
        reopened = (facts.Reopened("s1", "t", "idempotent", 1),) if reopens and was == "failed" else ()
        if reopened and "s1" not in {event.step for event in self.log if isinstance(event, facts.StepCancelled)}:
            reopened = ()
        try:
            self.ask(asks.RetryRun(facts.RunRetried("s1", reopened=reopened), self.state.retries))
        except (ControlRefusedError, RunContinuedError):
            assert was != "blocked"
            return
        assert was in ("failed", "blocked")
        assert self.state.retries == steps + 1
        self.flying.update(one.step for one in reopened)

    @rule(number=st.integers(1, 3))
    def a_child_ends(self, number: int) -> None:
        step = f"c{number}"
        ended = ChildEnded(step, f"child/{step}", "completed", NULL)
        is_awaited = step in self.state.children.awaited
        assert self.ask(asks.EndChild(ended)).reply is is_awaited
        assert self.ask(asks.EndChild(ended)).reply is False
        self.waits.pop(step, None)

    @rule()
    def its_parent_is_told(self) -> None:
        is_owed = report(self.state) is not None
        assert self.ask(asks.TellParent()).reply is is_owed
        assert self.ask(asks.TellParent()).events == ()


TestRun = RunMachine.TestCase
TestRun.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
