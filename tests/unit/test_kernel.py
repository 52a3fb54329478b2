"""Actors: messages in and answers out, one activation a stream, units over several actors, an orderly end."""

import asyncio
import threading
from typing import Any

import pytest

from perdure.actors.kernel.answer import Answer
from perdure.actors.kernel.errors import ActorStoppedError, AskTimeoutError, MailboxFullError
from perdure.actors.kernel.shell import Shell
from perdure.store.errors import UnknownTagError, UsageError
from perdure.store.memory import MemoryStorage
from perdure.store.records import Append, NewEvent, StreamId, Unit
from tests.support.actors import (
    ADA,
    BOB,
    EVE,
    Bank,
    Deposit,
    GetBalance,
    HeldStorage,
    InsufficientFunds,
    Notify,
    Withdraw,
    bank,
)
from tests.support.runs import play


def stored(storage: MemoryStorage) -> list[tuple[str, str]]:
    return [(str(storage.names[row.stream]), row.type) for row in storage.events if row.type != "head-recorded"]


def test_a_command_is_answered_with_the_reply_of_its_decision() -> None:
    async def scenario() -> None:
        async with bank() as it:
            assert await it.ask(ADA, Deposit(5)) == 5
            assert await it.ask(ADA, Withdraw(2)) == 3
            assert await it.balance(ADA) == 3

    play(scenario)


def test_a_refused_command_writes_nothing() -> None:
    async def scenario() -> None:
        async with bank() as it:
            with pytest.raises(InsufficientFunds, match="asked for 1, there is 0") as caught:
                await it.ask(ADA, Withdraw(1))
            assert (caught.value.asked, caught.value.balance) == (1, 0)
            assert stored(it.storage) == []

    play(scenario)


def test_messages_of_one_sender_are_handled_in_their_order() -> None:
    async def scenario() -> None:
        async with bank() as it:
            ref = it.system.ref(ADA)
            for number in range(1000):
                ref.tell(Deposit(number))
            assert await it.balance(ADA) == sum(range(1000))
            assert [row.data for row in it.storage.events[:3]] == [b'{"amount":0}', b'{"amount":1}', b'{"amount":2}']

    play(scenario)


def test_asking_and_telling_work_from_other_threads() -> None:
    async def scenario() -> None:
        async with bank() as it:
            ref = it.system.ref(ADA)

            def work() -> list[int]:
                ref.tell(Deposit(1))
                return [ref.ask(Deposit(1)).get(timeout=30) for _ in range(20)]

            found = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(8)))
            assert await it.balance(ADA) == 8 * 21
            assert len({number for one in found for number in one}) == 160  # no two saw the same balance

    play(scenario)


def test_waiting_with_get_on_the_loops_thread_is_refused() -> None:
    async def scenario() -> None:
        async with bank() as it:
            answer = it.ask(ADA, Deposit(1))
            with pytest.raises(UsageError, match="await"):
                answer.get(timeout=1)
            assert await answer == 1
            assert answer.get() == 1  # it is there

    play(scenario)


def test_a_wait_from_a_thread_ends_with_its_time() -> None:
    with pytest.raises(AskTimeoutError):
        Answer[int]().get(timeout=0)


def test_an_answer_is_settled_once_and_tells_everybody() -> None:
    async def scenario() -> None:
        answer: Answer[int] = Answer()
        told: list[str] = []
        answer.on_settled(lambda: told.append("first"))
        waits = [asyncio.ensure_future(take(answer)) for _ in range(3)]
        in_thread = asyncio.to_thread(answer.get, timeout=30)
        asyncio.get_running_loop().call_soon(answer.set, 5)
        assert await asyncio.gather(*waits, in_thread) == [5, 5, 5, 5]
        answer.on_settled(lambda: told.append("late"))
        assert told == ["first", "late"]
        with pytest.raises(UsageError, match="settled already"):
            answer.set(6)

    play(scenario)


async def take(answer: Answer[int]) -> int:
    return await answer


@pytest.mark.parametrize("is_loaded", [False, True], ids=["while it is loaded", "when it is there"])
def test_a_mailbox_has_a_bound_and_who_comes_too_many_is_told(is_loaded: bool) -> None:
    async def scenario() -> None:
        async with bank(mailbox_bound=10) as it:
            if is_loaded:
                await it.balance(ADA)
            answers = [it.ask(ADA, Deposit(1)) for _ in range(200)]
            results = await asyncio.gather(*map(outcome, answers))
            refused = [r for r in results if isinstance(r, MailboxFullError)]
            handled = [r for r in results if isinstance(r, int)]
            assert len(refused) + len(handled) == 200
            assert refused
            assert await it.balance(ADA) == len(handled)

    play(scenario)


async def outcome(answer: Answer[Any]) -> Any:
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return error


def test_a_stream_is_activated_once_however_many_ask_at_once() -> None:
    loads: list[list[StreamId]] = []

    async def scenario() -> None:
        storage = MemoryStorage()
        async with bank(storage) as it:
            await it.ask(ADA, Deposit(1))
        async with bank(storage) as it:
            original = it.log.load

            async def counted(streams: Any) -> Any:
                loads.append([stream for stream, _ in streams])
                return await original(streams)

            it.log.load = counted  # type: ignore[method-assign] # to count
            await asyncio.gather(*(outcome(it.ask(stream, Deposit(1))) for stream in (ADA, BOB) * 50))
            assert (await it.balance(ADA), await it.balance(BOB)) == (51, 50)

    play(scenario)

    assert [set(load) for load in loads] == [{ADA, BOB}]


