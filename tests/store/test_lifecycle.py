"""A study's life in the database, on SQLite and on PostgreSQL."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store.studies import outcome, request, run

from bitfront.errors import Conflict, InvalidArgument, LostLease, NotFound
from bitfront.store import Store
from bitfront.store.queue import Queue
from bitfront.store.quotas import Quota
from bitfront.store.records import Outcome, Proposed, Settled, Stage, StudyState, TaskState
from bitfront.trial import Trial, TrialState


def rows(store, study_id):
    return [
        (t.number, t.text, t.origin, t.state, t.allocation, dict(t.values))
        for t in store.trials.of(study_id)
    ]


def test_a_study_runs_from_its_request_to_its_front(store):
    study, is_new = store.studies.create(request(n_trials=12), "anna")
    assert is_new
    assert study.state is StudyState.WAITING
    run(store)
    study = store.studies.get(study.id)
    assert study.state is StudyState.COMPLETE
    trials = store.trials.of(study.id)
    assert [t.number for t in trials] == list(range(len(trials)))
    assert all(t.state is TrialState.COMPLETE for t in trials)
    calibration = [t for t in trials if t.text == "calibration"]
    assert len(calibration) == 12
    assert [t.origin for t in calibration[:3]] == ["uniform"] * 3
    assert store.trials.front(study.id).trials
    kinds = [event.kind for event in store.activity.events(study.id)]
    assert kinds.count("trial") == len(trials)
    assert kinds[-1] == "state"


@pytest.mark.parametrize("n_parallel", [1, 4])
def test_any_number_of_workers_gives_the_same_trials(store, n_parallel):
    alone, _ = store.studies.create(request(n_trials=40, n_parallel=n_parallel), "anna")
    run(store)
    together, _ = store.studies.create(request(n_trials=40, n_parallel=n_parallel), "anna")

    def work(name):
        while not store.studies.get(together.id).state.is_final:
            if not run(store, name, 1):
                time.sleep(0.005)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert rows(store, together.id) == rows(store, alone.id)


def test_a_proposal_waits_for_all_but_the_last_few(store):
    store.studies.create(request(n_trials=40, n_parallel=3), "anna")
    run(store, n=2 + 3)  # prepare, estimate, baselines
    held = []
    while (claim := store.queue.claim("w", ["cpu"])) is not None:
        if claim.stage is Stage.PROPOSE:
            store.queue.finish(claim, outcome(store, claim))
        else:
            held.append(claim)
    assert [claim.stage for claim in held] == [Stage.EVALUATE] * 3
    # The youngest ends first: the oldest is still waited for.
    store.queue.finish(held[2], outcome(store, held[2]))
    assert store.queue.claim("w", ["cpu"]) is None
    store.queue.finish(held[0], outcome(store, held[0]))
    assert store.queue.claim("w", ["cpu"]).stage is Stage.PROPOSE


def test_a_late_result_is_refused_and_counted(store):
    study, _ = store.studies.create(request(), "anna")
    slow = Queue(store.db, lease_seconds=0.2).claim("slow", ["cpu"])
    time.sleep(0.3)
    quick = store.queue.claim("quick", ["cpu"])
    assert (quick.task, quick.fence, quick.attempt) == (slow.task, slow.fence + 1, 2)
    with pytest.raises(LostLease):
        store.queue.renew(slow)
    with pytest.raises(LostLease):
        store.queue.finish(slow, outcome(store, slow))
    store.queue.fail(slow, "too late", final=True)
    store.queue.release(slow)
    assert store.activity.n_stale() == 2
    store.queue.finish(quick, outcome(store, quick))
    assert store.studies.get(study.id).state is StudyState.RUNNING


def test_a_renewed_lease_holds(store):
    store.studies.create(request(), "anna")
    queue = Queue(store.db, lease_seconds=5.0)
    claim = queue.claim("w", ["cpu"])
    for _ in range(6):
        time.sleep(1.0)
        assert not queue.renew(claim)
        assert queue.claim("other", ["cpu"]) is None


def test_a_measurement_that_ends_its_workers_is_set_aside_and_the_study_partial(database_url):
    store = Store(database_url, lease_seconds=0.05)
    store.db.upgrade()
    study, _ = store.studies.create(request(n_trials=8), "anna")
    dead = 0
    while not store.studies.get(study.id).state.is_final:
        claim = store.queue.claim("w", ["cpu"])
        if claim is None:
            time.sleep(0.06)
        elif claim.stage is Stage.EVALUATE and claim.number == 5:
            dead += 1  # its worker is gone
        else:
            store.queue.finish(claim, outcome(store, claim))
    assert dead == 3
    assert store.studies.get(study.id).state is StudyState.PARTIAL
    failed = [t for t in store.trials.of(study.id) if t.state is TrialState.FAIL]
    assert [t.number for t in failed] == [5]
    assert "3 times" in failed[0].error
    store.db.pool.dispose()


def test_a_task_given_back_burns_no_attempt(store):
    store.studies.create(request(), "anna")
    for _ in range(5):
        claim = store.queue.claim("w", ["cpu"])
        assert claim.attempt == 1
        store.queue.release(claim)


def test_an_error_is_tried_again_and_a_final_one_is_not(store):
    study, _ = store.studies.create(request(), "anna")
    for attempt in (1, 2):
        claim = store.queue.claim("w", ["cpu"])
        assert claim.attempt == attempt
        store.queue.fail(claim, "out of memory", final=False)
    store.queue.fail(store.queue.claim("w", ["cpu"]), "no such model", final=True)
    stored = store.studies.get(study.id)
    assert (stored.state, stored.error) == (StudyState.FAIL, "no such model")
    store.studies.resume(study.id)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE


@pytest.mark.parametrize("n_done", [0, 1, 4, 9])
def test_cancelled_and_resumed_it_ends_as_if_never_stopped(store, n_done):
    alone, _ = store.studies.create(request(n_trials=12), "anna")
    run(store)
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store, n=n_done)
    claim = store.queue.claim("w", ["cpu"])
    assert store.studies.cancel(study.id).state is StudyState.CANCELLING
    assert store.queue.renew(claim)
    assert store.queue.claim("other", ["cpu"]) is None
    store.queue.abandon(claim)
    assert store.studies.get(study.id).state is StudyState.CANCELLED
    with pytest.raises(Conflict):
        store.studies.cancel(study.id)
    store.studies.resume(study.id)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert rows(store, study.id) == rows(store, alone.id)


@pytest.mark.parametrize("how", ["release", "fail"])
def test_a_task_given_back_while_it_is_cancelled_ends_the_study(store, how):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store, n=3)
    claim = store.queue.claim("w", ["cpu"])
    store.studies.cancel(study.id)
    if how == "release":
        store.queue.release(claim)
    else:
        store.queue.fail(claim, "out of memory", final=False)
    assert store.studies.get(study.id).state is StudyState.CANCELLED
    store.studies.resume(study.id)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE


def test_a_search_that_is_extended_while_it_ends_goes_on(store):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    while True:
        claim = store.queue.claim("w", ["cpu"])
        left = outcome(store, claim)
        if left.search_ended:
            break
        store.queue.finish(claim, left)
    known = store.studies.get(study.id).study
    store.studies.extend(study.id, n_trials=20)
    store.queue.finish(claim, replace(left, asked=known))
    run(store)
    assert len(store.trials.of(study.id, "calibration")) == 20


def test_what_preparing_settles_leaves_an_extension_alone(store):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    claim = store.queue.claim("w", ["cpu"])
    store.studies.extend(study.id, n_trials=20)
    settled = Settled("float32", "cpu", "0" * 40, "org/a@1", "org/b@2")
    store.queue.finish(claim, replace(outcome(store, claim), settled=settled))
    now = store.studies.get(study.id).study
    assert (now.n_trials, now.dtype, now.device, now.revision) == (20, "float32", "cpu", "0" * 40)
    assert (now.calibration.source, now.evaluation.source) == ("org/a@1", "org/b@2")


def test_a_quota_holds_for_requests_at_once(store):
    def post(_):
        try:
            return store.studies.create(request(), "anna", quota=Quota(1))
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sum(made is not None for made in pool.map(post, range(8))) == 1


def test_a_quota_holds_for_what_is_resumed_and_extended(store):
    first, _ = store.studies.create(request(), "anna", quota=Quota(1))
    store.studies.cancel(first.id)
    store.studies.create(request(), "anna", quota=Quota(1))
    with pytest.raises(Conflict, match="at most 1"):
        store.studies.resume(first.id, "anna", quota=Quota(1))
    with pytest.raises(Conflict, match="at most 1"):
        store.studies.extend(first.id, 64, owner="anna", quota=Quota(1))
    assert store.studies.get(first.id).study.n_trials == first.study.n_trials


def test_nobody_rings_for_a_failed_study(store):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store, n=3)
    waiting = store.activity.tasks(study.id, [TaskState.WAITING])
    claim = store.queue.claim("w", ["cpu"])
    assert waiting
    store.queue.fail(claim, "no", final=True)  # a measurement: the study goes on
    assert store.doorbell.take_to_ring(-1)
    store.studies.cancel(study.id)
    assert store.doorbell.take_to_ring(-1) == []


def test_a_measurement_that_ends_while_it_is_cancelled_is_kept(store):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store, n=5)
    claim = next(c for c in iter(lambda: store.queue.claim("w", ["cpu"]), None))
    if claim.stage is Stage.PROPOSE:
        store.queue.finish(claim, outcome(store, claim))
        claim = store.queue.claim("w", ["cpu"])
    store.studies.cancel(study.id)
    store.queue.finish(claim, outcome(store, claim))
    assert store.trials.get(study.id, claim.number).state is TrialState.COMPLETE
    assert store.studies.get(study.id).state is StudyState.CANCELLED


def test_a_finished_study_can_be_extended(store):
    alone, _ = store.studies.create(request(n_trials=20), "anna")
    run(store)
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store)
    with pytest.raises(InvalidArgument):
        store.studies.extend(study.id, n_trials=5)
    with pytest.raises(InvalidArgument):  # it has all the time there is
        store.studies.extend(study.id, max_minutes=10)
    store.studies.extend(study.id, n_trials=20)
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE

    def searched(study_id):
        return [(t.allocation, t.values) for t in store.trials.of(study_id, "calibration")]

    assert searched(study.id) == searched(alone.id)


def test_a_search_that_repeats_itself_has_ended(store):
    study, _ = store.studies.create(request(n_trials=12), "anna")
    run(store, n=2 + 3)
    claim = store.queue.claim("w", ["cpu"])
    known = Trial(0, store.trials.get(study.id, 0).allocation, "calibration", "sweep")
    store.queue.finish(claim, Outcome(proposed=(Proposed(known, is_proposal=True),)))
    run(store)
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert len(store.trials.of(study.id, "calibration")) == 3


def test_owners_see_their_own(store):
    study, _ = store.studies.create(request(), "anna")
    with pytest.raises(NotFound):
        store.studies.get(study.id, "ben")
    with pytest.raises(NotFound):
        store.studies.cancel(study.id, "ben")
    assert store.studies.page("ben") == []
    assert [s.id for s in store.studies.page("anna")] == [study.id]
    with pytest.raises(Conflict, match="at most 1"):
        store.studies.create(request(), "anna", quota=Quota(1))


def test_a_study_is_deleted_with_all_that_is_its(store):
    study, _ = store.studies.create(request(n_trials=8), "anna")
    with pytest.raises(Conflict):
        store.studies.delete(study.id)
    run(store)
    store.checkpoints.create(study.id, 0, "packed")
    store.studies.delete(study.id)
    with pytest.raises(NotFound):
        store.studies.get(study.id)
    assert store.activity.tasks() == []


def test_a_point_asked_for_twice_is_written_once(store):
    study, _ = store.studies.create(request(n_trials=8), "anna")
    run(store)
    first, is_new = store.checkpoints.create(study.id, 1, "packed")
    again, is_newer = store.checkpoints.create(study.id, 1, "packed")
    assert (first, is_new, is_newer) == (again, True, False)
    claim = store.queue.claim("w", ["cpu"])
    assert (claim.stage, claim.number) == (Stage.MATERIALISE, 0)
    store.queue.fail(claim, "disk full", final=True)
    assert store.checkpoints.of(study.id)[0].state is TaskState.FAIL
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    store.checkpoints.create(study.id, 1, "packed")
    run(store)
    assert store.checkpoints.of(study.id)[0].state is TaskState.COMPLETE


def test_waiting_tasks_are_rung_until_they_are_taken(store):
    store.studies.create(request(), "anna")
    (task,) = store.doorbell.take_to_ring(5)
    assert store.doorbell.take_to_ring(5) == []
    store.doorbell.unring([task.id])
    assert [t.id for t in store.doorbell.take_to_ring(5)] == [task.id]
    assert [t.id for t in store.doorbell.take_to_ring(-1)] == [task.id]
    store.queue.claim("w", ["cpu"])
    assert store.doorbell.take_to_ring(-1) == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_killed_every_trial_counts_once(database_url, seed):
    """Claims end at random: done, dropped, given back, failed, or delivered too late."""
    store = Store(database_url, lease_seconds=0.02)
    store.db.upgrade()
    alone, _ = store.studies.create(request(n_trials=30, n_parallel=4), "anna")
    while not store.studies.get(alone.id).state.is_final:
        run(store)
        time.sleep(0.03)
    study, _ = store.studies.create(request(n_trials=30, n_parallel=4), "anna")
    rng, late, n_bad = random.Random(seed), [], {}
    while not store.studies.get(study.id).state.is_final:
        claim = store.queue.claim(f"w{rng.randrange(4)}", ["cpu"])
        fate = rng.random()
        if claim is None:
            time.sleep(0.03)
        elif fate < 0.5 or n_bad.get(claim.task, 0) >= 1:
            try:
                store.queue.finish(claim, outcome(store, claim))
            except LostLease:
                n_bad[claim.task] = 0
        else:
            n_bad[claim.task] = n_bad.get(claim.task, 0) + 1
            if fate < 0.6:
                store.queue.release(claim)
            elif fate < 0.7:
                store.queue.fail(claim, "lost", final=False)
            else:
                late.append((claim, outcome(store, claim)))
        for claim, result in late if rng.random() < 0.3 else []:
            try:
                store.queue.finish(claim, result)
            except LostLease:
                continue
        late = late if len(late) < 5 else []
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert rows(store, study.id) == rows(store, alone.id)
    store.db.pool.dispose()
