"""Plug-ins, estimates, workers and metrics."""

import dataclasses
import gc
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
from instances import interacting_study, run_search
from starlette.testclient import TestClient

from bitfront.api import kinds, weights
from bitfront.api.metrics import create_metrics_app
from bitfront.budget import Budget
from bitfront.errors import InvalidModel
from bitfront.formats import catalogue, named
from bitfront.plugins import Plugins
from bitfront.proposing import n_wanted
from bitfront.run import finalists
from bitfront.search import SEARCHES
from bitfront.study import Study

BODY = {"model": "org/tiny@main", "budget": "4.25bpw", "n_trials": 8}


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_parameters_are_those_of_the_classes(kind):
    folder, word = kinds.KINDS[kind]
    plugins = Plugins(f"bitfront.{folder}", word)
    assert kinds.names(kind) == plugins.names()
    for name in kinds.names(kind):
        fields = [f for f in dataclasses.fields(plugins.load(name)) if f.init]
        found = kinds.declared(kind, name)
        assert {n: p.default for n, p in found.parameters.items()} == {
            f.name: f.default for f in fields
        }
        assert found.summary


def test_declarations_are_read_by_many_threads_at_once():
    usual = gc.get_threshold()
    # A collection while a file is parsed lets other threads run, as it does under load.
    gc.callbacks.append(lambda *_: time.sleep(0))
    gc.set_threshold(20)
    try:
        for _ in range(10):
            for read in (kinds.names, kinds._declared, kinds._tree):
                read.cache_clear()
            with ThreadPoolExecutor(8) as pool:
                names = kinds.names("searches") * 4
                assert all(pool.map(partial(kinds.declared, "searches"), names))
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.pop()


