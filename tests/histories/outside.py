"""The world outside of the histories: who starts a run, and what others then do to it, however often they are asked.

Invariant: whatever is done here is done once, wherever a history was cut: signals and events have ids, an answer is for
a question that is open. So a run ends the same, whether or not the process died meanwhile.
"""

import contextlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from perdure import (
    Query,
    Queue,
    RateLimit,
    RunClosedError,
    RunHandle,
    Runtime,
    RunView,
    Settings,
    Workflow,
    WorkflowDefinition,
    WrongAnswerError,
)
from perdure.testing import MemoryDisk, TestClock
from tests.histories import code, scopes, steering
from tests.histories.steering import HAPPENED
from tests.support.runs import DAY, Box

RUN = "golden"
SIGNALS = ("a", "b", "c")
EVENTS = (("order.paid", 1), ("order.paid", 2), ("order.lost", 3), ("order.paid", 4))
ROUNDS = 10

Outcome = tuple[str, str, str]
"""Status, result and error of a run."""


class Plan(msgspec.Struct, frozen=True):
    """What happens to the run of a history."""

    workflow: Workflow[..., Any] | WorkflowDefinition
    arguments: dict[str, Any] = {}
    signals: bool = False
    publishes: bool = False
    cancels: bool = False
    retries: bool = False


PLANS = {
    "order": Plan(code.order, {"item": "lamp"}),
    "fan": Plan(code.fan),
    "doubt": Plan(code.doubt),
    "cancelled": Plan(code.cancelled, cancels=True),
    "breaker": Plan(code.breaker),
    "guards": Plan(code.guards),
    "people": Plan(steering.people, signals=True),
    "listener": Plan(steering.listener, publishes=True),
    "relay": Plan(steering.relay, {"found": []}, signals=True, publishes=True),
    "steered": Plan(steering.steered, retries=True),
    "lined": Plan(steering.lined, {"name": "second"}),
    "scopes": Plan(scopes.scopes),
    "trip": Plan(scopes.trip),
    "family": Plan(scopes.family),
    "orphan": Plan(scopes.orphan, cancels=True),
    "route": Plan(scopes.route, {"is_birthday": False}),
}
CHILDREN = (scopes.child, scopes.lost_child, scopes.slow_child, scopes.chained_child)
TOOLS = (code.inspect, code.tidy)


def box_for(plan: Plan, disk: MemoryDisk, clock: TestClock) -> Box:
    """Return a process that knows the code of a history, on what is on *disk*."""
    # Actors stay in memory: looking for idle ones twice a minute would be most of what happens in three days.
    settings = Settings(idle_after=30 * DAY, socket=False)
    queue = Queue("mail", concurrency=1, rate=RateLimit(calls=1, per=timedelta(minutes=1)))
    workflows = [plan.workflow, *CHILDREN]
    return Box(disk, clock, workflows=workflows, tools=TOOLS, queues=[queue], settings=settings)


class Outside:
    """Everybody who has something to do with the run, in one life of a process."""

    def __init__(self, box: Box, plan: Plan, before: Iterable[str] = ()) -> None:
        """Go on where the events of the types *before* have led."""
        HAPPENED.clear()
        HAPPENED.update(before)
        self._box = box
        self._plan = plan

    async def attend(self) -> dict[str, Outcome]:
        """Do what is to be done until every run has ended; return how."""
        await self._box.clock.settle()
        for _ in range(ROUNDS):
            views = await self._views()
            if all(view.is_closed for view in views) and not self._is_to_be_retried(views):
                return {view.run: (view.status, view.result, view.error) for view in views}
            for view in views:
                await self._steer(view)
            await self._send()
            await self._answer()
            await self._box.clock.advance(DAY)
        raise AssertionError(f"no end of {[view for view in await self._views() if not view.is_closed]}")

    @property
    def _rt(self) -> Runtime:
        return self._box.runtime

    async def _views(self) -> list[RunView]:
        started = await self._rt.read(Query(types=("run-started",), limit=1000))
        return [await self._rt.run(row.stream.removeprefix("run/")).status() for row in started]

    def _is_to_be_retried(self, views: list[RunView]) -> bool:
        return self._plan.retries and any(view.status == "failed" for view in views)

    async def _steer(self, view: RunView) -> None:
        run: RunHandle[Any] = self._rt.run(view.run)
        if view.paused is not None:
            await run.resume(who="ada")
        if view.run == RUN and self._plan.cancels and view.cancel_reason is None:
            await run.cancel("enough")
        if view.status == "failed" and self._plan.retries:
            HAPPENED.add("run-retried")
            await run.retry(who="ada")
        if any(step.startswith(("pay", "wire")) and step not in view.in_doubt for step in view.in_flight):
            await self._box.crash_and_reopen()  # they hang
            run = self._rt.run(view.run)
            await self._box.clock.settle()
        for step in (await run.status()).in_doubt:
            await _settle(run, step)

    async def _send(self) -> None:
        run: RunHandle[Any] = self._rt.run(RUN)
        for name in SIGNALS if self._plan.signals else ():
            with contextlib.suppress(RunClosedError):
                await run.signal("go", name, id=name)
        for number, (kind, n) in enumerate(EVENTS if self._plan.publishes else ()):
            await self._rt.publish(kind, {"n": n}, id=f"e{number}")

    async def _answer(self) -> None:
        """Answer what is open until nothing more is asked, but for what nobody is there to answer."""
        while open_ones := [one for one in await self._rt.questions() if one.text != "nobody?"]:
            for one in open_ones:
                run: RunHandle[Any] = self._rt.run(one.run)
                for number, who in enumerate(("ada", "ben")[: one.several]):
                    with contextlib.suppress(WrongAnswerError):  # who has answered already
                        match one.tool:
                            case "":
                                await run.answer(one.id, number + 1, who=who)
                            case "transfer":
                                changed = {"cents": 50, "to": "carol"} if who == "ada" else None
                                await self._approve(run, one.id, who, changed)
                            case _:
                                await run.reject(one.id, "too much", who=who)
            await self._box.clock.settle()

    async def _approve(self, run: RunHandle[Any], id: str, who: str, changed: dict[str, Any] | None) -> None:
        stands = next(one for one in await self._rt.questions() if one.id == id)
        if who not in stands.by:
            await run.approve(id, who=who, arguments=changed, digest="" if changed else stands.digest)


async def _settle(run: RunHandle[Any], step: str) -> None:
    """Say of a step in doubt what somebody would find out."""
    if step.startswith(("wire", "hotel")):
        HAPPENED.add("step-not-done")
        await run.settle_not_done(step)
    elif step.startswith("car"):
        await run.settle_failed(step, "the car is gone")
    else:
        await run.settle_done(step, "by hand" if "undo" not in step else None)
