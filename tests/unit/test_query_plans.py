"""How SQLite goes about the statements: what is asked for often looks at what it is about, not at the whole log."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from perdure.store.pages import reading
from perdure.store.queries import queries
from perdure.store.records import Query, StreamId
from perdure.store.sqlite import SqliteEventLog


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "log.db"

    async def make() -> None:
        await (await SqliteEventLog.open(path)).close()

    asyncio.run(make())
    return path


def plan(log: Path, sql: str, parameters: object) -> list[str]:
    with closing(sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]  # type: ignore[arg-type] # of either kind


ALONG_AN_INDEX = {
    "last_head": ("log/heads",),
    "previous_digests": (1,),
    "evidence": (1, 10),
    "tips": ("[]",),
    "stream_ranges": ("[]",),
    "open_streams": ("", "run/", "run/~", 10, None),
    "due_streams": ("", "run/", "run/~", 10, None, 1),
    "next_wake": (1,),
    "blobs": ("[]",),
    "last_position": (),
    "streams": ("", "run/", "run/~", 10, False),
}
"""What opening, recovering and reading ask for, with parameters of their kind."""


@pytest.mark.parametrize("name", ALONG_AN_INDEX)
def test_a_statement_that_is_asked_for_often_scans_no_table(log: Path, name: str) -> None:
    steps = plan(log, queries()[name], ALONG_AN_INDEX[name])

    assert [step for step in steps if step.startswith(("SCAN events", "SCAN e ", "SCAN s ", "SCAN streams"))] == []


POSITIONS = "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
ONE_STREAM = "SEARCH e USING INDEX sqlite_autoindex_events_1 (stream=?)"


@pytest.mark.parametrize(
    ("query", "way"),
    [
        (Query(), "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            Query(types=("step-completed",), newest_first=True),
            "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
        (Query(correlation="r-1", tool="search"), "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (Query(stream=StreamId("run/r-1")), ONE_STREAM),
        (Query(stream=StreamId("run/r-1"), types=("step-completed",), newest_first=True), ONE_STREAM),
    ],
    ids=["all", "types", "correlation", "stream", "stream and types"],
)
def test_a_page_is_read_from_a_range_of_positions_or_one_stream_without_sorting(
    log: Path, query: Query, way: str
) -> None:
    page = reading(query, 100).send(None)

    steps = plan(log, page.sql, page.parameters)

    assert way in steps
    assert [step for step in steps if "TEMP B-TREE" in step] == []
