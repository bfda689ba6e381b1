"""A full disk under the database, the artifacts and the logs: one line, and on it goes after."""

import subprocess
from contextlib import contextmanager

import pytest
from soak import n
from store.studies import SPACE, outcome, request, run
from workers.parts import installation, until
from workers.test_kills import BODY

from bitfront.artifacts import Artifacts, digest_of
from bitfront.client import Client
from bitfront.errors import StorageError
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Outcome, Stage, StudyState
from bitfront.workers.bench import Bench
from bitfront.workers.work import work


@contextmanager
def small_disk(folder, megabytes):
    folder.mkdir()
    options = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def filled(disk):
    """A file that leaves no space; removing it frees the disk."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(8 << 20))
    return filler


@pytest.mark.fault("F8", database="sqlite", transport="local")
def test_a_full_disk_is_one_line_and_the_study_goes_on_after(tmp_path):
    """F8: SQLite on a small file system."""
    with small_disk(tmp_path / "disk", 2) as disk:
        store = Store(f"sqlite:///{disk / 'bitfront.db'}")
        store.db.upgrade()
        study, _ = store.studies.create(request(n_trials=8), "anna")
        run(store, n=3)
        filler = filled(disk)
        with pytest.raises(StorageError, match="database or disk is full"):
            _create_many(store)
        filler.unlink()
        for other in store.studies.page("ben"):
            store.studies.cancel(other.id)
        run(store)
        assert store.studies.get(study.id).state is StudyState.COMPLETE
        with store.db.reading() as connection:
            assert connection.exec_driver_sql("pragma integrity_check").scalar() == "ok"
        store.db.pool.dispose()


def _create_many(store):
    for _ in range(1000):
        store.studies.create(request(n_trials=8), "ben")


def kept(disk):
    return [path.name for path in disk.rglob("*") if path.is_file()]


@pytest.mark.fault("F8", transport="local")
def test_artifacts_are_whole_or_not_there(store, tmp_path):
    """Three attempts of a task that stores one, then its study fails and can be resumed."""
    path = tmp_path / "bank"
    path.write_bytes(bytes(500_000))

    def prepared(bench, claim, lease):
        if claim.stage is not Stage.PREPARE:
            return outcome(store, claim)
        return Outcome({"bank/layer": bench.put(path)}, space=SPACE, queue="cpu")

    def work_all(bench):
        while claim := store.queue.claim("w", ["cpu"]):
            work(bench, claim, dict.fromkeys(Stage, prepared), lambda: False)

    with small_disk(tmp_path / "disk", 2) as disk:
        artifacts = Artifacts(str(disk / "artifacts"))
        bench = Bench(store, artifacts, Settings(home=tmp_path / "home"))
        study, _ = store.studies.create(request(n_trials=8), "anna")
        filler = filled(disk)
        with filler.open("rb+") as file:
            file.truncate(1_900_000)  # room for a part of it
        work_all(bench)
        failed = store.studies.get(study.id)
        assert failed.state is StudyState.FAIL
        assert "No space left on device" in failed.error
        assert "\n" not in failed.error
        assert kept(disk) == ["filler"]
        assert store.files.listed() == set()
        filler.unlink()
        store.studies.resume(study.id)
        work_all(bench)
        assert store.studies.get(study.id).state is StudyState.COMPLETE
        assert kept(disk) == [digest_of(path)]
        bench.close()


@pytest.mark.fault("F8", database="sqlite")
@pytest.mark.parametrize("transport", n(["local"], ["local", "celery"]))
def test_logs_that_cannot_be_written_stop_nothing(tmp_path, transport):
    with (
        small_disk(tmp_path / "disk", 1) as disk,
        installation(tmp_path, "sqlite", transport) as parts,
    ):
        log = parts.api.log = parts.worker.log = disk / "log"
        with parts.running(), Client(parts.url) as client:

            def searched():
                study = client.submit({**BODY, "n_trials": 6})
                until(lambda: parts.store.studies.get(study.id).state.is_final)
                assert parts.store.studies.get(study.id).state is StudyState.COMPLETE
                return study.id

            first = searched()
            until(lambda: first in log.read_text())
            filler = filled(disk)
            # Twice, for a little of what is written may find place in the last page.
            assert [searched(), searched()][1] not in log.read_text()
            filler.unlink()
            last = searched()
            until(lambda: last in log.read_text())
