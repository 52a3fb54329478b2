"""Programs that end without closing the log: by mistake, by an error, at once, with a thread that never returns.

They end by themselves, and nothing that was promised is lost: the run is found as it was and goes on to its end.
"""

import asyncio
from pathlib import Path

import pytest

from perdure.store.audit import verify
from perdure.store.reader import LogReader
from perdure.store.records import Query, StreamId
from tests.faults.processes import application
from tests.faults.programs import make_runtime

ENDS = {"run-completed", "run-failed", "run-cancelled", "run-blocked"}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("ending", "status", "result"),
    [
        ("forget_to_close", 0, ["first", "done", "beside"]),
        ("forget_to_close_and_raise", 1, ["first", "done", "beside"]),
        ("stop_the_loop", 1, ["first", "done", "beside"]),
        ("raise_inside", 1, ["first", "done", "beside"]),
        ("exit_inside", 7, ["first", "done", "beside"]),
        ("exit_at_once", 8, ["first", "done", "beside"]),
        ("forget_the_blocking_front", 0, ["first", "done", "beside"]),
        ("leave_a_thread_behind", 0, ["first", "done"]),
    ],
)
def test_a_program_that_ends_without_closing_ends_by_itself_and_its_run_goes_on_later(
    ending: str, status: int, result: list[str], tmp_path: Path
) -> None:
    database, gate = tmp_path / "log.db", tmp_path / "gate"

    with application(ending, database, gate) as program:
        assert program.hear() == "started open"
        assert program.end() == status

    assert verify(database).findings == ()
    assert ENDS.isdisjoint(types_of_the_run(database))
    gate.touch()
    assert asyncio.run(result_of_the_run(database)) == result
    assert types_of_the_run(database).count("step-completed") == len(result)


async def result_of_the_run(database: Path) -> object:
    async with make_runtime(str(database)) as runtime:
        return await runtime.run("open").result()


def types_of_the_run(database: Path) -> list[str]:
    with LogReader.open(database) as reader:
        return [event.type for event in reader.read(Query(stream=StreamId("run/open")))]
