"""Parts that go away and come back while studies run: what it costs, and how long it takes."""

import time

import httpx2
import pytest
from soak import n
from store.studies import request, run
from waiting import until
from workers.parts import installation

from bitfront.broker import celery_app, n_unheard, ring
from bitfront.settings import Settings
from bitfront.store.records import StudyState, TaskState


def is_over(store, study_id):
    return store.studies.get(study_id).state.is_final


def rows(store, study_id):
    return [
        (t.number, t.text, t.origin, t.state, t.allocation, dict(t.values))
        for t in store.trials.of(study_id)
    ]


def undisturbed(store, asked):
    """The same study, done by one worker in this process."""
    study, _ = store.studies.create(asked, "anna")
    run(store)
    return rows(store, study.id)


def n_done(store, study_id):
    return len(store.trials.of(study_id, finished=True))


def progresses(store, study_id, n_more=1):
    """Wait until so many more are measured; the seconds that it took."""
    before, begun = n_done(store, study_id), time.monotonic()
    until(lambda: n_done(store, study_id) >= before + n_more)
    return time.monotonic() - begun


def running(store, study_id):
    return {task.id for task in store.activity.tasks(study_id, [TaskState.RUNNING])}


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("database", "transport"),
    n(
        [("postgresql", "celery")],
        [(d, t) for d in ("sqlite", "postgresql") for t in ("local", "celery")],
    ),
)
def test_a_rolling_restart_of_every_part_burns_no_attempt(
    tmp_path, database, transport, record_property
):
    """F13: each part is stopped in order under load; who reads from a database that stops is worse.

    A task in flight while PostgreSQL is away may fail at a read and is then done again: that is
    said of those alone.
    """
    with installation(tmp_path, database, transport, seconds=0.3) as parts:
        store = parts.store
        asked = request(n_trials=100, n_parallel=4)
        expected = undisturbed(store, asked)
        study, _ = store.studies.create(asked, "anna")
        in_flight, waits = set(), []
        with parts.running(parts.api, parts.worker, parts.dashboard):
            parts.wait_for_dashboard()
            for name, restart in parts.restarts.items():
                waits.append(progresses(store, study.id, 2))
                assert not is_over(store, study.id), f"nothing was at work any more: {name}"
                if name == "postgresql":
                    in_flight |= running(store, study.id)
                restart()
                if name == "postgresql":
                    in_flight |= running(store, study.id)
            parts.wait_for_api()
            parts.wait_for_dashboard()
            until(lambda: is_over(store, study.id))
        assert rows(store, study.id) == expected
        attempts = {task.id: task.attempts for task in store.activity.tasks(study.id)}
        assert {k for k, v in attempts.items() if v != 1} <= in_flight
        record_property("rounds", len(waits))
        record_property("kills", " ".join(f"{name}:1" for name in parts.restarts))
        record_property("trials", len(expected))
        record_property("reruns", sum(attempts.values()) - len(attempts))
        record_property("stale", store.activity.n_stale())
        record_property("slowest_seconds", round(max(waits), 1))


@pytest.mark.fault("F3", database="postgresql")
@pytest.mark.parametrize("transport", n(["local"], ["local", "celery"]))
def test_a_database_that_crashes_costs_only_its_absence(tmp_path, transport, record_property):
    """F3: the API says so within 3 seconds, and the search goes on within 30 after the return."""
    asked = request(n_trials=60, n_parallel=4)
    with installation(tmp_path, "postgresql", transport) as parts:
        store = parts.store
        expected = undisturbed(store, asked)
        study, _ = store.studies.create(asked, "anna")
        with parts.running():
            until(lambda: n_done(store, study.id) > 10)
            parts.postgres.kill()
            answers = answered(f"{parts.url}/v1/studies", n(2, 10))
            parts.postgres.start()
            returned = time.monotonic()
            store.db.wait(10)
            progresses(store, study.id)
            slowest = time.monotonic() - returned
            until(lambda: is_over(store, study.id), 100)
        assert rows(store, study.id) == expected
        record_property("rounds", len(answers))
        record_property("kills", "postgresql:1")
        record_property("trials", len(expected))
        record_property("slowest_seconds", round(slowest, 1))
        assert max(answers) < n(15.0, 3.0)
        assert slowest < n(100, 30)


def answered(url, seconds):
    """How long each refusal takes while the database is away."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end or not found:
        begun = time.monotonic()
        answer = httpx2.get(url, timeout=30.0)
        found.append(time.monotonic() - begun)
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
    return found


@pytest.mark.fault("F4", transport="celery")
@pytest.mark.parametrize("database", n(["sqlite"], ["sqlite", "postgresql"]))
def test_a_broker_that_forgets_everything_loses_nothing(tmp_path, database, record_property):
    """F4: what waits is rung for again within 10 seconds after the broker is back, empty."""
    with installation(tmp_path, database, "celery") as parts:
        store, app = parts.store, celery_app(Settings(broker_url=parts.redis.url))
        studies = [store.studies.create(request(n_trials=6, seed=k), "anna")[0] for k in range(5)]
        with parts.running(parts.api):
            until(lambda: n_unheard(app, "cpu") >= len(studies))
            parts.killers["redis"]()()
            returned = time.monotonic()
            until(lambda: n_unheard(app, "cpu") >= len(studies))
            slowest = time.monotonic() - returned
            with parts.running(parts.worker):
                progresses(store, studies[0].id)
                parts.killers["redis"]()()
                until(lambda: all(is_over(store, study.id) for study in studies))
        for study in studies:
            assert store.studies.get(study.id).state is StudyState.COMPLETE
            tasks = store.activity.tasks(study.id)
            assert all((t.state, t.attempts) == (TaskState.COMPLETE, 1) for t in tasks)
        record_property("kills", "redis:2")
        record_property("slowest_seconds", round(slowest, 1))
        assert slowest < n(60.0, 10.0)


@pytest.mark.fault("F10", transport="celery")
@pytest.mark.parametrize("database", n(["sqlite"], ["sqlite", "postgresql"]))
def test_ten_messages_for_one_task_measure_once(tmp_path, database, record_property):
    """F10: four processes hear them."""
    with installation(tmp_path, database, "celery", n_processes=4) as parts:
        store, app = parts.store, celery_app(Settings(broker_url=parts.redis.url))
        asked = request(n_trials=6)
        expected = undisturbed(store, asked)
        study, _ = store.studies.create(asked, "anna")
        n_rung = 0
        with parts.running(parts.worker):
            while not is_over(store, study.id):
                for task in store.activity.tasks(study.id, [TaskState.WAITING]):
                    n_rung += sum(ring(app, "cpu", task.id) for _ in range(10))
                time.sleep(0.05)
        assert n_rung >= 10
        assert rows(store, study.id) == expected
        told = [e for e in store.activity.events(study.id) if e.kind == "trial"]
        assert len(told) == len(expected)
        assert store.activity.n_stale() == 0
        assert all(task.attempts == 1 for task in store.activity.tasks(study.id))
        record_property("rounds", n_rung)
        record_property("trials", len(told))
        record_property("stale", store.activity.n_stale())