def test_two_activations_that_race_end_in_one_actor() -> None:
    async def scenario() -> None:
        storage = MemoryStorage()
        async with bank(storage) as it:
            await it.ask(ADA, Deposit(1))
        async with bank(storage) as it:
            asked = it.ask(ADA, Deposit(1))
            [loaded] = await it.log.load([(ADA, "")])
            adopted = it.system.directory.adopt(loaded, {})
            it.system.transact(((adopted, Deposit(10)),))
            await asked
            assert it.system.directory.active(ADA) is adopted
            assert await it.balance(ADA) == 12

    play(scenario)


def test_an_unknown_kind_is_refused_and_says_which_there_are() -> None:
    async def scenario() -> None:
        async with bank() as it:
            with pytest.raises(UsageError, match="'nobody'; there are account"):
                await it.ask(StreamId("nobody/x"), Deposit(1))

    play(scenario)


def test_an_unknown_tag_blocks_its_stream_and_no_other() -> None:
    async def scenario() -> None:
        async with bank() as it:
            await it.log.load([(EVE, "")])
            await it.log.append(Unit((Append(EVE, 0, (NewEvent("from-the-future", 1, b"{}"),)),), 1))
            it.log.forget([EVE])
            with pytest.raises(UnknownTagError, match="from-the-future"):
                await it.ask(EVE, Deposit(1))
            assert await it.ask(ADA, Deposit(1)) == 1

    play(scenario)


def test_a_transaction_over_several_actors_is_one_unit() -> None:
    async def scenario() -> None:
        async with bank() as it:
            ada, bob = await it.system.directory.activate(ADA), await it.system.directory.activate(BOB)
            await it.ask(ADA, Deposit(10))
            done = it.system.transact(((ada, Withdraw(4)), (bob, Deposit(4))), correlation="transfer")
            assert done.replies == [6, 4]
            assert done.ticket is not None
            await done.ticket
            assert [row.correlation for row in it.storage.events] == [None, "transfer", "transfer"]

    play(scenario)


def test_a_transaction_that_one_actor_refuses_changes_none() -> None:
    async def scenario() -> None:
        async with bank() as it:
            ada, bob = await it.system.directory.activate(ADA), await it.system.directory.activate(BOB)
            with pytest.raises(InsufficientFunds):
                it.system.transact(((bob, Deposit(4)), (bob_effect(it), Notify("never")), (ada, Withdraw(4))))
            assert (ada.state.balance, bob.state.balance, it.sent) == (0, 0, [])
            assert await it.balance(BOB) == 0
            assert stored(it.storage) == []

    play(scenario)


def bob_effect(it: Bank) -> Any:
    shell = it.system.directory.active(BOB)
    assert isinstance(shell, Shell)
    return shell


def test_an_idle_actor_leaves_memory_and_comes_back_with_its_state() -> None:
    async def scenario() -> None:
        async with bank(idle_seconds=60) as it:
            await it.ask(ADA, Deposit(5))
            await it.clock.advance(59)
            assert len(it.system.directory) == 1
            await it.clock.advance(60)
            assert len(it.system.directory) == 0
            assert await it.balance(ADA) == 5

    play(scenario)


def test_an_actor_whose_events_are_not_durable_stays() -> None:
    async def scenario() -> None:
        storage = HeldStorage()
        async with bank(storage, idle_seconds=60) as it:
            await it.balance(ADA)
            storage.hold()
            answer = it.ask(ADA, Deposit(5))
            await it.clock.advance(600)
            assert len(it.system.directory) == 1
            storage.let_go()
            assert await answer == 5
            await it.clock.advance(600)
            assert len(it.system.directory) == 0

    play(scenario)


def test_an_actor_that_somebody_works_for_stays() -> None:
    async def scenario() -> None:
        async with bank(idle_seconds=60) as it:
            shell = await it.system.directory.activate(ADA)
            shell.pins += 1
            await it.clock.advance(600)
            assert it.system.directory.active(ADA) is shell
            shell.pins -= 1
            await it.clock.advance(600)
            assert it.system.directory.active(ADA) is None

    play(scenario)


def test_a_snapshot_is_as_good_as_the_events_before_it() -> None:
    async def scenario() -> None:
        storage = MemoryStorage()
        async with bank(storage) as it:
            for _ in range(1000):
                it.system.ref(ADA).tell(Deposit(1))
            await it.balance(ADA)
        [snapshot] = storage.snapshots.values()
        assert snapshot.version >= 200
        async with bank(storage) as it:
            assert await it.ask(ADA, Deposit(1)) == 1001

    play(scenario)


def test_every_asker_is_answered_when_the_system_stops() -> None:
    async def scenario() -> None:
        it = Bank(HeldStorage())
        await it.balance(ADA)
        handled = [it.ask(ADA, Deposit(1)) for _ in range(300)]
        loading = [it.ask(BOB, Deposit(1)) for _ in range(3)]
        await it.system.stop()
        late = [it.ask(ADA, Deposit(1)), it.ask(EVE, Deposit(1))]
        assert await asyncio.gather(*map(outcome, handled)) == list(range(1, 301))
        for answer in loading:
            assert isinstance(await outcome(answer), (int, ActorStoppedError))
        for answer in late:
            assert isinstance(await outcome(answer), ActorStoppedError)
        await it.log.close()

    play(scenario)


def test_an_asker_in_another_thread_is_answered_also_when_the_loop_is_gone() -> None:
    async def scenario() -> Any:
        async with bank() as it:
            await it.balance(ADA)
            return it.system.ref(ADA)

    ref = play(scenario)
    found: list[BaseException | None] = []

    def ask() -> None:
        try:
            ref.ask(GetBalance()).get(timeout=30)
        except ActorStoppedError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert len(found) == 1
