"""The schema of the database: brought up to date, or refused.

Loaded only by who asks for it: workers and pages rely on who started them.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from bitfront.errors import MismatchedArtifact

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Bring the schema up to this version, in the transaction of the connection.

    Raises:
        MismatchedArtifact: a newer version made the database.
    """
    _refuse_newer(connection)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Refuse a database of another version.

    Raises:
        MismatchedArtifact: not upgraded yet, or made by a newer version.
    """
    _refuse_newer(connection)
    found = MigrationContext.configure(connection).get_current_revision()
    if found != _scripts().get_current_head():
        raise MismatchedArtifact(
            f"The database has schema {found or 'none'}: start `bitfront serve` or run "
            "`bitfront upgrade` to bring it up to date."
        )


def _refuse_newer(connection: Connection) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise MismatchedArtifact(
            f"The database has schema {found}, which this version does not know: "
            "use the bitfront that made it, or a newer one."
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_MIGRATIONS))
