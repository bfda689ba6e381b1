"""The Optuna mirror: what is in it, how little it keeps, and that its loss loses nothing."""

import logging
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna_dashboard._custom_plot_data import list_graph_object_ids
from servers import database
from store.finished import add_finished, end, prepared
from store.studies import SPACE, request, run

from bitfront.errors import InvalidArgument
from bitfront.mirror import Mirror
from bitfront.mirror.trials import front
from bitfront.plugins import Choice
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Outcome, Proposed, Stage
from bitfront.trial import Trial

SWEEP = (Choice("sweep"),)


@pytest.fixture
def url(store, tmp_path):
    """Where settings put the mirror: in SQLite beside the database, in a schema of PostgreSQL."""
    return Settings(home=tmp_path, database_url=store.url).optuna


@pytest.fixture
def mirror(store, url):
    mirror = Mirror(store, url, last=10)
    yield mirror
    mirror.close()


def in_mirror(mirror, study_id):
    return optuna.load_study(study_name=study_id, storage=mirror.storage)


@contextmanager
def closed_after(store):
    try:
        yield store
    finally:
        store.db.pool.dispose()


def numbers(mirror, study_id):
    return [t.user_attrs["trial"] for t in in_mirror(mirror, study_id).get_trials(deepcopy=False)]


def a_study(store, n=0):
    """A study of so many finished trials."""
    study_id = prepared(store, request(searches=SWEEP), SPACE)
    if n:
        add_finished(store, study_id, n)
    return study_id


def test_a_finished_study_is_mirrored_whole(store, mirror):
    study, _ = store.studies.create(request(n_trials=6, searches=SWEEP), "ann")
    run(store)
    study_id = study.id
    stored = store.trials.of(study_id, finished=True)
    assert mirror.update() == len(stored)
    copy = in_mirror(mirror, study_id)
    shown = {key: copy.user_attrs[key] for key in ("model", "budget", "state")}
    assert shown == {"model": "org/model", "budget": "4.5bpw", "state": "COMPLETE"}
    assert copy.metric_names == ["kl", "bytes"]
    trials = {trial.user_attrs["trial"]: trial for trial in copy.trials}
    assert len(trials) == len(copy.trials) == len(stored)
    for trial in stored:
        found = trials[trial.number]
        assert found.values == [trial.values["kl"], trial.values["bytes"]]
        assert found.user_attrs["allocation"] == trial.allocation.digest
        assert found.params == {
            "origin": trial.origin,
            "text": trial.text,
            "bits_per_weight": trial.values["bits_per_weight"],
        }
        assert found.duration.total_seconds() == pytest.approx(trial.values["seconds"], abs=1e-5)
    # The front, and the bits of its best point, are plots in the page.
    attributes = mirror.storage.get_study_system_attrs(
        mirror.storage.get_study_id_from_name(study_id)
    )
    assert set(list_graph_object_ids(attributes)) == {"front", "bit-map"}
    best = store.trials.front(study_id).best("kl", bits_per_weight=4.5)
    plot = "".join(value for key, value in attributes.items() if "bit-map" in key)
    assert f"trial {best.number}," in plot


def test_again_adds_nothing_and_later_trials_join(store, mirror, url):
    study_id = a_study(store, 7)
    assert mirror.update() == 7
    assert mirror.update() == 0
    mirror.close()
    again = Mirror(store, url, last=10)
    assert again.update() == 0
    add_finished(store, study_id, 2, "evaluation", "a search of ours")
    assert again.update() == 2
    assert numbers(again, study_id) == list(range(9))
    assert in_mirror(again, study_id).trials[-1].params["origin"] == "other"
    again.close()