def test_the_api_loads_nothing_heavy():
    heavy = ("torch", "transformers", "datasets", "optuna", "ortools", "sklearn", "celery")
    code = (
        "import bitfront.api.app, bitfront.api.metrics, sys\n"
        "from bitfront.api.routes import plugins\nplugins._all()\n"
        f"loaded = set({heavy}) & set(sys.modules)\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_plugins_are_listed_with_schemas(client):
    answer = client.get("/v1/plugins").json()
    fisher = next(p for p in answer["kinds"]["estimators"] if p["name"] == "fisher")
    assert fisher["parameters"]["properties"]["labels"] == {"type": "string", "default": "model"}
    assert {f["name"] for f in answer["formats"]} == set(catalogue())
    assert next(f for f in answer["formats"] if f["name"] == "int4_g64")["bits_per_weight"] == 4.5


def test_an_estimate_counts_measurements_and_tokens(client):
    calibration = {"source": "org/text@main", "n_sequences": 16, "sequence_length": 100}
    evaluation = {"source": "org/text@main", "n_sequences": 10, "sequence_length": 50}
    body = {**BODY, "calibration": calibration, "evaluation": evaluation, "n_finalists": 3}
    answer = client.post("/v1/estimate", json=body).json()
    # finalists, and each of four formats everywhere
    assert answer["n_measurements"] == {"calibration": 8, "evaluation": 3 + 4}
    assert answer["n_tokens"] == {"calibration": 8 * 4 * 100, "evaluation": 7 * 10 * 50}
    assert answer["n_estimator_tokens"] == 1600
    assert answer["model"] is None


def test_a_study_measures_at_most_what_its_estimate_says(client):
    problem, measure = interacting_study()
    menu = [each.name for each in problem.space.formats]
    body = {**BODY, "formats": menu, "n_finalists": 2}
    for n_trials in (1, 5, 6, 12):
        answer = client.post("/v1/estimate", json={**body, "n_trials": n_trials}).json()
        study = Study("org/tiny", Budget.parse("4bpw"), formats=tuple(menu), n_trials=n_trials)
        wanted = n_wanted(SimpleNamespace(study=study, problem=problem))
        trials = run_search(SEARCHES.build("random"), problem, measure, wanted)
        assert answer["n_measurements"]["calibration"] == wanted
        again = len(finalists(trials, problem, 2))
        assert len(menu) < again <= answer["n_measurements"]["evaluation"] <= wanted


def test_an_estimate_counts_every_format_of_caches(client):
    cache = {"formats": ["int2_g64", "int4_g32"], "window": 8}
    body = {**BODY, "formats": ["int2_g64", "int8_g64"], "kv_cache": cache, "budget": "9MB"}
    told = client.post("/v1/estimate", json={**body, "n_trials": 1}).json()
    assert told["n_measurements"] == {"calibration": 3 + 1, "evaluation": 3 + 1}


def safetensors(tensors):
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(offset)


def test_an_estimate_knows_a_local_model_by_its_headers(client, bench):
    folder = bench.settings.model_roots[0] / "small"
    folder.mkdir()
    tensors = {"model.embed_tokens.weight": (100, 64), "model.norm.weight": (64,)}
    tensors |= {"model.layers.0.mlp.up_proj.weight": (128, 64)}
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    answer = client.post("/v1/estimate", json={**BODY, "model": "small"}).json()["model"]
    assert answer["n_parameters"] == 6400 + 64 + 8192
    assert (answer["n_layers"], answer["n_layer_parameters"]) == (1, 8192)
    assert answer["bank_bytes"]["int4_g64"] == named("int4_g64").nbytes((128, 64))
    assert answer["seconds_at_least"]["cpu"] > 0
    bound = {"formats": ["int4_g64_sym", "nvfp4"], "runtime": "vllm", "pinned": None}
    held = client.post("/v1/estimate", json={**BODY, "model": "small", **bound}).json()["model"]
    # 64 columns are half of the tile that nvfp4 needs there
    assert held["bank_bytes"] == {
        "int4_g64_sym": named("int4_g64_sym").nbytes((128, 64)),
        "nvfp4": 0,
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 8,
        (26_000_000).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"{\xff\xff}",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        b"\x10" + bytes(7) + b'{"a":{"shape":1}',
        safetensors({"a": (2, 2)})[:-1],
        safetensors({"a": (2, 2)}).replace(b"[2, 2]", b"[-2,2]"),
        safetensors({"a": (2, 2)}).replace(b"[0, 8]", b"[8, 0]"),
        safetensors({"a": (2, 2)}).replace(b"[2, 2]", b"[1e9] "),
    ],
    ids=range(12),
)
def test_headers_that_cannot_be_are_refused(client, bench, data):
    folder = bench.settings.model_roots[0] / "small"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(InvalidModel):
        weights.read(folder)
    answer = client.post("/v1/estimate", json={**BODY, "model": "small"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_model")


def test_workers_show_what_they_hold(client, bench):
    study = bench.study()
    bench.store.queue.seen("worker-1", "cpu", "local", "0.1")
    bench.store.queue.claim("worker-1", ("cpu",))
    bench.study()
    bench.store.queue.claim("worker-2", ("cpu",))
    answer = client.get("/v1/workers").json()
    (worker,) = answer["items"]
    assert (worker["name"], worker["queue"], worker["transport"]) == ("worker-1", "cpu", "local")
    assert [(t["study_id"], t["stage"], t["attempts"]) for t in worker["tasks"]] == [
        (study.id, "prepare", 1)
    ]
    assert [task["worker"] for task in answer["adrift"]] == ["worker-2"]


def test_only_administrators_see_workers(bench):
    assert bench.client(key=bench.key("a")).get("/v1/workers").status_code == 403
    assert bench.client(key=bench.key("b", "admin")).get("/v1/workers").status_code == 200


def test_metrics_tell_of_requests_tasks_and_studies(bench):
    app, study = bench.app(), bench.study()
    bench.client(app).get(f"/v1/studies/{study.id}")
    bench.client(app).get("/nowhere/at/all")
    bench.store.queue.seen("worker-1", "cpu", "local", "0.1")
    metrics = TestClient(create_metrics_app(app))
    text = metrics.get("/metrics").text
    for line in (
        'bitfront_requests_total{method="GET",route="/v1/studies/{study_id}",status="200"} 1.0',
        'bitfront_requests_total{method="GET",route="none",status="404"} 1.0',
        'bitfront_tasks{queue="cpu",stage="prepare",state="WAITING"} 1.0',
        'bitfront_studies{state="WAITING"} 1.0',
        'bitfront_workers{queue="cpu",transport="local"} 1.0',
        "bitfront_stale_results_total 0.0",
        "bitfront_database_up 1.0",
    ):
        assert line in text.splitlines(), text
    assert study.id not in text
