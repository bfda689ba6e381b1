"""Hours of devices: counted by owner, refused beforehand; what a study comes to without them."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from store.studies import outcome, request, run

from bitfront.errors import OverQuota
from bitfront.store.queue import Queue
from bitfront.store.quotas import Quota, keep_usage
from bitfront.store.records import Stage, StudyState
from bitfront.store.studies import FREE
from bitfront.store.tables import studies, tasks

HOUR = 3600.0


def use(store, study_id, hours):
    """As if the first task of a study had taken that much longer."""
    with store.db.writing() as connection:
        change = sa.update(tasks).where(tasks.c.study_id == study_id, tasks.c.number == 0)
        change = change.where(tasks.c.stage == Stage.PREPARE)
        connection.execute(change.values(seconds=tasks.c.seconds + hours * HOUR))


def test_seconds_are_counted_however_a_claim_ends(store):
    study, _ = store.studies.create(request(), "anna")
    counted = []
    for end in ("release", "fail", "finish"):
        claim = store.queue.claim("w", ["cpu"])
        time.sleep(0.2)
        if end == "release":
            store.queue.release(claim)
        elif end == "fail":
            store.queue.fail(claim, "it broke", final=False)
        else:
            store.queue.finish(claim, outcome(store, claim))
        counted.append(store.keys.device_seconds("anna"))
    assert counted[0] >= 0.2
    assert counted[1] >= counted[0] + 0.2
    assert counted[2] >= counted[1] + 0.2
    assert store.keys.device_seconds("bert") == 0
    run(store)
    used = store.keys.device_seconds("anna")
    store.studies.delete(study.id)
    assert store.keys.device_seconds("anna") == pytest.approx(used)


def test_a_lease_that_ended_counts_until_its_end(store):
    study, _ = store.studies.create(request(), "anna")
    Queue(store.db, lease_seconds=2.0).claim("dead", ["cpu"])
    end = time.monotonic() + 20
    while True:
        asked = time.monotonic()
        if (claim := store.queue.claim("w", ["cpu"])) is not None:
            break
        assert asked < end
        time.sleep(0.2)
    used = store.keys.device_seconds("anna")
    assert 2.0 - 5e-3 <= used <= 2.0 + time.monotonic() - asked + 5e-3
    time.sleep(0.2)
    store.queue.finish(claim, outcome(store, claim))
    assert store.keys.device_seconds("anna") >= 2.1
    assert study.owner == "anna"


def test_running_tasks_count_while_they_run(store):
    study, _ = store.studies.create(request(), "anna")
    claim = Queue(store.db, lease_seconds=2.0).claim("w", ["cpu"])
    time.sleep(0.3)
    assert store.keys.device_seconds("anna") >= 0.29
    time.sleep(2.0)  # its lease ends after two seconds
    assert store.keys.device_seconds("anna") == pytest.approx(2.0, abs=1e-3)
    assert claim.study_id == study.id


def test_without_hours_nothing_is_submitted_resumed_or_extended(store):
    quota = Quota(max_device_hours=200.0)
    first, _ = store.studies.create(request(), "anna", quota=quota)
    second, _ = store.studies.create(request(), "anna", quota=quota)
    run(store)
    store.studies.cancel(store.studies.create(request(), "anna", quota=quota)[0].id)
    cancelled = store.studies.page("anna", StudyState.CANCELLED)[0]
    use(store, first.id, 125.0)
    use(store, second.id, 80.0)
    said = r"anna has used 205 device hours of at most 200: ask for a key with more"
    for ask in (
        lambda: store.studies.create(request(), "anna", quota=quota),
        lambda: store.studies.resume(cancelled.id, "anna", quota),
        lambda: store.studies.extend(first.id, 99, owner="anna", quota=quota),
    ):
        with pytest.raises(OverQuota, match=said):
            ask()
    assert store.studies.get(first.id).study.n_trials != 99
    more = Quota(max_device_hours=300.0)
    assert store.studies.resume(cancelled.id, "anna", more).state is StudyState.WAITING
    store.studies.create(request(), "bert", quota=quota)


def test_a_running_study_stops_proposing_and_measures_what_it_has(store):
    quota = Quota(max_device_hours=100.0)
    whole, _ = store.studies.create(request(n_trials=16), "bert")
    study, _ = store.studies.create(request(n_trials=16), "anna", quota=quota)
    run(store, n=18)
    done = len(store.trials.of(study.id, finished=True))
    use(store, study.id, 100.0)
    run(store)
    stopped = store.studies.get(study.id)
    assert stopped.state is StudyState.PARTIAL
    assert stopped.error.startswith("anna has used 100 device hours of at most 100: ")
    assert len(store.trials.of(study.id, "calibration", finished=True)) >= done
    assert len(store.trials.of(study.id, "calibration")) < 16
    assert store.trials.front(study.id).trials
    with pytest.raises(OverQuota):
        store.studies.resume(study.id, "anna", quota)
    resumed = store.studies.resume(study.id, "anna", Quota(max_device_hours=200.0))
    assert (resumed.state, resumed.error) == (StudyState.RUNNING, None)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE

    def choices(study_id):
        trials = store.trials.of(study_id, "calibration")
        return [trial.allocation for trial in trials]

    assert choices(study.id) == choices(whole.id)


def test_a_study_that_has_measured_nothing_fails_and_can_be_resumed(store):
    quota = Quota(max_device_hours=100.0)
    study, _ = store.studies.create(request(), "anna", quota=quota)
    run(store, n=1)
    use(store, study.id, 150.0)
    assert run(store) == 0
    failed = store.studies.get(study.id)
    assert failed.state is StudyState.FAIL
    assert "has used 150 device hours of at most 100" in failed.error
    store.studies.resume(study.id, "anna", Quota(max_device_hours=900.0))
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE


def finished(store, owner="anna", quota=FREE):
    study, _ = store.studies.create(request(n_trials=8), owner, quota=quota)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    return study.id


def test_without_hours_no_checkpoint_is_written(store):
    study_id = finished(store, quota=Quota(max_device_hours=100.0))
    store.checkpoints.create(study_id, 1, "packed")
    use(store, study_id, 100.0)
    with pytest.raises(OverQuota, match="has used 100 device hours of at most 100"):
        store.checkpoints.create(study_id, 2, "packed")
    # One that is asked for already is no more work, until it failed.
    assert store.checkpoints.create(study_id, 1, "packed")[1] is False
    store.queue.fail(store.queue.claim("w", ["cpu"]), "disk full", final=True)
    with pytest.raises(OverQuota):
        store.checkpoints.create(study_id, 1, "packed")
    more = Quota(max_running=0, max_device_hours=200.0)
    assert store.checkpoints.create(study_id, 2, "packed", quota=more)[1]


def test_deleting_a_study_keeps_the_time_of_its_checkpoint_that_is_written(store):
    study_id = finished(store)
    store.checkpoints.create(study_id, 1, "packed")
    before = store.keys.device_seconds("anna")
    assert store.queue.claim("w", ["cpu"]).stage is Stage.MATERIALISE
    time.sleep(0.3)
    store.studies.delete(study_id)
    assert store.keys.device_seconds("anna") >= before + 0.29


def test_a_running_study_is_extended_within_the_quota_which_then_bounds_it(store):
    study, _ = store.studies.create(request(n_trials=8), "anna", quota=Quota(None, 100.0))
    run(store, n=6)
    use(store, study.id, 150.0)
    with pytest.raises(OverQuota, match="at most 100"):
        store.studies.extend(study.id, 9, owner="anna", quota=Quota(None, 100.0))
    assert store.studies.get(study.id).study.n_trials == 8
    store.studies.extend(study.id, 9, owner="anna", quota=Quota(None, 200.0))
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert len(store.trials.of(study.id, "calibration")) == 9


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_a_stopped_search_goes_on_after_it_was_cancelled_or_failed(store, how):
    quota = Quota(max_device_hours=100.0)
    study, _ = store.studies.create(request(n_trials=16), "anna", quota=quota)
    run(store, n=10)
    use(store, study.id, 100.0)
    while (claim := store.queue.claim("w", ["cpu"])).stage is not Stage.FINALISTS:
        store.queue.finish(claim, outcome(store, claim))
    assert store.studies.get(study.id).error is not None
    if how == "cancel":
        store.studies.cancel(study.id)
        store.queue.abandon(claim)
    else:
        store.queue.fail(claim, "it broke", final=True)
    assert store.studies.get(study.id).state.is_final
    store.studies.resume(study.id, "anna", Quota(max_device_hours=200.0))
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert len(store.trials.of(study.id, "calibration")) == 16


def test_the_first_two_deletions_of_an_owner_at_once(store):
    first, second = finished(store), finished(store)
    used = store.keys.device_seconds("anna")
    with ThreadPoolExecutor(1) as other:
        with store.db.writing() as connection:
            keep_usage(connection, first)
            connection.execute(sa.delete(studies).where(studies.c.id == first))
            deletion = other.submit(store.studies.delete, second)
            time.sleep(0.5)  # it waits for this transaction
        deletion.result(30)
    assert store.keys.device_seconds("anna") == pytest.approx(used)
