"""Whose file this is, and bringing it to the newest format.

The format is `PRAGMA user_version`, the owner `PRAGMA application_id`. The invariant: a file that is not ours, or newer
than this code, is left as it is, to the byte.
"""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perdure.store.errors import NotALogError, SchemaTooNewError
from perdure.store.queries import queries, script

if TYPE_CHECKING:
    from perdure.store.connection import Connection  # who only reads needs no loop

APPLICATION_ID: Final = 0x50657264
"""'Perd': `file agents.db` shows it."""
MIGRATIONS: Final = ("schema",)
"""The SQL files that lead from each format to the next, in order; append only."""
FORMAT: Final = len(MIGRATIONS)
_VIEW: Final = re.compile(r"^CREATE VIEW (\w+)", re.MULTILINE)


def check_identity(path: Path, application_id: int, found: int, tables: int, *, may_be_new: bool) -> None:
    """Check what `queries()["identity"]` returned.

    Raises:
        NotALogError: the file belongs to something else.
        SchemaTooNewError: a newer version of Perdure wrote it.
    """
    if tables == 0 and application_id == 0:
        if may_be_new:
            return
        raise NotALogError(path=str(path), detail="it is empty; the runtime that makes it has not come that far")
    if application_id != APPLICATION_ID:
        raise NotALogError(path=str(path), detail="it is an SQLite database of another application")
    if found > FORMAT:
        raise SchemaTooNewError(path=str(path), found=found, supported=FORMAT)


async def migrate(connection: "Connection", path: Path) -> None:
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


async def install_views(connection: "Connection", sql: str) -> None:
    """Make the views of *sql* a part of the file, in place of an older edition; one read when nothing has changed.

    *sql* holds `CREATE VIEW` statements. Views are derived: they are not evidence, and `verify` looks past them.

    Raises:
        sqlite3.Error: SQLite refused; nothing was changed.
    """
    edition = hashlib.sha256(sql.encode()).hexdigest()
    rows = await connection.rows("SELECT value FROM meta WHERE key = 'views'")
    if rows and rows[0][0] == edition:
        return
    drops = "".join(f"DROP VIEW IF EXISTS {name};\n" for name in _VIEW.findall(sql))
    noted = f"INSERT OR REPLACE INTO meta VALUES ('views', '{edition}');"  # noqa: S608 - a digest, in hex
    try:
        await connection.script(f"BEGIN IMMEDIATE;\n{drops}{sql}\n{noted}\nCOMMIT;")
    except BaseException:
        await connection.roll_back()
        raise
