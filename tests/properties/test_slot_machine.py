"""A slot beside a naive one, through any order of commands of any holder, restarts and the passing of time."""

import copy

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perdure.actors.kernel.messages import Command, Event, Moment
from perdure.actors.kernel.replay import replay
from perdure.actors.slots.commands import (
    AcquireSlot,
    BeginRelease,
    BeginReset,
    CreateSlot,
    EndExecution,
    FinishRelease,
    QuarantineSlot,
    RenewLease,
    ResetSlot,
    RetireSlot,
    StartExecution,
)
from perdure.actors.slots.errors import SlotTransitionError, StaleLeaseError
from perdure.actors.slots.slot import SlotBehavior, SlotState, view
from perdure.store.records import StreamId

STREAM = StreamId("slot/s")
LEASES = st.sampled_from([2, 2, 2, 0, 1, 3])
"""Added to the newest lease less two: mostly the newest, old ones, one that nobody has yet."""


class NapkinSlot:
    """A slot as one would write it on a napkin: mutable, and it says no by raising."""

    def __init__(self) -> None:
        self.state = "new"
        self.lease = 0
        self.holder: str | None = None
        self.running: str | None = None
        self.files: str | None = None
        self.must_reset = False
        self.error = ""

    def obey(self, command: Command) -> None:  # noqa: C901 - a napkin has no structure
        lease = getattr(command, "lease", None)
        if lease is not None and lease != self.lease:
            raise LookupError
        match command:
            case CreateSlot():
                self.state = "available" if self.state in ("new", "retired") else self.state
            case AcquireSlot(trajectory=trajectory):
                self.need("available")
                if self.files not in (None, trajectory):
                    raise PermissionError
                self.state, self.holder, self.files, self.lease = "acquired", trajectory, None, self.lease + 1
            case RenewLease():
                self.need("acquired", "executing")
            case StartExecution(execution=execution):
                self.need("acquired")
                self.state, self.running = "executing", execution
            case EndExecution(execution=execution):
                if self.running != execution:
                    raise PermissionError
                self.running = None
                self.state = "acquired" if self.state == "executing" else self.state
            case BeginRelease(reset=reset):
                if self.state != "available":
                    self.need("acquired", "executing")
                    self.state, self.must_reset = "releasing", reset
            case FinishRelease(was_reset=was_reset):
                self.need("releasing")
                if self.running is not None or (self.must_reset and not was_reset):
                    raise PermissionError
                self.free(None if was_reset else self.holder)
            case BeginReset():
                self.need("available", "error")
                if self.files is not None:
                    self.files = ""
            case ResetSlot():
                self.need("available", "error")
                self.free(None)
            case QuarantineSlot(reason=reason):
                self.need("new", "retired", is_not=True)
                self.free(None)
                self.state, self.error = "error", reason
            case RetireSlot():
                self.need("available")
                self.free(None)
                self.state = "retired"
            case _:
                raise AssertionError

    def need(self, *states: str, is_not: bool = False) -> None:
        if (self.state in states) is is_not:
            raise PermissionError

    def free(self, files: str | None) -> None:
        self.state, self.holder, self.running, self.files, self.error = "available", None, None, files, ""
        self.must_reset = False


