"""A circuit breaker as one would write it on a napkin, and a rig that runs the real one beside it and beside purgatory.

The napkin is mutable, imperative and shares no code with the real one. Purgatory is another library's breaker; where it
differs by design the rig says why, once, and compares it no further. No test.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import purgatory.domain.model
import pytest
from purgatory.domain.model import Context, OpenedState

from perdure import BreakerPolicy
from perdure.actors.kernel.messages import Command, Moment
from perdure.actors.tools.breaker import Admission, Circuit
from perdure.actors.tools.breaker import Command as Word
from perdure.actors.tools.tool import (
    Admit,
    ForceCircuit,
    GetToolStatistics,
    Guard,
    RecordCancel,
    RecordFailure,
    RecordSuccess,
    ToolBehavior,
)
from perdure.store.codec import Codec, Event
from perdure.store.records import Recorded, StreamId

SECOND = 1_000_000
STREAM = StreamId("tool/t")


class NapkinBreaker:
    """Consecutive failures, a cool-down, probes; times are microseconds."""

    def __init__(
        self, threshold: int, reset: int, probes: int, needed: int, rates: "Callable[[], NapkinWindow]"
    ) -> None:
        self.threshold, self.reset, self.probes, self.needed = threshold, reset, probes, needed
        self._rates = rates
        self.window = rates()
        self.state = "closed"
        self.streak = 0
        self.opened_at = 0
        self.epoch = 0
        self.good = 0
        self.probing: set[str] = set()
        self.hand = ""
        """What an operator made of it."""

    def ask(self, call: str, now: int) -> int | None:
        """Return the epoch in which *call* may go ahead, or None when it may not."""
        if self.hand:
            return self.epoch if self.hand == "disabled" else None
        if self.state == "open":
            if now - self.opened_at <= self.reset:
                return None
            self._go("half_open")
        if self.state == "half_open":
            if len(self.probing) >= self.probes or len(self.probing) + self.good >= self.needed:
                return None
            self.probing.add(call)
        return self.epoch

    def tell(self, call: str, epoch: int, outcome: bool | None, now: int, micros: int) -> None:
        """Take in that *call*, of *epoch*, succeeded, failed (False) or counts for nothing (None)."""
        if epoch != self.epoch:
            return
        self.probing.discard(call)
        if outcome is None:
            return
        self.streak = 0 if outcome else self.streak + 1
        too_bad = self.window.opens(now, not outcome, micros)
        if self.hand:
            return
        if self.state == "closed" and (self.streak >= self.threshold or too_bad):
            self._open(now)
        if self.state != "half_open":
            return
        if not outcome:
            self._open(now)
        else:
            self.good += 1
            if self.good == self.needed:
                self._go("closed")
                self.streak = 0

    def force(self, to: str, now: int) -> None:
        """Do what an operator says."""
        if to == self.hand or (to == "auto" and not self.hand):
            return
        self.streak = 0
        if to == "open":
            self._open(now)
        else:
            self._go("closed")
        self.hand = to if to in ("open", "disabled") else ""

    def crash(self) -> None:
        """Forget the probes: they died."""
        self.probing.clear()

    def _open(self, now: int) -> None:
        self._go("open")
        self.opened_at = now

    def _go(self, state: str) -> None:
        self.state = state
        self.epoch += 1
        self.good = 0
        self.probing.clear()
        self.window = self._rates()


class NapkinWindow:
    """Rates over the last calls, counted by hand."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.calls: deque[tuple[int, bool, int]] = deque(maxlen=policy.window_calls)
        self.span = None if policy.window_time is None else round(policy.window_time.total_seconds() * SECOND)
        self.minimum, self.failures, self.slow_rate = policy.minimum_calls, policy.failure_rate, policy.slow_call_rate
        self.slow = 0 if policy.slow_call is None else round(policy.slow_call.total_seconds() * SECOND)

    def opens(self, at: int, is_failure: bool, micros: int) -> bool:
        """Take in the end of a call; return whether the rates now open a closed circuit."""
        self.calls.append((at, is_failure, micros))
        seen = [one for one in self.calls if self.span is None or one[0] > at - self.span]
        if len(seen) < self.minimum:
            return False
        failed, slow = sum(one[1] for one in seen), sum(one[2] > self.slow for one in seen)
        too_many = is_failure and self.failures is not None and failed >= self.failures * len(seen)
        return too_many or (self.slow_rate is not None and slow >= self.slow_rate * len(seen))


