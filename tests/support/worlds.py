"""The world outside of random workflows: what it is asked to do takes time, and is remembered when a process dies.

The invariant: a job that is asked for again under its key is the same job, and ends when it would have ended.
"""

import asyncio
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from perdure import Done, NotDone, ToolContext, tool
from perdure.testing import TestClock

ATTEMPTS = 2
"""That are made of a compensation before a person is asked."""


class Job(msgspec.Struct, frozen=True):
    """What the world was asked to do."""

    key: str
    attempt: int
    began: int
    ends: int
    effect: str = ""
    """What is then true outside; empty for a question, or a refusal."""
    position: int = 0
    """Where the log stood when it began."""


class World:
    """What happened outside, by idempotency key and attempt."""

    def __init__(self) -> None:
        self.begin(TestClock())

    def begin(self, clock: TestClock, jobs: Iterable[Job] = (), position: Callable[[], int] = lambda: 0) -> None:
        """Go by *clock*, in a world in which *jobs* were begun; *position* says where the log stands."""
        self.clock = clock
        self._position = position
        self.jobs = {(job.key, job.attempt): job for job in jobs}
        self.calls: list[str] = []
        """The keys of the calls of this life."""

    @property
    def effects(self) -> list[tuple[int, str, str]]:
        """What is true outside, in the order in which it became so."""
        return sorted((job.began, job.key, job.effect) for job in self.jobs.values() if job.effect)

    async def work(self, key: str, attempt: int = 1, effect: str = "") -> None:
        """Do a job, or go on with it; return when it is done."""
        self.calls.append(key)
        now = self.clock.moment().now
        ends = now + _duration(f"{key} {attempt}")
        await self.until(self.jobs.setdefault((key, attempt), Job(key, attempt, now, ends, effect, self._position())))

    async def until(self, job: Job) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_at(job.ends, lambda: None if over.done() else over.set_result(None))
        try:
            await over
        finally:
            timer.cancel()


def _duration(of: str) -> int:
    """Up to 8 seconds, in microseconds, as good as random."""
    return 1 + int.from_bytes(blake2b(of.encode(), digest_size=8).digest()) % 8_000_000


world = World()


@tool(failure_threshold=100_000)
async def keep(context: ToolContext, number: int, what: str = "") -> int:
    await world.work(context.idempotency_key, effect=f"kept {what or number}")
    return number


@tool(effect="read", failure_threshold=100_000)
async def look(context: ToolContext, number: int) -> int:
    await world.work(context.idempotency_key)
    return number


@tool(failure_threshold=100_000)
async def broken(context: ToolContext, number: int) -> int:
    await world.work(context.idempotency_key, context.attempt)
    raise ValueError(f"broken {number}")


@tool(failure_threshold=100_000)
async def late(context: ToolContext, number: int) -> int:
    """Do it, and fail all the same, every other time."""
    await world.work(context.idempotency_key, context.attempt, effect=f"booked {number}")
    if number % 2:
        raise ValueError(f"late {number}")
    return number


@tool(failure_threshold=100_000)
async def flaky(context: ToolContext, number: int) -> int:
    is_good = context.attempt >= 3
    await world.work(context.idempotency_key, context.attempt, effect=f"kept {number}" if is_good else "")
    if not is_good:
        raise OSError("not yet")
    return number


@tool(failure_threshold=100_000)
async def hang(context: ToolContext, number: int) -> int:
    world.calls.append(context.idempotency_key)
    await asyncio.get_running_loop().create_future()
    return number


async def ask_bank(key: str) -> Done | NotDone:
    if (job := world.jobs.get((key, 1))) is None:
        return NotDone()
    await world.until(job)
    return Done(int(job.effect.removeprefix("paid ")))


@tool(effect="irreversible", reconcile=ask_bank, failure_threshold=100_000)
async def pay(context: ToolContext, number: int) -> int:
    assert (context.idempotency_key, 1) not in world.jobs, "paid twice"
    await world.work(context.idempotency_key, effect=f"paid {number}")
    return number


async def noted(key: str) -> str:
    await world.work(f"{key} noted", effect=f"noted {key}")
    return key


@tool(failure_threshold=100_000)
async def book(context: ToolContext, number: int) -> str:
    await world.work(context.idempotency_key, context.attempt, effect=f"booked {number}")
    return f"ref {number}"


@tool(failure_threshold=100_000)
async def unbook(context: ToolContext, number: int, how: str) -> None:
    is_good = context.attempt > {"flaky": 1, "stuck": ATTEMPTS}.get(how, 0)
    effect = f"unbooked {number}" if is_good else ""
    await world.work(context.idempotency_key, context.attempt, effect=effect)
    if not is_good:
        raise OSError("out of order")


@tool(failure_threshold=100_000)
async def unbook_ref(context: ToolContext, ref: str) -> None:
    await world.work(context.idempotency_key, context.attempt, effect=f"unbooked {ref.removeprefix('ref ')}")
