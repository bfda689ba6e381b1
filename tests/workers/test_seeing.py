"""Studies of models that see: workers find what a run in one process does, and pages show it."""

import json
import os
from contextlib import contextmanager
from dataclasses import replace

import pytest
from multimodal import DATA, TASKS, samples_for, write_samples
from servers import RedisServer
from starlette.testclient import TestClient
from waiting import until
from workers.test_celery import celery_worker
from workers.test_life import is_over, measured

from bitfront import Budget, Study, TextSource, run_study
from bitfront.api.app import create_app
from bitfront.artifacts import Artifacts
from bitfront.broker import celery_app
from bitfront.relay import Relay
from bitfront.settings import Settings
from bitfront.store.records import StudyState, TaskState
from bitfront.workers.local import LocalWorkers

CHOICES = {
    "budget": Budget.parse("5bpw"),
    "formats": ("int2_g32", "int4_g32", "int8_g32"),
    "pinned": "int8_g32",
    "n_trials": 5,
    "n_finalists": 2,
    "n_search_sequences": 8,
    "dtype": "float32",
    "device": "cpu",
}


@pytest.fixture
def settings(tmp_path, store, monkeypatch):
    values = {
        "BITFRONT_HOME": str(tmp_path / "home"),
        "BITFRONT_DATABASE_URL": store.url,
        "BITFRONT_ARTIFACTS_URL": str(tmp_path / "artifacts"),
        "BITFRONT_LEASE_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings()


@contextmanager
def workers(store, tmp_path, monkeypatch):
    """Local ones on SQLite; of Celery on PostgreSQL."""
    if store.url.startswith("sqlite"):
        with LocalWorkers(1, ["cpu"], {}):
            yield
        return
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    monkeypatch.setenv("BITFRONT_BROKER_URL", redis.url)
    try:
        with Relay(store, celery_app(Settings())), celery_worker(dict(os.environ)):
            yield
    finally:
        redis.kill()


def of_images(folder, vit_folder):
    texts = {
        name: TextSource(str(folder / name), n)
        for name, n in (("calibration", 8), ("evaluation", 20))
    }
    return Study(str(vit_folder), **texts, **CHOICES)


def of_samples(folder):
    task = TASKS["tiny_llava"]
    samples = samples_for(task)[-60:]
    parts = {"calibration": samples[:30], "evaluation": samples[30:]}
    texts = {
        name: TextSource(str(write_samples(task, part, folder / f"{name}.safetensors")), 8)
        for name, part in parts.items()
    }
    menu = ("int2_channel", "int4_channel", "int8_channel")  # a patch has 12 numbers
    return replace(Study(str(DATA / "tiny_llava"), **texts, **CHOICES), formats=menu)


def test_what_sees_is_searched_by_workers(
    store, settings, tmp_path, monkeypatch, digit_files, vit_folder
):
    """Images by local workers on SQLite; image-text samples by Celery on PostgreSQL."""
    is_local = store.url.startswith("sqlite")
    request = of_images(digit_files, vit_folder) if is_local else of_samples(tmp_path)
    front = run_study(request, tmp_path / "alone")
    study, _ = store.studies.create(request, "local")
    with workers(store, tmp_path, monkeypatch):
        until(lambda: is_over(store, study.id))
        assert store.studies.get(study.id).state is StudyState.COMPLETE
        number = store.trials.front(study.id).trials[0].number
        store.checkpoints.create(study.id, number, "packed")
        until(lambda: store.checkpoints.of(study.id)[0].state is TaskState.COMPLETE)
    assert measured(store.trials.front(study.id).trials) == measured(front.trials)
    artifacts = Artifacts(settings.artifacts)
    files = store.files.of(study.id)
    with artifacts.open(files["identity.json"]) as file:
        found = json.load(file)
    alone = json.loads((tmp_path / "alone" / "identity.json").read_text())
    # Data, model and all else: who has one has the results of the other.
    assert found == alone
    if is_local:
        assert "checkpoints/0/preprocessor_config.json" in files
    with TestClient(
        create_app(store, artifacts, settings), "http://127.0.0.1", client=("127.0.0.1", 5000)
    ) as client:
        assert_shown(client, study.id, is_local)


def assert_shown(client, study_id, is_local):
    """Pages, front, report and exports, in words that go with what was measured."""
    page = client.get(f"/ui/studies/{study_id}").text
    report = client.get(f"/v1/studies/{study_id}/report").text
    rows = client.get(f"/v1/studies/{study_id}/front?format=csv").text.splitlines()
    assert "top1_error" in rows[0]
    assert ("label_error" in rows[0]) == is_local
    for text in (page, report):
        assert "top-1 err" in text
        assert ("label err" in text) == is_local
        assert ">ppl<" not in text
        assert "nats per token" not in text
    exported = client.get(f"/v1/exports?study={study_id}")
    assert exported.status_code == 200
    for path in ("", "/compare", "/data.json"):
        assert client.get(f"/ui/studies/{study_id}{path}").status_code == 200
