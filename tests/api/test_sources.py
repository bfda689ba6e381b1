"""Hostile requests: refused with the right code, and nothing is stored of them."""

import json
import math
import os
import socket

import pytest

GOOD = {"model": "org/tiny@main", "budget": "4.25bpw"}

NO_PLACES = [
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/model",
    "file:///etc/passwd",
    "file:model",
    "s3://bucket/model",
    "git+https://example.com/a.git",
    "ftp://example.com/a",
    "//example.com/share",
    "\\\\host\\share",
    "..\\secret",
    "/etc/passwd",
    "/",
    "/proc/self/environ",
    "~root/.ssh",
    "~/model",
    "..",
    "../secret",
    "../secret/model",
    "small/../../secret",
    "small/..",
    "./small",
    ".hidden/model",
    "a/b/c/d",
    "org",
    "org/",
    "/org/name",
    "org//name",
    "org/name/",
    "org/..",
    "org/na..me",
    "%2e%2e/secret",
    "org/%2e%2e",
    "..%2f..%2fetc",
    "org/name;../",
    ";../secret",
    "org/name\x00",
    "small\x00.gguf",
    "org/name\n",
    "\norg/name",
    "org/name@",
    "org/name@a@b",
    "org/name@../x",
    "org/name@a b",
    "org/name",
    "org/name:config",
    "org/name@main:config",
    "ｏrg/name",
    "org/nämé",
    "org/name\u202e",
    "org/" + "a" * 200,
    "a" * 5_000,
    "",
    " ",
    "$(id)/x",
    "`id`/x",
    "org/name|id",
    "org/name&x=1",
    "org/name?x",
    "org/name#x",
    "link-out",
    "small/link.txt/../x",
    "weights.bin",
    "weights.pt",
    "weights.txt",
    "-rf/x",
    "{org}/name",
]
"""Models that are none of the hub and of no root."""

