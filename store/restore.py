"""Opening a log: where it stands, and whether its tail is what its digests say.

Everything before the last head is left to the audit, so opening costs the same however long the log is. The invariant:
a log that contradicts itself in its tail is not opened for writing.
"""

from pathlib import Path

from perdure.store.chain import Frontier, genesis
from perdure.store.connection import Connection
from perdure.store.errors import CorruptLogError, UsageError
from perdure.store.evidence import Checker, EvidenceRow
from perdure.store.heads import HEADS, parse_head
from perdure.store.loads import load_tips
from perdure.store.queries import queries
from perdure.store.staging import Origin
from perdure.store.tips import Tip

_PAGE = 5_000


async def restore(connection: Connection, path: Path) -> Origin:
    """Return where the log stands, after verifying the events since the last head and that head.

    Raises:
        CorruptLogError: the tail contradicts itself.
        sqlite3.Error: SQLite could not read it.
    """
    sql = queries()
    log_id = await _log_id(connection, path)
    [(position, at, streams)] = await connection.rows(sql["origin"])
    headed, frontier = await _last_head(connection, path)
    checker = Checker(log_id, position=max(headed - 1, 0), frontier=frontier)
    await _check_tail(connection, path, checker)
    if checker.position != position:
        raise CorruptLogError(path=str(path), position=checker.position, detail="events are missing")
    found, _ = await load_tips(connection, path, [(HEADS, "")])
    heads = found.get(HEADS) or Tip(digest=genesis(log_id, HEADS))
    return Origin(
        log_id=log_id, heads=heads, position=position, at=at, streams=streams, headed=headed, frontier=checker.frontier
    )


async def _log_id(connection: Connection, path: Path) -> str:
    rows = await connection.rows("SELECT value FROM meta WHERE key = 'log_id'")
    if not rows:
        raise CorruptLogError(path=str(path), position=None, detail="it has lost its identity")
    log_id: str = rows[0][0]
    return log_id


async def _last_head(connection: Connection, path: Path) -> tuple[int, Frontier]:
    rows = await connection.rows(queries()["last_head"], (HEADS,))
    if not rows:
        return 0, Frontier()
    position, data = rows[0]
    try:
        _, frontier = parse_head(data or "")
    except UsageError as error:
        raise CorruptLogError(path=str(path), position=position, detail=str(error)) from error
    return position, frontier


async def _check_tail(connection: Connection, path: Path, checker: Checker) -> None:
    sql = queries()
    for stream, version, last in await connection.rows(sql["previous_digests"], (checker.position + 1,)):
        checker.start(stream, version, bytes.fromhex(last))
    while rows := await connection.rows(sql["evidence"], (checker.position + 1, _PAGE)):
        for row in rows:
            for finding in checker.check(EvidenceRow(*row)):
                raise CorruptLogError(path=str(path), position=finding.position, detail=finding.detail)