def test_a_mirror_left_half_way_is_completed(store, mirror, url, monkeypatch):
    study_id = a_study(store, 9)
    copied = []
    add = optuna.Study.add_trial

    def die_at_the_fifth(study, trial):
        if len(copied) == 4:
            raise KeyboardInterrupt
        copied.append(add(study, trial))

    monkeypatch.setattr(optuna.Study, "add_trial", die_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        mirror.update()
    monkeypatch.undo()
    mirror.close()
    again = Mirror(store, url, last=10)
    assert again.update() == 5
    assert numbers(again, study_id) == list(range(9))
    again.close()


def test_the_cap_holds_and_keeps_the_front(store, mirror):
    study_id = a_study(store)
    most = 0
    for _ in range(5):
        add_finished(store, study_id, 8)
        mirror.update()
        most = max(most, len(numbers(mirror, study_id)))
    everything = store.finished.since(study_id)
    ends = {trial.number for trial in front(everything)}
    found = numbers(mirror, study_id)
    assert len(everything) == 40
    assert ends | set(range(30, 40)) <= set(found)
    assert found == sorted(set(found))
    assert most <= 20 + len(ends)
    assert {trial.user_attrs["trial"] for trial in in_mirror(mirror, study_id).best_trials} == ends


def test_of_a_long_study_only_what_is_kept_is_written(store, mirror):
    study_id = a_study(store, 1500)
    ends = {trial.number for trial in front(store.finished.since(study_id))}
    kept = ends | set(range(1490, 1500))
    assert mirror.update() == len(kept) < 60
    assert set(numbers(mirror, study_id)) == kept


def test_failed_trials_and_those_without_values_are_shown_as_failed(store, mirror):
    study, _ = store.studies.create(request(searches=SWEEP), "ann")
    store.queue.finish(store.queue.claim("w", ["cpu"]), Outcome(space=SPACE, queue="cpu"))
    claim = store.queue.claim("w", ["cpu"])
    assert claim.stage is Stage.ESTIMATE
    allocation = SPACE.decode(SPACE.uniform(0))
    proposed = (Proposed(Trial(0, allocation, "calibration", "uniform")),)
    store.queue.finish(claim, Outcome(proposed=proposed))
    store.queue.fail(store.queue.claim("w", ["cpu"]), "out of memory", final=True)
    assert mirror.update() == 1
    (trial,) = in_mirror(mirror, study.id).trials
    assert trial.state is optuna.trial.TrialState.FAIL
    assert trial.user_attrs["error"] == "out of memory"
    assert trial.params == {"origin": "uniform", "text": "calibration"}


def test_a_deleted_study_leaves_the_mirror(store, mirror):
    first, second = a_study(store, 1), a_study(store, 1)
    end(store, first)
    mirror.update()
    store.studies.delete(first)
    mirror.update()
    assert [s.study_name for s in mirror.storage.get_all_studies()] == [second]


def test_the_state_follows_without_a_trial(store, mirror):
    study_id = a_study(store)
    mirror.update()
    before = in_mirror(mirror, study_id).user_attrs["state"]
    end(store, study_id)
    mirror.update()
    assert (before, in_mirror(mirror, study_id).user_attrs["state"]) == ("RUNNING", "COMPLETE")


def test_rebuild_gives_the_same_and_leaves_other_studies_alone(store, mirror):
    study_id = a_study(store, 5)
    mirror.update()
    before = [(t.values, t.params, t.user_attrs) for t in in_mirror(mirror, study_id).trials]
    optuna.create_study(storage=mirror.storage, study_name="of someone else")
    assert mirror.rebuild() == len(before)
    after = [(t.values, t.params, t.user_attrs) for t in in_mirror(mirror, study_id).trials]
    assert after == before
    assert len(mirror.storage.get_all_studies()) == 2


OTHER = """
import sys
from bitfront.mirror import Mirror
from bitfront.store import Store
mirror = Mirror(Store(sys.argv[1]), sys.argv[2])
print(mirror.update(), flush=True)
try:
    mirror.rebuild()
except Exception as error:
    print(type(error).__name__, flush=True)
input()
print(mirror.update(), flush=True)
"""


def test_one_process_writes(store, mirror, url):
    study_id = a_study(store, 2)
    mirror.update()
    add_finished(store, study_id, 3)
    command = [sys.executable, "-c", OTHER, store.url, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert [other.stdout.readline().strip() for _ in range(2)] == ["0", "Conflict"]
        mirror.close()
        out, _ = other.communicate("\n", timeout=60)
    assert out.strip() == "3"
    assert mirror.update() == 0
    assert numbers(mirror, study_id) == list(range(5))


def test_settings_keep_the_tables_apart(store, mirror):
    a_study(store, 2)
    n_before = len(store.studies.page())
    mirror.update()
    store.db.check_schema()
    assert len(store.studies.page()) == n_before


def test_a_lost_file_is_made_anew(tmp_path):
    _, mirror = on_files(tmp_path)
    n = mirror.update()
    (tmp_path / "optuna.db").unlink()
    assert mirror.update() == n
    assert mirror.update() == 0
    mirror.close()


def test_a_broken_mirror_is_logged_and_disturbs_nobody(tmp_path, caplog):
    (tmp_path / "optuna.db").write_bytes(b"no database" * 1000)
    store, mirror = on_files(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert mirror.update() == 0
    assert "cannot be updated now" in caplog.text
    assert store.trials.of(store.studies.page()[0].id, finished=True)
    (tmp_path / "optuna.db").unlink()
    assert mirror.update() > 0
    mirror.close()


def test_closed_connections_are_opened_again(postgres_url, tmp_path):
    close_all = sa.text(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
    with database(postgres_url) as url, closed_after(Store(url)) as store:
        store.db.upgrade()
        study_id = a_study(store, 3)
        with closing(Mirror(store, Settings(home=tmp_path, database_url=url).optuna)) as mirror:
            assert mirror.update() == 3
            add_finished(store, study_id, 2)
            with store.db.writing() as connection:
                connection.execute(close_all)
            # The first one notices; on a slow machine a new connection may take another.
            assert sum(mirror.update() for _ in range(5)) == 2
            assert numbers(mirror, study_id) == list(range(5))


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "nothing"])
def test_other_databases_are_refused(store, url):
    with pytest.raises(InvalidArgument, match="give sqlite:///FILE"):
        Mirror(store, url)


def on_files(folder: Path):
    store = Store(f"sqlite:///{folder / 'bitfront.db'}")
    store.db.upgrade()
    a_study(store, 3)
    return store, Mirror(store, f"sqlite:///{folder / 'optuna.db'}")