NO_VALUES = [
    {"budget": "0bpw"},
    {"budget": "-1bpw"},
    {"budget": "nan bpw"},
    {"budget": "infbpw"},
    {"budget": "4"},
    {"budget": "4 parsecs"},
    {"budget": 4},
    {"budget": "1e999B"},
    {"budget": "9" * 400 + "B"},
    {"budget": "4bpw,"},
    {"budget": "4bpw,3bpw"},
    {"budget": "4bpw@b1"},
    {"budget": "4ms@b0"},
    {"budget": "4ms@b1c0"},
    {"budget": "4ms@c512"},
    {"budget": ",".join(["1bpw"] * 6)},
    {"costs": ["memory", "latency:table=/etc/passwd"]},
    {"costs": ["memory", "latency:table=../secret/model/config.json"]},
    {"costs": ["memory", "latency:table=link.txt"]},
    {"costs": ["memory", "latency:table=a.txt"]},
    {"costs": ["memory", {"name": "latency", "params": {"table": "none.json"}}]},
    {"costs": ["memory", "latency:batch=one"]},
    {"items": "/etc/passwd"},
    {"items": "a.txt"},
    {"items": ""},
    {"second": {"calibration": "a.txt"}},
    {"second": {"calibration": "a.txt", "evaluation": "../secret/a.txt"}},
    {"second": {"calibration": "a.txt", "evaluation": "a.txt"}},
    {"calibration": "a.txt", "evaluation": "a.txt"},
    {"formats": []},
    {"formats": ["int4_g64", "int4_g64"]},
    {"formats": ["int4_g65"]},
    {"formats": "int4_g64"},
    {"formats": ["int4_g64"] * 65},
    {"quantizer": "rtn:x=1"},
    {"quantizer": "../../os"},
    {"quantizer": "base"},
    {"quantizer": {"name": "rtn", "params": {"__class__": 1}}},
    {"estimator": "fisher:labels=3"},
    {"estimator": "os.system"},
    {"estimator": "fisher:labels"},
    {"searches": []},
    {"searches": ["nsga2:population_size=many"]},
    {"searches": [{"name": "random", "params": {"a": {"b": 1}}}]},
    {"searches": ["random"] * 17},
    {"costs": ["roofline"]},
    {"costs": ["memory", "roofline:device=3"]},
    {"n_trials": 0},
    {"n_trials": -1},
    {"n_trials": 100_001},
    {"n_trials": 1.5},
    {"n_trials": "5"},
    {"n_trials": True},
    {"n_trials": 10**30},
    {"n_trials": None},
    {"max_minutes": math.nan},
    {"max_minutes": math.inf},
    {"max_minutes": -1},
    {"max_minutes": 0},
    {"patience": 0},
    {"seed": -1},
    {"seed": 2**32},
    {"n_parallel": 0},
    {"n_finalists": 0},
    {"n_pairs": -1},
    {"tied": "yes"},
    {"tied": 1},
    {"pinned": "int9"},
    {"dtype": "float16"},
    {"device": "cuda:1"},
    {"revision": "../x"},
    {"revision": "a" * 101},
    {"model": "org/name@main", "revision": "main"},
    {"calibration": {"source": "org/text@main", "n_sequences": 0}},
    {"calibration": {"source": "org/text@main", "sequence_length": 7}},
    {"calibration": {"source": "org/text@main", "n_sequences": 10**9}},
    {"calibration": {"source": "org/text@main", "path": "/etc/passwd"}},
    {"evaluation": None},
    {"owner": "root"},
    {"state": "COMPLETE"},
    {"id": "0" * 32},
    {"trust_remote_code": True},
    {"model": None},
    {"model": ["org/name"]},
    {"model": {"$ne": ""}},
]


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Addresses that this process tried to reach; there must be none."""
    places = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, place: places.append(place))
    yield
    assert not places


def laid_out(bench):
    """A client of an installation with a model, a text, a secret beside them, and links to it."""
    models, (texts,) = bench.settings.model_roots[0], bench.settings.data_roots
    secret = bench.settings.home / "secret"
    for folder in (models / "small", secret / "model"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    for name in ("weights.bin", "weights.pt", "weights.txt", "weights.gguf"):
        (models / name).write_bytes(b"x")
    for name in ("a.txt", "a.pkl", "a.py"):
        (texts / name).write_text("x")
    (models / "link-out").symlink_to(secret / "model")
    (models / "hollow").mkdir()
    (models / "hollow" / "model.safetensors").symlink_to(secret / "model" / "config.json")
    (texts / "link.txt").symlink_to(secret / "model" / "config.json")
    (texts / "loop.txt").symlink_to(texts / "loop.txt")
    return bench.client()


@pytest.fixture
def hostile(bench):
    return laid_out(bench)


@pytest.fixture(scope="module")
def refusing(untouched):
    return laid_out(untouched)


def post(client, body, path="/v1/studies"):
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    return client.post(path, content=json.dumps(body), headers=headers)


def refused(client, bench, body, statuses=(422,)):
    answer = post(client, body)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert bench.store.studies.page() == []
    assert post(client, body, "/v1/estimate").status_code == answer.status_code


def test_there_are_enough_of_them():
    assert len(NO_PLACES) + len(NO_VALUES) >= 100


@pytest.mark.parametrize("model", [*NO_PLACES, "hollow"], ids=ascii)
def test_models_from_elsewhere_are_refused(refusing, untouched, model):
    refused(refusing, untouched, {**GOOD, "model": model})


@pytest.mark.parametrize(
    "text",
    [t for t in NO_PLACES if t != "org/name@main:config" and "weights" not in t]
    + ["link.txt", "loop.txt", "a.pkl", "a.py", "b.txt", "org/name:b:c", "org/a@main:b:c:d"],
    ids=ascii,
)
def test_texts_from_elsewhere_are_refused(refusing, untouched, text):
    refused(refusing, untouched, {**GOOD, "calibration": text})


@pytest.mark.parametrize("change", NO_VALUES, ids=lambda change: ascii(change)[:60])
def test_values_that_no_study_has_are_refused(refusing, untouched, change):
    refused(refusing, untouched, {**GOOD, **change})


@pytest.mark.parametrize(
    ("model", "stored", "revision"),
    [
        ("Org-1/na_me.v2@v1.0", "Org-1/na_me.v2", "v1.0"),
        ("org/name@main", "org/name", "main"),
        ("org/name@refs/pr", "org/name", "refs/pr"),
        ("small", "models/small", None),
        ("weights.gguf", "models/weights.gguf", None),
    ],
)
def test_models_of_the_hub_and_of_the_roots_are_taken(hostile, bench, model, stored, revision):
    answer = post(hostile, {**GOOD, "model": model})
    assert answer.status_code == 202, answer.text
    study = bench.store.studies.page()[0].study
    home = f"{bench.settings.home.resolve()}{os.sep}"
    assert (study.model.removeprefix(home), study.revision) == (stored, revision)


def test_absolute_paths_within_a_root_are_taken(hostile, bench):
    model = bench.settings.model_roots[0] / "small"
    text = bench.settings.data_roots[0] / "a.txt"
    answer = post(hostile, {**GOOD, "model": str(model), "calibration": str(text)})
    assert answer.status_code == 202, answer.text


def test_times_and_tables_below_a_data_folder_are_taken(hostile, bench):
    table = bench.settings.data_roots[0] / "h200.json"
    table.write_text("{}")
    costs = ["memory", "latency:table=h200.json,batch=2", "bops"]
    budget = "4.25bpw,12.5ms@b2c2048,3Tbops"
    answer = post(hostile, {**GOOD, "budget": budget, "costs": costs})
    assert answer.status_code == 202, answer.text
    study = bench.store.studies.page()[0].study
    assert str(study.budget) == budget
    assert study.costs[1].params == {"table": str(table.resolve()), "batch": 2}


def test_a_base_whose_own_base_lies_elsewhere_is_refused(hostile, bench, tmp_path):
    folder = bench.settings.model_roots[0] / "offset"
    folder.mkdir()
    for place in (str(tmp_path), "org/base@main", "small/../..", str(folder)):
        note = {"source": place, "digest": "0" * 64, "bytes": 1}
        (folder / "bitfront.json").write_text(json.dumps({"formats": {}, "base": note}))
        refused(hostile, bench, {**GOOD, "base": "offset"})
    note = {"source": "small", "digest": "0" * 64, "bytes": 1}
    (folder / "bitfront.json").write_text(json.dumps({"formats": {}, "base": note}))
    assert post(hostile, {**GOOD, "base": "offset"}).status_code == 202


def test_second_texts_and_items_below_a_data_folder_are_taken(hostile, bench):
    items = bench.settings.data_roots[0] / "piqa.jsonl"
    items.write_text("{}")
    (bench.settings.data_roots[0] / "b.txt").write_text("b")
    second = {"calibration": {"source": "a.txt", "n_sequences": 2}, "evaluation": "b.txt"}
    answer = post(hostile, {**GOOD, "second": second, "items": "piqa.jsonl"})
    assert answer.status_code == 202, answer.text
    study = bench.store.studies.page()[0].study
    assert (study.second.calibration.n_sequences, study.second.layers) == (2, "auto")
    assert study.items == str(items.resolve())
    again = post(hostile, answer.json()["request"])
    assert again.status_code == 202, again.text


def test_without_the_hub_only_the_roots_are_left(hostile, bench):
    bench.settings.hub = False
    refused(hostile, bench, GOOD)
    (bench.settings.data_roots[0] / "b.txt").write_text("b")
    texts = {"calibration": "a.txt", "evaluation": "b.txt"}
    assert post(hostile, {**GOOD, "model": "small", **texts}).status_code == 202


def test_names_without_a_revision_are_told_how_to_name_one(hostile):
    wrong = post(hostile, {**GOOD, "model": "org/tiny"}).json()["detail"]
    assert wrong == (
        "Model 'org/tiny' names no revision: give org/tiny@COMMIT, or a branch or tag such as "
        "@main, of which the study keeps the commit."
    )
    wrong = post(hostile, {**GOOD, "calibration": "org/text:small:test"}).json()["detail"]
    assert "give org/text@COMMIT:small:test, or" in wrong


def test_a_revision_may_have_a_field_of_its_own(hostile, bench):
    answer = post(hostile, {**GOOD, "model": "org/name", "revision": "v1"})
    assert answer.status_code == 202, answer.text
    study = bench.store.studies.page()[0].study
    assert (study.model, study.revision) == ("org/name", "v1")


def test_messages_name_the_remedy(hostile):
    wrong = post(hostile, {**GOOD, "estimator": "fischer"}).json()
    assert wrong["code"] == "unknown_plugin"
    assert "Did you mean 'fisher'?" in wrong["detail"]
    wrong = post(hostile, {**GOOD, "formats": ["int4_g63"]}).json()
    assert "Did you mean" in wrong["detail"]
