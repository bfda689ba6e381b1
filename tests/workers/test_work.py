"""One task from its claim to its end, with a database that is away in between."""

from dataclasses import dataclass, field

import pytest
from store.studies import outcome, request
from waiting import until
from workers.simulated import SimulatedBench

from bitfront.errors import StorageError
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.queue import Queue
from bitfront.store.records import Stage, StudyState, TaskState
from bitfront.workers import lease as leasing
from bitfront.workers import work as working
from bitfront.workers.lease import Lease
from bitfront.workers.work import work


@dataclass(frozen=True)
class AwayQueue(Queue):
    """A queue whose database is away for the first results."""

    left: list[int] = field(default_factory=lambda: [2])

    def finish(self, claim, outcome):
        if self.left[0]:
            self.left[0] -= 1
            raise StorageError("The database closed the connection: it is restarting.")
        super().finish(claim, outcome)


@pytest.fixture
def done_by_hand(store, monkeypatch):
    monkeypatch.setattr(working, "_AWAY_SECONDS", 0.01)
    return store


def test_a_result_waits_for_the_database(done_by_hand):
    store = done_by_hand
    study, _ = store.studies.create(request(), "anna")
    n_done = []

    def count(bench, claim, lease):
        n_done.append(claim)
        return outcome(store, claim)

    away = Store(store.url, store.lease_seconds)
    away.__dict__["queue"] = AwayQueue(store.db, store.lease_seconds)
    claim = store.queue.claim("w", ["cpu"])
    work(SimulatedBench(away, Settings()), claim, dict.fromkeys(Stage, count), lambda: False)
    assert len(n_done) == 1
    (task, _next) = store.activity.tasks(study.id)
    assert (task.state, task.attempts) == (TaskState.COMPLETE, 1)


def test_an_error_with_a_nul_is_stored(done_by_hand):
    store = done_by_hand
    study, _ = store.studies.create(request(), "anna")

    def fail(bench, claim, lease):
        raise RuntimeError("bad \0 name")

    bench = SimulatedBench(store, Settings())
    for _ in range(3):
        claim = store.queue.claim("w", ["cpu"])
        work(bench, claim, dict.fromkeys(Stage, fail), lambda: False)
    assert store.studies.get(study.id).state is StudyState.FAIL
    assert "bad  name" in store.studies.get(study.id).error


@dataclass(frozen=True)
class UnrenewedQueue(Queue):
    """A queue whose database is away whenever a lease is to be renewed."""

    def renew(self, claim, stage="", done=0, total=0):
        raise StorageError("The database closed the connection: it is restarting.")


def test_a_lease_that_cannot_be_renewed_says_of_which_study(store, monkeypatch, caplog):
    monkeypatch.setattr(leasing, "_LOOK_SECONDS", 0.01)
    study, _ = store.studies.create(request(), "anna")
    claim = store.queue.claim("w", ["cpu"])
    with Lease(UnrenewedQueue(store.db, 0.01), claim, 60.0, lambda: False):
        until(lambda: caplog.records)
    about = caplog.records[0].__dict__
    assert (about["study"], about["stage"], about["number"]) == (study.id, Stage.PREPARE, 0)
