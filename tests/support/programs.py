"""Random workflows: a small language of everything that a workflow can do, its interpreter, and how to draw programs.

Not how they are run, crashed and compared (`lives.py`). The invariant: no two things of a program end at the same
instant, for each takes a time of its own; so what a program comes to does not hang on the order of tasks on a loop.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st

from perdure import CompensationFailedError, Context, Retry, Saga, StepFailedError, workflow
from tests.support.worlds import book, broken, flaky, hang, keep, late, look, noted, pay, unbook, unbook_ref

Program: TypeAlias = "tuple[Op, ...]"


class Op(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a workflow does."""

    kind: str
    seconds: int = 0
    name: str = ""
    parts: "tuple[tuple[Op, ...], ...]" = ()
    n: int = 0
    """Its number in the program; no other has it."""

    @property
    def span(self) -> timedelta:
        """Its seconds, and a fraction that is its own."""
        return timedelta(seconds=self.seconds, microseconds=micros(f"span {self.n}") // 10 + 1)


def micros(of: str, below: int = 1_000_000) -> int:
    """A number that is as good as random, always the same for the same text."""
    return int.from_bytes(blake2b(of.encode(), digest_size=8).digest()) % below


def numbered(program: Program) -> Program:
    """Return *program* with a number in each of its operations."""
    count = 0

    def number(part: Program) -> Program:
        nonlocal count
        found: list[Op] = []
        for op in part:
            count += 1
            n = count
            parts = tuple(number(inner) for inner in op.parts)
            found.append(msgspec.structs.replace(op, n=n, parts=parts))
        return tuple(found)

    return number(program)


def everything(program: Program) -> Iterable[Op]:
    """All operations of *program*, those within others too."""
    for op in program:
        yield op
        for part in op.parts:
            yield from everything(part)


def members(parts: Iterable[Program]) -> tuple[list[Op], list[Op]]:
    """The bookings of a saga with these parts, and the sagas within it; not what is done by runs of their own."""
    bookings: list[Op] = []
    sagas: list[Op] = []
    for op in (op for part in parts for op in part):
        if op.kind == "saga":
            sagas.append(op)
        elif op.kind == "book":
            bookings.append(op)
        elif op.kind not in {"child", "detach"}:
            inner = members(op.parts)
            bookings += inner[0]
            sagas += inner[1]
    return bookings, sagas


# The interpreter


@workflow
async def interpret(ctx: Context, program: Program) -> Any:
    """Do what *program* says; the last operation may be to go on as a new run."""
    if program and program[-1].kind == "continue":
        await perform(ctx, program[:-1])
        ctx.continue_as_new(program[-1].parts[0])
    return await perform(ctx, program)


async def perform(ctx: Context, program: Program, saga: Saga | None = None) -> list[Any]:
    """Do one thing after the other, and return what came of each."""
    found: list[Any] = []
    for op in program:
        if op.kind in SCOPES:
            found.append(await SCOPES[op.kind](ctx, op, saga))
        elif op.kind == "book" and saga is not None:
            found.append(await booked(ctx, op, saga))
        elif op.kind in WAITS:
            try:
                found.append(await WAITS[op.kind](ctx, op))
            finally:
                # Whoever woke it goes on at the same instant: a time of its own keeps them apart.
                await ctx.sleep(timedelta(microseconds=micros(f"after {op.n}") + 1))
        else:
            found.append(await LEAVES[op.kind](ctx, op))
    return found


async def _sleep(ctx: Context, op: Op) -> None:
    await ctx.sleep(op.span)


async def _flaky(ctx: Context, op: Op) -> int:
    retry = Retry(attempts=3, backoff=op.span, jitter=False)
    return await ctx.with_options(retry=retry).call(flaky, op.n)


async def _hang(ctx: Context, op: Op) -> int:
    return await ctx.with_options(timeout=op.seconds + 1).call(hang, op.n)


async def _draw(ctx: Context, op: Op) -> None:
    await ctx.call(keep, int(ctx.random() * 1_000_000), str(op.n))


async def _look_around(ctx: Context, op: Op) -> list[Any]:
    return [ctx.now().isoformat(), ctx.version(op.name or "change")]


LEAVES: dict[str, Callable[[Context, Op], Any]] = {
    "keep": lambda ctx, op: ctx.call(keep, op.n),
    "look": lambda ctx, op: ctx.call(look, op.n),
    "pay": lambda ctx, op: ctx.call(pay, op.n),
    "step": lambda ctx, op: ctx.step(noted, f"{ctx.run_id}:{op.n}"),
    "broken": lambda ctx, op: ctx.call(broken, op.n),
    "late": lambda ctx, op: ctx.call(late, op.n),
    "flaky": _flaky,
    "hang": _hang,
    "sleep": _sleep,
    "draw": _draw,
    "now": _look_around,
    "book": lambda ctx, op: ctx.call(keep, op.n),
    "continue": lambda ctx, op: ctx.call(keep, op.n),  # only the last operation of a run goes on as another
}


def _timeout(op: Op) -> timedelta | None:
    return op.span if op.seconds else None


async def _approve(ctx: Context, op: Op) -> list[Any]:
    approval = await ctx.approval(timeout=_timeout(op)).of(pay, op.n)
    return [approval.outcome, approval.by, await ctx.call_approved(approval) if approval.is_approved else None]


async def _listen(ctx: Context, op: Op) -> Any:
    event = await ctx.event("news", timeout=_timeout(op), reader=op.name)
    return event.data


async def _detach(ctx: Context, op: Op) -> str:
    return (await ctx.start(interpret, op.parts[0])).id


WAITS: dict[str, Callable[[Context, Op], Any]] = {
    "signal": lambda ctx, op: ctx.signal("go", of=str, timeout=_timeout(op)),
    "never": lambda ctx, op: ctx.signal("never", of=str, timeout=op.span),
    "ask": lambda ctx, op: ctx.ask(f"{op.n}?", of=int, timeout=_timeout(op)),
    "several": lambda ctx, op: ctx.ask(f"{op.n}?", of=int, timeout=_timeout(op), several=2),
    "approve": _approve,
    "publish": lambda ctx, op: ctx.publish("news", {"by": op.n}),
    "event": _listen,
    "detach": _detach,
    "child": lambda ctx, op: ctx.run(interpret, op.parts[0]),
}


async def booked(ctx: Context, op: Op, saga: Saga) -> Any:
    """Call what the saga can undo, in the way that the operation names."""
    retry = Retry(attempts=2, backoff=op.span, jitter=False)
    match op.name:
        case "ref":
            return await saga.undo_with(unbook_ref, retry=retry).call(book, op.n)
        case "unsure":
            return await saga.undo_with(unbook, op.n, "", retry=retry, unsure=True).call(late, op.n)
        case how:
            return await saga.undo_with(unbook, op.n, how, retry=retry).call(book, op.n)


async def _gather(ctx: Context, op: Op, saga: Saga | None) -> Any:
    return list(await ctx.gather(*(perform(ctx, part, saga) for part in op.parts)))


async def _map(ctx: Context, op: Op, saga: Saga | None) -> Any:
    return await ctx.map(partial(perform, ctx, saga=saga), list(op.parts), concurrency=op.seconds + 1)


async def _race(ctx: Context, op: Op, saga: Saga | None) -> Any:
    return list(await ctx.race(*(_late_start(ctx, op, number, saga) for number in range(len(op.parts)))))


async def _late_start(ctx: Context, op: Op, number: int, saga: Saga | None) -> Any:
    found = await perform(ctx, op.parts[number], saga)
    await ctx.sleep(timedelta(microseconds=micros(f"racer {op.n} {number}") + 1))
    return found


async def _limited(ctx: Context, op: Op, saga: Saga | None) -> Any:
    return await ctx.timeout(op.span, perform(ctx, op.parts[0], saga))


async def _careful(ctx: Context, op: Op, saga: Saga | None) -> Any:
    try:
        return await perform(ctx, op.parts[0], saga)
    finally:
        await perform(ctx, op.parts[1], saga)


async def _rescued(ctx: Context, op: Op, saga: Saga | None) -> Any:
    try:
        return await perform(ctx, op.parts[0], saga)
    except (StepFailedError, CompensationFailedError) as error:
        return [type(error).__name__, str(error)]


async def _saga(ctx: Context, op: Op, _: Saga | None) -> Any:
    async with ctx.saga() as saga:
        found = await perform(ctx, op.parts[0], saga)
        if op.name == "pivot":
            saga.pivot()
        found += await perform(ctx, op.parts[1], saga)
    return found


SCOPES: dict[str, Callable[[Context, Op, Saga | None], Any]] = {
    "gather": _gather,
    "map": _map,
    "race": _race,
    "limit": _limited,
    "careful": _careful,
    "rescued": _rescued,
    "saga": _saga,
}

# How to draw them

EXACT = ("keep", "look", "pay", "step", "broken", "late", "flaky", "sleep", "draw", "now", "book")
WAITING = ("signal", "never", "ask", "several", "approve", "publish", "event")
HARMLESS = ("keep", "look", "flaky", "sleep", "ask", "signal")
UNDONE = ("", "ref", "unsure", "flaky", "stuck")

_seconds = st.sampled_from([0, 1, 5, 30, 90])
_books = st.builds(Op, kind=st.just("book"), name=st.sampled_from(UNDONE))


def _leaves(kinds: Sequence[str]) -> st.SearchStrategy[Op]:
    return st.builds(Op, kind=st.sampled_from(kinds), seconds=_seconds)


def _scopes(inner: st.SearchStrategy[Program], cleanup: st.SearchStrategy[Program]) -> list[st.SearchStrategy[Op]]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    bookings = st.lists(_books, min_size=1, max_size=2).map(tuple)
    of_saga = st.builds(lambda first, then: (*first, *then), bookings, inner)
    return [
        st.builds(Op, kind=st.just("gather"), parts=several),
        st.builds(Op, kind=st.just("map"), seconds=st.integers(0, 1), parts=several),
        st.builds(Op, kind=st.just("race"), parts=several),
        st.builds(Op, kind=st.just("limit"), seconds=st.sampled_from([0, 5, 30, 300]), parts=st.tuples(inner)),
        st.builds(Op, kind=st.just("careful"), parts=st.tuples(inner, cleanup)),
        st.builds(Op, kind=st.just("rescued"), parts=st.tuples(inner)),
        st.builds(Op, kind=st.just("saga"), name=st.sampled_from(["", "", "pivot"]), parts=st.tuples(of_saga, inner)),
        st.builds(Op, kind=st.sampled_from(["child", "detach"]), parts=st.tuples(inner)),
    ]


def programs(kinds: Sequence[str] = EXACT + WAITING, *, depth: int = 3) -> st.SearchStrategy[Program]:
    """Programs of leaves of these *kinds*, within scopes of every kind that lie *depth* deep at most."""
    leaf = st.one_of(_leaves(kinds), _books)
    cleanup = st.lists(_leaves(HARMLESS), max_size=2).map(tuple)
    body = st.lists(leaf, min_size=1, max_size=3).map(tuple)
    for _ in range(depth):  # not st.recursive, which draws small things most of the time
        body = st.lists(st.one_of(leaf, *_scopes(body, cleanup)), min_size=1, max_size=3).map(tuple)
    last = st.builds(Op, kind=st.just("continue"), parts=st.tuples(body))
    either = st.one_of(body, body, body, body, st.builds(lambda first, end: (*first, end), body, last))
    return either.map(numbered)


__all__ = ["EXACT", "WAITING", "Op", "Program", "everything", "interpret", "members", "micros", "numbered", "programs"]
