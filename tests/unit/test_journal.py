"""Group commit, with a committer that commits when the test says so."""

import asyncio
import gc

import pytest

from perdure.store.batch import Batch, Bounds
from perdure.store.errors import LogClosedError, LogWriteError
from perdure.store.journal import Journal
from perdure.store.records import StreamId
from perdure.store.staging import Origin
from perdure.store.ticket import Ticket
from perdure.store.tips import Tip
from tests.support.logs import ADA, BOB, append, event, one, run, unit


class SlowCommitter:
    """Commits one batch at a time, each when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Semaphore(0)
        self.error: BaseException | None = None

    async def commit(self, batch: Batch) -> None:
        self.batches.append([row.position for row in batch.events])
        await self.gate.acquire()
        if self.error is not None:
            raise self.error


def journal_of(committer: SlowCommitter, *streams: StreamId, bounds: Bounds | None = None) -> Journal:
    journal = Journal(committer, Origin.empty("00" * 16), bounds=bounds)
    for stream in streams:
        journal.tips.adopt(stream, Tip())
    return journal


async def ticks(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_while_one_batch_commits_the_next_fills() -> None:
    async def scenario() -> list[list[int]]:
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        journal.append(one(ADA, 0))
        await ticks()
        for version in range(1, 4):
            journal.append(one(ADA, version))
            await ticks()
        committer.gate.release()
        committer.gate.release()
        await journal.flush()
        return committer.batches

    assert run(scenario) == [[1], [2, 3, 4]]


def test_the_next_commit_starts_before_the_waiters_of_the_last_are_told() -> None:
    async def scenario() -> list[int]:
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        started: list[int] = []
        journal.append(one(ADA, 0)).on_settled(lambda _: started.append(len(committer.batches)))
        await ticks()
        journal.append(one(ADA, 1))
        committer.gate.release()
        committer.gate.release()
        await journal.flush()
        return started

    assert run(scenario) == [2]


def test_a_commit_that_fails_fails_all_that_waits_and_all_that_comes() -> None:
    async def scenario() -> list[str]:
        committer = SlowCommitter()
        heard: list[str] = []
        journal = Journal(
            committer,
            Origin.empty("00" * 16),
            bounds=Bounds(batch_events=1),
            on_failure=lambda error: heard.append(f"runtime: {error.detail}"),
        )
        journal.tips.adopt(ADA, Tip())
        tickets = [journal.append(one(ADA, version)) for version in range(3)]
        for ticket in tickets:
            ticket.on_settled(lambda ticket: heard.append(f"waiter: {ticket.error is not None}"))
        committer.error = OSError("no such disk")
        committer.gate.release()
        for ticket in tickets:
            with pytest.raises(LogWriteError, match="no such disk"):
                await ticket
        with pytest.raises(LogWriteError, match="no such disk"):
            journal.append(one(ADA, 3))
        assert journal.barrier() is tickets[-1]
        with pytest.raises(LogWriteError):
            await journal.close()
        assert committer.batches == [[1]]
        return heard

    assert run(scenario) == ["runtime: a commit ended with OSError: no such disk"] + ["waiter: True"] * 3


def test_what_is_on_disk_is_told_even_when_the_log_fails_before_it_was() -> None:
    class FailingBeside(SlowCommitter):
        async def commit(self, batch: Batch) -> None:
            if self.batches:  # the second begins before those who wait for the first are told
                journals[0].fail(LogWriteError(detail="a checkpoint failed"))
            await super().commit(batch)

    async def scenario() -> tuple[Ticket, Ticket]:
        committer = FailingBeside()
        journal = journal_of(committer, ADA)
        journals.append(journal)
        first = journal.append(one(ADA, 0))
        await ticks()
        second = journal.append(one(ADA, 1))
        committer.gate.release()
        committer.gate.release()
        await asyncio.wait_for(first, 10)
        return first, second

    journals: list[Journal] = []
    first, second = run(scenario)

    assert first.is_durable
    assert second.error is not None


def test_a_log_that_fails_while_nobody_waits_is_known_to_whoever_asks() -> None:
    async def scenario() -> Ticket | None:
        journal = journal_of(SlowCommitter(), ADA)
        journal.fail(LogWriteError(detail="a checkpoint failed"))
        with pytest.raises(LogWriteError, match="a checkpoint failed"):
            await journal.flush()
        return journal.barrier()

    barrier = run(scenario)

    assert barrier is not None
    assert barrier.error is not None


def test_followers_of_a_log_that_fails_are_told() -> None:
    async def scenario() -> None:
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        follower = asyncio.ensure_future(journal.beyond(0))
        journal.append(one(ADA, 0))
        committer.error = LogWriteError(detail="full")
        committer.gate.release()
        with pytest.raises(LogWriteError, match="full"):
            await follower
        with pytest.raises(LogWriteError, match="full"):
            await journal.beyond(0)

    run(scenario)


def test_a_waiter_that_raises_costs_the_others_nothing() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        called: list[str] = []

        def fail(_: Ticket) -> None:
            raise ValueError("a bug")

        ticket = journal.append(one(ADA, 0))
        ticket.on_settled(fail)
        ticket.on_settled(lambda _: called.append("second"))
        committer.gate.release()
        await journal.flush()
        return reported, called

    assert run(scenario) == (["a bug"], ["second"])


def test_several_changes_of_one_stream_are_one_row_of_the_batch() -> None:
    async def scenario() -> list[int]:
        seen: list[Batch] = []

        class Committer:
            async def commit(self, batch: Batch) -> None:
                seen.append(batch)

        journal = Journal(Committer(), Origin.empty("00" * 16))
        journal.tips.adopt(ADA, Tip())
        journal.tips.adopt(BOB, Tip())
        for version in range(3):
            journal.append(one(ADA, version))
        journal.append(unit(append(BOB, 0, event())))
        await journal.flush()
        await journal.close()
        return [row.version for row in seen[0].moved.values()]

    assert run(scenario) == [3, 1]


def test_a_loop_that_ends_early_leaves_the_commit_in_doubt_and_no_noise() -> None:
    tickets: list[Ticket] = []

    async def scenario() -> None:
        journal = journal_of(SlowCommitter(), ADA)
        tickets.append(journal.append(one(ADA, 0)))
        await ticks()

    run(scenario)
    gc.collect()

    assert tickets[0].error is not None


def test_closing_refuses_at_once_and_waits_for_the_disk() -> None:
    async def scenario() -> list[list[int]]:
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        journal.append(one(ADA, 0))
        closing = asyncio.ensure_future(journal.close())
        await ticks()
        with pytest.raises(LogClosedError):
            journal.append(one(ADA, 1))
        assert not closing.done()
        committer.gate.release()
        committer.gate.release()
        await closing
        return committer.batches

    assert run(scenario) == [[1], [2]]


def test_an_abandoned_journal_tells_its_waiters_and_ignores_a_late_commit() -> None:
    async def scenario() -> tuple[bool, int]:
        committer = SlowCommitter()
        journal = journal_of(committer, ADA)
        ticket = journal.append(one(ADA, 0))
        await ticks()
        journal.abandon()
        committer.gate.release()
        await ticks()
        return ticket.is_durable, journal.durable_position

    assert run(scenario) == (False, 0)
