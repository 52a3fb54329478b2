"""Whose file this is, and bringing it to the newest format.

The format is `PRAGMA user_version`, the owner `PRAGMA application_id`. The invariant: a file that is not ours, or that is
newer than this code, is left as it is, to the byte.
"""

from pathlib import Path
from typing import Final

from perdure.store.connection import Connection
from perdure.store.errors import NotALogError, SchemaTooNewError
from perdure.store.queries import queries, script

APPLICATION_ID: Final = 0x50657264
"""'Perd': `file agents.db` shows it."""
MIGRATIONS: Final = ("schema",)
"""The SQL files that lead from each format to the next, in order; append only."""
FORMAT: Final = len(MIGRATIONS)


def check_identity(path: Path, application_id: int, found: int, tables: int, *, may_be_new: bool) -> None:
    """Check what `queries()["identity"]` returned.

    Raises:
        NotALogError: the file belongs to something else.
        SchemaTooNewError: a newer version of Perdure wrote it.
    """
    if may_be_new and tables == 0 and application_id == 0:
        return
    if application_id != APPLICATION_ID:
        raise NotALogError(path=str(path), detail="it is an SQLite database of another application")
    if found > FORMAT:
        raise SchemaTooNewError(path=str(path), found=found, supported=FORMAT)


async def migrate(connection: Connection, path: Path) -> None:
    """Bring the file to the newest format, each step in one transaction; a new file is made.

    Raises:
        NotALogError: the file belongs to something else; nothing was changed.
        SchemaTooNewError: a newer version of Perdure wrote it; nothing was changed.
        sqlite3.Error: SQLite refused; the step was rolled back.
    """
    [(application_id, found, tables)] = await connection.rows(queries()["identity"])
    check_identity(path, application_id, found, tables, may_be_new=True)
    for number, name in enumerate(MIGRATIONS[found:], start=found + 1):
        step = f"{script(name)}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};"
        try:
            await connection.script(f"BEGIN IMMEDIATE;\n{step}\nCOMMIT;")
        except BaseException:
            await connection.roll_back()
            raise
