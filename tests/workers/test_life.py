"""Real workers on the tiny Llama: processes that are killed, stopped and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from soak import n
from store.studies import request
from waiting import until

from bitfront import Budget, run_study
from bitfront.artifacts import Artifacts
from bitfront.kv_cache import KVCache
from bitfront.store.records import Stage, StudyState, TaskState
from bitfront.workers.local import LocalWorkers

CHOICES = {"n_trials": 8, "n_finalists": 3, "n_search_sequences": 2}
CACHE = KVCache(("int2_g32", "int8_g32", "bf16"), batch=4, context=64, window=8, sinks=2)


@pytest.fixture
def environment(tmp_path, store):
    """Settings of the worker processes, whose leases outlast any test."""
    return {
        "BITFRONT_HOME": str(tmp_path / "home"),
        "BITFRONT_DATABASE_URL": store.url,
        "BITFRONT_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "BITFRONT_LEASE_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
    }


def test_a_worker_that_cannot_load_its_libraries_says_so_and_takes_no_task(
    store, environment, tmp_path
):
    study, _ = store.studies.create(request(), "anna")
    (tmp_path / "torch.py").write_text("raise ImportError('no library of the GPU')")
    given = {**os.environ, **environment}
    given["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "bitfront.workers.child", "w", "cpu"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert "ImportError: no library of the GPU" in lines[0]["error"]
    assert "This machine cannot work: no library of the GPU." in lines[1]["message"]
    (task,) = store.activity.tasks(study.id)
    assert (task.state, task.attempts) == (TaskState.WAITING, 0)


def is_over(store, study_id):
    study = store.studies.get(study_id)
    assert study.state is not StudyState.FAIL, study.error
    return study.state.is_final


def progresses(store, study_id):
    """Wait for one more measurement."""
    done = len(store.trials.of(study_id, finished=True))
    until(lambda: len(store.trials.of(study_id, finished=True)) > done or is_over(store, study_id))


def may_be_killed(store, study_id):
    """Whether no task has lost two workers: who kills a third has it set aside."""
    running = store.activity.tasks(study_id, [TaskState.RUNNING])
    return all(task.attempts < 2 for task in running)


def measured(trials):
    return [
        (
            t.text,
            t.allocation,
            t.origin,
            t.state,
            {k: v for k, v in t.values.items() if "seconds" not in k},
        )
        for t in trials
    ]


def test_workers_measure_what_a_run_in_this_process_does(store, environment, tiny_study, tmp_path):
    request = tiny_study(4, 4, device="cpu", dtype="float32", **CHOICES)
    if store.url.startswith("sqlite"):  # of the two databases one sees a KV cache searched as well
        request = replace(request, budget=Budget.parse("180KB"), kv_cache=CACHE)
    front = run_study(request, tmp_path / "alone")
    study, _ = store.studies.create(request, "anna")
    with LocalWorkers(2, ["cpu"], environment):
        until(lambda: is_over(store, study.id))
        assert store.studies.get(study.id).state is StudyState.COMPLETE
        assert measured(store.trials.front(study.id).trials) == measured(front.trials)
        point = front.best("kl", **request.budget.bounds())
        number = next(
            t.number for t in store.trials.of(study.id) if t.allocation == point.allocation
        )
        store.checkpoints.create(study.id, number, "packed")
        until(lambda: store.checkpoints.of(study.id)[0].state is TaskState.COMPLETE)
    files = store.files.of(study.id, "checkpoints/0/")
    assert "checkpoints/0/config.json" in files
    artifacts = Artifacts(environment["BITFRONT_ARTIFACTS_URL"])
    with artifacts.open(store.files.of(study.id)["checkpoints/0/config.json"]) as file:
        said = json.load(file)["quantization_config"].get("kv_cache")
    caches = {x: f for x, f in point.allocation.formats.items() if x.endswith("_cache")}
    expected = {"cache": request.kv_cache.to_fields(), "formats": caches} if caches else None
    assert said == json.loads(json.dumps(expected))
    assert all(artifacts.has(digest) for digest in store.files.of(study.id).values())


@pytest.mark.fault("F1", transport="local")
@pytest.mark.parametrize("database_url", n(["postgresql"], ["sqlite", "postgresql"]), indirect=True)
def test_killed_workers_change_nothing(store, environment, tiny_study, tmp_path):
    request = tiny_study(4, 4, device="cpu", dtype="float32", n_parallel=2, **CHOICES)
    front = run_study(request, tmp_path / "alone")
    study, _ = store.studies.create(request, "anna")
    rng = random.Random(0)
    with LocalWorkers(2, ["cpu"], {**environment, "BITFRONT_LEASE_SECONDS": "5"}) as workers:
        for _ in range(n(3, 5)):
            progresses(store, study.id)
            until(lambda: may_be_killed(store, study.id))
            if (pids := workers.pids) and not is_over(store, study.id):
                os.kill(rng.choice(pids), signal.SIGKILL)
        until(lambda: is_over(store, study.id))
    assert store.studies.get(study.id).state is StudyState.COMPLETE
    assert measured(store.trials.front(study.id).trials) == measured(front.trials)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_told_to_stop_gives_its_task_back(store, environment, tiny_study):
    study, _ = store.studies.create(tiny_study(4, 4, **CHOICES), "anna")
    with LocalWorkers(1, ["cpu"], environment):
        until(lambda: store.activity.tasks(study.id, [TaskState.RUNNING]))
        time.sleep(0.5)
    assert store.activity.tasks(study.id, [TaskState.RUNNING]) == []
    assert all(task.attempts <= 1 for task in store.activity.tasks(study.id))
    waiting = store.activity.tasks(study.id, [TaskState.WAITING])
    assert [task.attempts for task in waiting] == [0]


@pytest.mark.fault("F12", transport="local")
@pytest.mark.parametrize("database_url", n(["sqlite"], ["sqlite", "postgresql"]), indirect=True)
def test_a_running_study_is_cancelled_within_seconds(
    store, environment, tiny_study, record_property
):
    """F12: within a batch of a real measurement; a busy machine is given four times as long."""
    study, _ = store.studies.create(tiny_study(4, 4, n_trials=500), "anna")
    with LocalWorkers(1, ["cpu"], environment):
        until(lambda: len(store.trials.of(study.id, finished=True)) > 2)
        until(lambda: _measures(store, study.id))
        begun = time.monotonic()
        store.studies.cancel(study.id)
        until(lambda: is_over(store, study.id), n(20, 5))
        record_property("slowest_seconds", round(time.monotonic() - begun, 2))
    assert store.studies.get(study.id).state is StudyState.CANCELLED


def _measures(store, study_id):
    running = store.activity.tasks(study_id, [TaskState.RUNNING])
    return [task for task in running if task.stage is Stage.EVALUATE]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_model_that_cannot_be_loaded_fails_the_study_in_one_line(store, environment, tiny_study):
    request = tiny_study(4, 4, **CHOICES)
    study, _ = store.studies.create(replace(request, model=f"{request.model}-not"), "anna")
    with LocalWorkers(1, ["cpu"], environment):
        until(lambda: store.studies.get(study.id).state.is_final)
    stored = store.studies.get(study.id)
    assert stored.state is StudyState.FAIL
    assert "-not" in stored.error
    assert "\n" not in stored.error
