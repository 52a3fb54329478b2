"""A saga of six steps against a world that remembers: what the tests of sagas share."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec

from perdure import Context, Recorded, RunHandle, RunView, Settings, ToolContext, tool, workflow
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, disk_until

STEPS = 6
ATTEMPTS = 5
"""That are made of a compensation before a person is asked."""

Verdict: TypeAlias = Literal["done", "not done", "failed"]


class Plan(msgspec.Struct, frozen=True):
    """What the saga meets on its way."""

    failing: int = 0
    """The step that fails; 0: none does."""
    stubborn: tuple[int, ...] = ()
    """The steps whose compensation fails until a person has had it tried again."""
    pivot: int = 0
    """The step before which the saga passes its pivot."""
    sleep: int = 0
    """The step before which it sleeps so long that it leaves memory."""
    unsure: bool = False


class World:
    """What happened outside, by idempotency key, in order; the same key again changes nothing."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.calls: list[str] = []

    def happen(self, key: str, what: str) -> str:
        self.facts.setdefault(key, what)
        return self.facts[key]

    def standing(self) -> list[str]:
        """What was booked and not undone."""
        undone = {what.partition(" ")[2] for what in self.facts.values() if what.startswith("unbooked")}
        return [w for w in self.facts.values() if w.startswith("booked") and w.partition(" ")[2] not in undone]


world = World()


def begin_anew() -> None:
    """Forget what happened: in another world nothing did."""
    world.facts.clear()
    world.calls.clear()


@tool(failure_threshold=100_000)
async def book(context: ToolContext, number: int, plan: Plan) -> str:
    world.calls.append(context.idempotency_key)
    if number == plan.failing and (not plan.pivot or context.attempt == 1):
        raise ValueError(f"no place left for {number}")
    return world.happen(context.idempotency_key, f"booked {number}")


@tool(failure_threshold=100_000)
async def unbook(context: ToolContext, number: int, plan: Plan) -> None:
    world.calls.append(context.idempotency_key)
    if number in plan.stubborn and context.attempt <= ATTEMPTS:
        raise OSError("out of order")
    world.happen(context.idempotency_key, f"unbooked {number}")


@workflow
async def journey(ctx: Context, plan: Plan) -> str:
    async with ctx.saga() as saga:
        for number in range(1, STEPS + 1):
            if number == plan.pivot:
                saga.pivot()
            if number == plan.sleep:
                await ctx.sleep(500)
            undo = saga.undo_with(unbook, number, plan, unsure=plan.unsure)
            await undo.call(book, number, plan)
    return "booked"


async def attend(box: Box, verdict: Verdict = "done") -> tuple[RunView, list[Recorded]]:
    """See the run through: let time pass, and say of each step that needs a person what became of it."""
    run: RunHandle[Any] = box.runtime.run("r")
    for _ in range(20):
        await box.clock.advance(3600)
        view = await run.status()
        assert view.status != "blocked", view.error
        if view.is_closed:
            return view, await run.history()
        for step in view.in_doubt:
            if verdict == "done":
                await run.settle_done(step, "by hand")
            elif verdict == "failed":
                await run.settle_failed(step, "it cannot be")
            else:
                await run.settle_not_done(step)
    raise AssertionError(await run.status())


def begun(history: list[Recorded], position: int) -> tuple[set[str], set[str]]:
    """The keys of the steps that may just have happened at a place of the history, and of those that had completed."""
    facts = [(e.position, e.type, json.loads(e.data or "{}").get("step")) for e in history]
    started = {step for at, type_, step in facts if type_ == "step-started" and at <= position}
    completed = {step for at, type_, step in facts if type_ == "step-completed" and at <= position}
    follows = {step: type_ for at, type_, step in reversed(facts) if at > position}
    return {step for step in started - completed if follows.get(step) == "step-completed"}, completed


def crashes(
    disk: MemoryDisk, history: list[Recorded], whole: dict[str, str], settings: Settings
) -> Iterator[tuple[int, set[str], Box]]:
    """Every event of *history* as the last one on the disk; of what was in flight, both worlds: it happened or not.

    *whole* is what happened without a crash. Gives the place, the steps that had completed, and the box to go on in.
    """
    for event in history[:-1]:
        flying, completed = begun(history, event.position)
        in_flight = {f"r:{step}" for step in flying} & whole.keys()
        for has_happened in (False, True) if in_flight else (False,):
            begin_anew()
            known = {f"r:{step}" for step in completed} | (in_flight if has_happened else set[str]())
            world.facts.update({key: what for key, what in whole.items() if key in known})
            clock = TestClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.at))
            box = Box(disk_until(disk, event.position), clock, workflows=[journey], settings=settings)
            yield event.position, completed, box
