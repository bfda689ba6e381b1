"""Databases of earlier versions, kept by `tests/data/keep_databases.py`, go on with this one."""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from servers import database
from store.studies import request, run

import bitfront.store
from bitfront.errors import MismatchedArtifact
from bitfront.store import Store
from bitfront.store.records import StudyState
from bitfront.store.tables import metadata

KEPT = Path(__file__).parents[1] / "data" / "databases"
SCRIPTS = ScriptDirectory(str(Path(bitfront.store.__file__).parent / "migrations"))
REVISIONS = sorted(script.revision for script in SCRIPTS.walk_revisions())


def restored(url, path):
    """The database of a dump."""
    made = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with made.connect() as connection:
        connection.connection.driver_connection.execute(path.read_text())
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bitfront.db'}"
    else:
        with database(request.getfixturevalue("postgres_url")) as made:
            yield made


@pytest.fixture(params=REVISIONS)
def old(request, url, tmp_path):
    """A database as the version of a schema left it."""
    if url.startswith("sqlite"):
        shutil.copy(KEPT / f"{request.param}.db", tmp_path / "bitfront.db")
    else:
        restored(url, KEPT / f"{request.param}.sql")
    store = Store(url)
    yield store
    store.db.pool.dispose()


def values(store, study_id):
    return [(t.number, t.text, t.allocation, dict(t.values)) for t in store.trials.of(study_id)]


@pytest.mark.fault("F14")
def test_an_old_database_goes_on_where_it_was(old, tmp_path):
    old.db.upgrade()
    old.db.check_schema()
    half_done, done = old.studies.page("anna")
    assert (half_done.state, done.state) == (StudyState.RUNNING, StudyState.COMPLETE)
    run(old)
    for study, seed in ((done, 0), (half_done, 1)):
        assert old.studies.get(study.id).state is StudyState.COMPLETE
        fresh = Store(f"sqlite:///{tmp_path / f'fresh-{seed}.db'}")
        fresh.db.upgrade()
        same, _ = fresh.studies.create(request(n_trials=12, seed=seed), "anna")
        run(fresh)
        assert values(old, study.id) == values(fresh, same.id)
        fresh.db.pool.dispose()


def test_an_old_database_gets_the_tables_of_a_new_one(old):
    old.db.upgrade()
    with old.db.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.fault("F14")
def test_a_database_of_a_newer_version_is_left_alone(old):
    with old.db.writing() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = 'of tomorrow'")
    for refuse in (old.db.upgrade, old.db.check_schema):
        with pytest.raises(MismatchedArtifact, match="of tomorrow, which this version does not"):
            refuse()
    with old.db.reading() as connection:
        assert connection.exec_driver_sql("select count(*) from studies").scalar_one() == 2