class SlotMachine(RuleBasedStateMachine):
    """Whatever happens, the slot stands where the napkin stands, and its events tell all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.behavior = SlotBehavior()
        self.state = self.behavior.initial(STREAM)
        self.napkin = NapkinSlot()
        self.events: list[Event] = []
        self.now = 1_000_000

    def send(self, command: Command) -> None:
        before, told, kept = self.state, copy.copy(self.napkin), msgspec.json.encode(self.state)
        try:
            decision = self.behavior.decide(self.state, command, Moment(self.now, self.now))
        except StaleLeaseError:
            outcome: type[Exception] | None = LookupError
        except SlotTransitionError:
            outcome = PermissionError
        else:
            outcome = None
            for event in decision.events:
                self.state = self.behavior.evolve(self.state, event)
                self.events.append(event)
        expected: type[Exception] | None = None
        try:
            told.obey(command)
        except (LookupError, PermissionError) as error:
            expected = type(error)
        else:
            self.napkin = told

        assert outcome == expected
        assert msgspec.json.encode(before) == kept
        assert outcome is None or self.state is before
        assert self.state.lease >= before.lease
        if before.standing == "error" and self.state.standing != "error":
            assert isinstance(command, ResetSlot)
        if before.trajectory is not None and self.state.trajectory not in (None, before.trajectory):
            raise AssertionError("a slot went from one holder to another")

    @rule()
    def create(self) -> None:
        self.send(CreateSlot(1))

    @rule(trajectory=st.sampled_from(["t1", "t2"]), micros=st.none() | st.integers(1, 100))
    def acquire(self, trajectory: str, micros: int | None) -> None:
        self.send(AcquireSlot(trajectory, micros))

    @rule(ago=LEASES, micros=st.integers(1, 100))
    def renew(self, ago: int, micros: int) -> None:
        before = self.state.expires_at
        self.send(RenewLease(self.state.lease - 2 + ago, micros))
        assert (before is None) == (self.state.expires_at is None)
        assert before is None or (self.state.expires_at or 0) >= before

    @rule(ago=LEASES, execution=st.sampled_from(["x1", "x2"]))
    def start(self, ago: int, execution: str) -> None:
        self.send(StartExecution(self.state.lease - 2 + ago, execution))

    @rule(ago=LEASES, execution=st.sampled_from(["x1", "x2"]))
    def end(self, ago: int, execution: str) -> None:
        self.send(EndExecution(self.state.lease - 2 + ago, execution))

    @rule(ago=LEASES, reset=st.booleans())
    def begin_release(self, ago: int, reset: bool) -> None:
        self.send(BeginRelease(self.state.lease - 2 + ago, "released", reset))

    @rule(ago=LEASES, was_reset=st.booleans())
    def finish_release(self, ago: int, was_reset: bool) -> None:
        self.send(FinishRelease(self.state.lease - 2 + ago, was_reset))

    @rule(trajectory=st.sampled_from(["t1", "t2"]), reset=st.booleans(), was_reset=st.booleans())
    def come_and_go(self, trajectory: str, reset: bool, was_reset: bool) -> None:
        self.send(CreateSlot(1))
        self.send(AcquireSlot(trajectory))
        self.send(BeginRelease(self.state.lease, "released", reset))
        self.send(FinishRelease(self.state.lease, was_reset))

    @rule()
    def begin_reset(self) -> None:
        self.send(BeginReset())

    @rule()
    def reset(self) -> None:
        self.send(ResetSlot())

    @rule(reason=st.sampled_from(["reset failed", "ill"]))
    def quarantine(self, reason: str) -> None:
        self.send(QuarantineSlot(reason))

    @rule(sure=st.integers(0, 4))
    def retire(self, sure: int) -> None:
        if not sure:  # seldom: nothing happens to a slot afterwards
            self.send(RetireSlot())

    @rule(micros=st.integers(1, 200))
    def pass_time(self, micros: int) -> None:
        self.now += micros

    @rule()
    def come_back_from_a_snapshot(self) -> None:
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=SlotState)

    @invariant()
    def stands_where_the_napkin_stands(self) -> None:
        shown, napkin = view(self.state), self.napkin
        assert (shown.state, shown.lease, shown.trajectory) == (napkin.state, napkin.lease, napkin.holder)
        assert (shown.execution, shown.keeps_files_of, shown.error) == (napkin.running, napkin.files, napkin.error)
        assert (shown.trajectory is not None) == (shown.state in ("acquired", "executing", "releasing"))

    @invariant()
    def is_the_fold_of_its_events(self) -> None:
        assert replay(self.behavior, self.events, STREAM) == self.state

    @invariant()
    def is_open_until_it_is_retired(self) -> None:
        index = self.behavior.index(self.state)
        assert index.is_open == (self.state.standing not in ("new", "retired"))
        assert index.wake_at is None or index.wake_at == self.state.expires_at


SlotMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestSlot = SlotMachine.TestCase
