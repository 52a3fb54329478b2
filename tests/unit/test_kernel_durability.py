"""Durable before visible: nothing leaves the process before what it rests on is on the disk; a failure tells all."""

import asyncio
from typing import Any

import pytest

from perdure.actors.kernel.errors import ActorFailedError
from perdure.store.errors import LogWriteError
from tests.support.actors import (
    ADA,
    BOB,
    AccountBehavior,
    Bank,
    Break,
    Deposit,
    GetBalance,
    HeldStorage,
    InsufficientFunds,
    Notify,
    Withdraw,
    bank,
)
from tests.support.runs import play


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_reply_waits_for_the_disk() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage) as it:
            await it.balance(ADA)
            storage.hold()
            answer = it.ask(ADA, Deposit(1))
            await turns()
            assert not answer.is_settled
            storage.let_go()
            assert await answer == 1

    play(scenario)


def test_a_query_waits_for_what_it_shows_and_for_what_others_wrote_before() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage) as it:
            await it.balance(ADA)
            await it.balance(BOB)
            storage.hold()
            it.system.ref(ADA).tell(Deposit(1))
            shown, other = it.ask(ADA, GetBalance()), it.ask(BOB, GetBalance())
            await turns()
            assert not shown.is_settled
            assert not other.is_settled
            storage.let_go()
            assert (await shown, await other) == (1, 0)

    play(scenario)


def test_a_refusal_waits_for_what_it_rests_on() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage) as it:
            await it.ask(ADA, Deposit(5))
            storage.hold()
            it.system.ref(ADA).tell(Withdraw(5))
            refusal = it.ask(ADA, Withdraw(1))
            await turns()
            assert not refusal.is_settled
            storage.let_go()
            with pytest.raises(InsufficientFunds, match="there is 0"):
                await refusal

    play(scenario)


def test_an_effect_waits_for_the_disk() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage) as it:
            await it.balance(ADA)
            storage.hold()
            it.system.ref(ADA).tell(Notify("hello"))
            await turns()
            assert it.sent == []
            storage.let_go()
            await it.log.flush()
            assert it.sent == ["hello"]

    play(scenario)


def test_a_failed_append_tells_everybody_who_waits_and_all_who_come() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        it = Bank(storage)
        await it.balance(ADA)
        await it.balance(BOB)
        storage.hold()
        answers = [
            it.ask(ADA, Deposit(1)),
            it.ask(BOB, GetBalance()),
            it.ask(ADA, Withdraw(99)),
            it.ask(BOB, Notify("no")),
        ]
        await turns()
        storage.failures.append(OSError("the disk is gone"))
        storage.let_go()
        for answer in answers:
            with pytest.raises(LogWriteError, match="the disk is gone"):
                await answer
        for late in (it.ask(ADA, Deposit(1)), it.ask(BOB, Deposit(1))):
            with pytest.raises(LogWriteError):
                await late
        assert it.sent == []
        assert storage.events == []
        with pytest.raises(LogWriteError):
            await it.system.stop()
        with pytest.raises(LogWriteError):
            await it.log.close()

    play(scenario)


def test_a_bug_in_an_actor_is_told_to_its_asker_and_the_actor_comes_back_from_the_log() -> None:
    async def scenario() -> None:
        async with bank() as it:
            await it.ask(ADA, Deposit(7))
            broken, behind = it.ask(ADA, Break()), it.ask(ADA, GetBalance())
            with pytest.raises(ActorFailedError, match="LookupError: a bug in decide"):
                await broken
            await turns()
            assert not behind.is_settled  # it waits for the restart, which is not at once
            assert await it.ask(BOB, Deposit(1)) == 1
            await it.clock.advance(0.1)
            assert await behind == 7

    play(scenario)


def test_an_actor_that_fails_again_and_again_is_parked_with_the_reason() -> None:
    async def scenario() -> None:
        async with bank() as it:
            await it.ask(ADA, Deposit(7))
            for backoff in (0.1, 0.5, 2.0, 10.0):
                with pytest.raises(ActorFailedError):
                    await it.ask(ADA, Break())
                waits = it.ask(ADA, GetBalance())
                await it.clock.advance(backoff - 0.000001)
                assert not waits.is_settled
                await it.clock.advance(0.000001)
                assert await waits == 7
            with pytest.raises(ActorFailedError):
                await it.ask(ADA, Break())
            with pytest.raises(ActorFailedError, match="5 failures"):
                await it.ask(ADA, GetBalance())
            assert list(it.system.directory.parked()) == [ADA]
            assert await it.ask(BOB, Deposit(1)) == 1

    play(scenario)


def test_failures_far_apart_are_forgiven() -> None:
    async def scenario() -> None:
        async with bank() as it:
            for _ in range(10):
                with pytest.raises(ActorFailedError):
                    await it.ask(ADA, Break())
                await it.clock.advance(301)
                assert await it.balance(ADA) == 0

    play(scenario)


def test_a_bug_in_an_effect_is_the_failure_of_its_actor_alone() -> None:
    async def scenario() -> None:
        async with bank() as it:
            await it.ask(ADA, Notify("break"))
            await it.log.flush()
            waits = it.ask(ADA, GetBalance())
            await turns()
            assert not waits.is_settled
            await it.clock.advance(1)
            assert await waits == 0
            assert it.sent == ["break"]  # it is not performed again

    play(scenario)


def test_a_bug_in_evolve_blocks_a_stream_when_it_is_loaded() -> None:
    class Forgetful(AccountBehavior):
        def evolve(self, state: Any, event: Any) -> Any:
            if isinstance(event.amount, int) and event.amount == 13:
                raise LookupError("unlucky")
            return super().evolve(state, event)

    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage) as it:
            await it.ask(ADA, Deposit(13))
        async with bank(storage, behavior=Forgetful()) as it:
            with pytest.raises(ActorFailedError, match="unlucky"):
                await it.balance(ADA)
            with pytest.raises(ActorFailedError, match="unlucky"):
                await it.ask(BOB, Deposit(13))
            assert storage.ids.get(BOB) is None

    play(scenario)


def test_a_system_that_stops_makes_everything_durable_first() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        it = Bank(storage)
        await it.balance(ADA)
        storage.hold()
        answer = it.ask(ADA, Deposit(1))
        stopping = asyncio.ensure_future(it.system.stop())
        await turns()
        assert not stopping.done()
        storage.let_go()
        await stopping
        assert await answer == 1
        await it.log.close()

    play(scenario)