class Rig:
    """The breaker of a tool's actor beside the napkin and, as long as it should agree, beside purgatory."""

    def __init__(self, policy: BreakerPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy = policy
        self.behavior = ToolBehavior({"t": Guard(policy)})
        self.state = self.behavior.initial(STREAM)
        self.events: list[Event] = []
        self.now = self.wall = 1_000 * SECOND
        self.life = 1
        self.flights: dict[str, tuple[int, int, int]] = {}
        """Calls in the air, with the generations of both and when they began."""
        self.asked = 0
        reset = round(policy.reset_timeout.total_seconds() * SECOND)
        self.napkin = NapkinBreaker(
            policy.failure_threshold, reset, policy.probes, policy.successes_to_close, lambda: NapkinWindow(policy)
        )
        monkeypatch.setattr(purgatory.domain.model, "time", SimpleNamespace(time=lambda: self.now / SECOND))
        self.purgatory: Context | None = Context("t", policy.failure_threshold, reset / SECOND)
        self.explained: Counter[str] = Counter()
        if policy.successes_to_close > 1 or policy.failure_rate or policy.slow_call_rate:
            self._part("purgatory closes after one success, and knows no rates")

    # What may happen

    def begin(self) -> None:
        call = f"c{self.asked}"
        self.asked += 1
        admission: Admission = self._decide(Admit(call, self.life))
        epoch = self.napkin.ask(call, self.now)
        assert admission.is_admitted == (epoch is not None), f"{call}: {admission}, the napkin says {epoch}"
        self._compare_admission(admission)
        if epoch is not None:
            self.flights[call] = admission.generation, epoch, self.now
        self.check()

    def end(self, call: str, how: str) -> None:
        """End a call: `ok`, `fail`, `excluded` or `cancel`."""
        generation, epoch, began = self.flights.pop(call)
        micros = self.now - began
        if generation != self.state.breaker.generation and self.state.breaker.circuit is not Circuit.OPEN:
            self._part("purgatory takes a result of before a transition for one of after it")
        counts = {"ok": True, "fail": False}.get(how)
        self._compare_end(counts)
        self._decide(_report(call, generation, micros, how))
        self.napkin.tell(call, epoch, counts, self.now, micros)
        self.check()

    def force(self, to: Word) -> None:
        self._part("purgatory obeys no operator")
        self._decide(ForceCircuit(to, "a test"))
        self.napkin.force(to, self.now)
        self.check()

    def pass_time(self, micros: int) -> None:
        self.now += micros
        self.wall += micros
        self.check()

    def jump(self, micros: int) -> None:
        """Set the wall clock: nothing that is measured on the steady clock may notice."""
        self.wall += micros
        self.check()

    def crash(self) -> None:
        """Lose what is in memory; bring the actor back from its events, as the log gives them."""
        self.flights.clear()
        self.life += 1
        self.napkin.crash()
        codec = Codec(self.behavior.events)
        state = self.behavior.initial(STREAM)
        for event in self.events:
            new, _ = codec.encode(event)
            recorded = Recorded(1, STREAM, 1, new.type, new.type_version, 0, new.data.decode(), None)
            state = self.behavior.evolve(state, codec.decode(recorded))
        assert state == self.state
        self.state = state
        self.check()

    # What must hold

    def check(self) -> None:
        breaker, napkin = self.state.breaker, self.napkin
        assert (breaker.circuit.value, breaker.generation, breaker.failures) == (
            napkin.state,
            napkin.epoch,
            napkin.streak,
        )
        assert breaker.forced == napkin.hand
        assert {call for call, life in breaker.probes if life == self.life} == napkin.probing
        assert len(napkin.probing) <= min(self.policy.probes, self.policy.successes_to_close)
        if napkin.state == "open":
            assert breaker.opened_at == napkin.opened_at
        is_due = napkin.state == "open" and not napkin.hand and self.now - napkin.opened_at > napkin.reset
        assert self._decide(GetToolStatistics()).state == ("half_open" if is_due else napkin.state)
        if self.purgatory is not None:
            assert self.purgatory.state == {"open": "opened", "half_open": "half-opened"}.get(
                napkin.state, napkin.state
            )

    def _decide(self, command: Command) -> Any:
        decision = self.behavior.decide(self.state, command, Moment(self.wall, self.now))
        for event in decision.events:
            self.state = self.behavior.evolve(self.state, event)
        self.events.extend(decision.events)
        return decision.reply

    def _compare_admission(self, admission: Admission) -> None:
        if self.purgatory is None:
            return
        try:
            self.purgatory.handle_new_request()
        except OpenedState:
            assert not admission.is_admitted
            return
        if not admission.is_admitted:
            assert admission.reason == "a probe is in flight"
            assert self.purgatory.state == "half-opened"
            self.explained["purgatory lets any number of probes through"] += 1  # it keeps no count: nothing to undo

    def _compare_end(self, counts: bool | None) -> None:
        if self.purgatory is None or counts is None:  # it takes a cancelled call for a failure: it is not told of one
            return
        if counts:
            self.purgatory.handle_end_request()
        else:
            self.purgatory.handle_exception(RuntimeError())

    def _part(self, why: str) -> None:
        if self.purgatory is not None:
            self.explained[why] += 1
            self.purgatory = None


def _report(call: str, generation: int, micros: int, how: str) -> Command:
    match how:
        case "ok":
            return RecordSuccess(call, generation, micros)
        case "fail":
            return RecordFailure(call, generation, micros, "RuntimeError", "boom", ("RuntimeError",))
        case "excluded":
            return RecordFailure(call, generation, micros, "NotFoundError", "no", ("NotFoundError", "LookupError"))
        case _:
            return RecordCancel(call, generation, micros)


def play_at_random(rig: Rig, draw: random.Random, steps: int) -> None:
    """Let *steps* things happen: mostly calls that begin and end in any order, now and then the rest."""
    for _ in range(steps):
        chance = draw.random()
        if chance < 0.4:
            rig.begin()
        elif chance < 0.75 and rig.flights:
            how = draw.choices(["ok", "fail", "excluded", "cancel"], [4, 5, 1, 1])[0]
            rig.end(draw.choice(list(rig.flights)), how)
        elif chance < 0.96:
            rig.pass_time(draw.choice([0, 1, 2, 4, 5, 6, 30]) * SECOND)
        elif chance < 0.98:
            rig.jump(draw.choice([-3600, 3600, -86_400]) * SECOND)
        elif chance < 0.99:
            rig.crash()
        else:
            rig.force(draw.choice(["open", "closed", "disabled", "auto"]))


def any_policy(draw: random.Random) -> BreakerPolicy:
    """Draw a policy; half of them know failures in a row only, as purgatory does."""
    plain = BreakerPolicy(draw.randint(1, 4), timedelta(seconds=5), excluded=("LookupError",))
    if draw.random() < 0.5:
        return plain
    slow = draw.random() < 0.5
    return msgspec.structs.replace(
        plain,
        failure_threshold=draw.choice([1, 3, 50]),
        probes=draw.randint(1, 3),
        successes_to_close=draw.randint(1, 3),
        window_calls=draw.choice([4, 8, 20]),
        window_time=draw.choice([None, timedelta(seconds=6), timedelta(seconds=30)]),
        minimum_calls=draw.randint(1, 4),
        failure_rate=draw.choice([None, 0.25, 0.5, 1.0]),
        slow_call=timedelta(seconds=4) if slow else None,
        slow_call_rate=draw.choice([0.5, 1.0]) if slow else None,
    )
