"""Celery workers against a real Redis and a real PostgreSQL: brokers and workers are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from servers import RedisServer
from workers.test_life import CHOICES, is_over, measured, progresses, until

from bitfront import run_study
from bitfront.broker import celery_app
from bitfront.relay import Relay, ring_due
from bitfront.settings import Settings
from bitfront.store.records import StudyState, TaskState
from bitfront.workers.beat import BEAT_SECONDS

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""With SQLite, `test_kills`, `test_restarts` and others run Celery on measurements made up."""


@pytest.fixture
def redis(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def environment(tmp_path, store, redis, monkeypatch):
    """Settings of the worker, whose leases outlast any test, and of the relay in this process."""
    values = {
        "BITFRONT_HOME": str(tmp_path / "home"),
        "BITFRONT_DATABASE_URL": store.url,
        "BITFRONT_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "BITFRONT_BROKER_URL": redis.url,
        "BITFRONT_LEASE_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **values}


@contextmanager
def celery_worker(environment, told=None):
    command = [sys.executable, "-m", "bitfront.workers.tasks", "cpu"]
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=told, stderr=told
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@on_postgresql
def test_a_cluster_measures_what_a_run_in_this_process_does(
    store, environment, tiny_study, tmp_path
):
    """With the broker wiped and a worker killed on the way."""
    request = tiny_study(4, 4, device="cpu", dtype="float32", **CHOICES)
    front = run_study(request, tmp_path / "alone")
    study, _ = store.studies.create(request, "anna")
    brief = {**environment, "BITFRONT_LEASE_SECONDS": "5"}
    with Relay(store, celery_app(Settings())):
        with celery_worker(brief) as worker:
            for _ in range(2):
                progresses(store, study.id)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        with celery_worker(brief):
            until(lambda: is_over(store, study.id))
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert measured(store.trials.front(study.id).trials) == measured(front.trials)


@on_postgresql
def test_a_stopped_celery_worker_gives_its_task_back(store, environment, tiny_study, tmp_path):
    study, _ = store.studies.create(tiny_study(4, 4, n_trials=300), "anna")
    log = tmp_path / "log"
    with log.open("w") as told, Relay(store, celery_app(Settings())):
        with celery_worker(environment, told) as worker:
            for _ in range(2):
                progresses(store, study.id)
            # Who measures is another process, which is killed where it takes long to begin.
            assert "torch" not in Path(f"/proc/{worker.pid}/maps").read_text()
        assert store.activity.tasks(study.id, [TaskState.RUNNING]) == []
        assert all(task.attempts <= 1 for task in store.activity.tasks(study.id))
    # That it stops, and that a process of its pool begins, Celery says in its own way.
    own = re.compile(r"|worker: .*|\[.*\] child process \d+ calling self.run\(\)")
    lines = [json.loads(x) for x in log.read_text().splitlines() if not own.fullmatch(x)]
    assert {"bitfront", "py"} <= {line["logger"].partition(".")[0] for line in lines}
    assert not [line for line in lines if "Signal handler" in line["message"]]


@on_postgresql
def test_a_celery_worker_that_hangs_is_not_healthy(store, environment, tmp_path):
    program = [sys.executable, "-c", "from bitfront.cli import main; main()", "worker"]
    beat = tmp_path / "home" / "worker.beat"

    def is_healthy():
        return not subprocess.run([*program, "--check"], env=environment, check=False).returncode

    worker = subprocess.Popen([*program, "--queue", "cpu"], env=environment)
    try:
        until(beat.exists)
        (celery,) = psutil.Process(worker.pid).children()
        celery.suspend()
        then = time.time() - 120.0
        os.utime(beat, (then, then))
        time.sleep(2 * BEAT_SECONDS)
        assert not is_healthy()
        celery.resume()
        until(is_healthy)
    finally:
        worker.terminate()
        worker.wait(90)


@pytest.mark.fault("F5", transport="celery")
def test_ringing_without_a_broker_is_quick_and_forgotten(
    store, environment, redis, tiny_study, record_property
):
    redis.kill()
    store.studies.create(tiny_study(4, 4, **CHOICES), "anna")
    app = celery_app(Settings())
    begun = time.monotonic()
    ring_due(store, app)
    seconds = time.monotonic() - begun
    record_property("slowest_seconds", round(seconds, 2))
    assert seconds < 15
    redis.start()
    assert len(store.doorbell.take_to_ring(5)) == 1  # as if never rung
