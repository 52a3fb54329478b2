"""Who owns a log: one process, whoever asks at the same time, however the last one died."""

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from perdure import StoreLockedError
from perdure.store.audit import verify
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId
from tests.faults.processes import application
from tests.faults.programs import make_runtime

RUNS = 1_000
RACERS = 5


@pytest.mark.faults
def test_beside_a_thousand_runs_a_second_owner_gets_the_pid_and_a_reader_gets_its_answers(tmp_path: Path) -> None:
    database, gate = tmp_path / "log.db", tmp_path / "gate"

    with application("work", database, gate, RUNS) as owner:
        assert owner.hear() == f"working {owner.pid}"
        with pytest.raises(StoreLockedError, match=f"process {owner.pid} ") as refused:
            asyncio.run(open_and_close(database))
        with LogReader.open(database) as reader:
            first = reader.last_position()
            running = reader.streams("run/", only_open=True, limit=2 * RUNS)
            history = reader.read(Query(stream=StreamId("run/busy-500")))
            while reader.last_position() < first + RUNS:  # the owner goes on
                pass
        gate.touch()
        assert owner.hear() == "done"
        assert owner.end() == 0

    assert refused.value.pid == owner.pid
    assert len(running) == RUNS
    assert history[0].type == "run-started"
    assert verify(database).findings == ()


@pytest.mark.faults
def test_of_processes_that_race_for_a_log_one_becomes_its_owner_and_the_others_are_told_who(tmp_path: Path) -> None:
    database = tmp_path / "log.db"

    with ExitStack() as stack:
        racers = [stack.enter_context(application("try", database)) for _ in range(RACERS)]
        assert [racer.hear() for racer in racers] == ["ready"] * RACERS
        for racer in racers:
            racer.tell("go")
        answers = {racer.pid: racer.hear() for racer in racers}
        winners = [pid for pid, answer in answers.items() if answer == f"owner {pid}"]
        for racer in racers:
            if racer.pid in winners:
                racer.tell("close")
            assert racer.end() == 0

    [winner] = winners
    others = {answer for pid, answer in answers.items() if pid != winner}
    assert others == {f"StoreLockedError {winner}"}


@pytest.mark.faults
def test_the_log_of_an_owner_that_was_killed_is_free_at_once_even_while_nobody_has_buried_it(tmp_path: Path) -> None:
    database, gate = tmp_path / "log.db", tmp_path / "gate"

    for _ in range(3):
        with application("work", database, gate, 5) as owner:
            assert owner.hear() == f"working {owner.pid}"
            owner.process.send_signal(signal.SIGKILL)
            # It is dead and still has its pid: the lock must not be thought held because of the pid in its file.
            os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
            asyncio.run(open_and_close(database))

    assert verify(database).findings == ()


@pytest.mark.faults
def test_a_second_runtime_in_the_same_process_is_refused_with_its_own_pid(tmp_path: Path) -> None:
    async def scenario() -> StoreLockedError:
        async with make_runtime(str(tmp_path / "log.db")):
            with pytest.raises(StoreLockedError) as refused:
                await make_runtime(str(tmp_path / "log.db")).__aenter__()
            return refused.value

    assert asyncio.run(scenario()).pid == os.getpid()


@pytest.mark.faults
def test_a_forked_child_can_use_neither_its_copy_nor_the_log_and_takes_nothing_from_its_parent(tmp_path: Path) -> None:
    database = tmp_path / "log.db"

    with application("fork", database) as parent, application("try", database) as third:
        assert parent.hear() == f"owner {parent.pid}"
        assert parent.hear() == "inherited UsageError None"
        assert parent.hear() == f"own StoreLockedError {parent.pid}"
        parent.tell("let the child end")
        assert parent.hear() == "parent after"
        assert third.hear() == "ready"
        third.tell("go")
        assert third.hear() == f"StoreLockedError {parent.pid}"
        parent.tell("close")
        assert parent.end() == 0
        assert third.end() == 0

    assert verify(database).findings == ()


async def open_and_close(database: Path) -> None:
    async with make_runtime(str(database)):
        pass
