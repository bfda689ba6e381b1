"""Models and texts of the hub: fetched once at their revision; then no worker needs a network.

No hub is reachable here, so `hub.Hub` stands in for it: the real client libraries ask it.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hub import Hub
from safetensors.torch import load_file, save_file
from workers.test_full_disk import filled, small_disk
from workers.test_life import CHOICES, is_over, measured, until

import bitfront
from bitfront import TextSource, run_study
from bitfront.artifacts import Artifacts
from bitfront.errors import InvalidModel, InvalidText, StorageError
from bitfront.models.hub import fetched, located, needs_hub
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Stage, StudyState, TaskState
from bitfront.study import SecondText
from bitfront.workers.bench import Bench
from bitfront.workers.local import LocalWorkers

ROOT = Path(bitfront.__file__).parents[1]
GUARD = """
import os, socket, sys

def guarded(act):
    def refuse(*arguments, **options):
        is_local = arguments and getattr(arguments[0], "family", None) == socket.AF_UNIX
        who = "fetching" if "bitfront.workers.fetching" in sys.orig_argv else "other"
        if not is_local:
            with open(os.environ["GUARD_LOG"], "a") as log:
                log.write(who + "\\n")
            if who == "other":
                raise OSError("no network here")
        return act(*arguments, **options)
    return refuse

socket.getaddrinfo = guarded(socket.getaddrinfo)

class Guarded(socket.socket):
    connect = guarded(socket.socket.connect)
    connect_ex = guarded(socket.socket.connect_ex)

socket.socket = Guarded
"""
"""For `sitecustomize`: which processes use the network is written down, all but one are refused."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        yield hub


@pytest.fixture
def books(tmp_path, calibration_file, evaluation_file):
    """A data set of two splits."""
    folder = tmp_path / "books"
    folder.mkdir()
    names = {"train": calibration_file, "test": evaluation_file}
    for split, path in names.items():
        rows = [{"text": text, "page": 1} for text in path.read_text().split("\n\n")]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in names)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    )
    return folder


@pytest.fixture
def settings(tmp_path):
    url = f"sqlite:///{tmp_path / 'bitfront.db'}"
    Store(url).db.upgrade()
    return Settings(
        home=tmp_path / "home", database_url=url, artifacts_url=str(tmp_path / "artifacts")
    )


@pytest.fixture
def bench(settings):
    made = Bench(Store(settings.database), Artifacts(settings.artifacts), settings)
    yield made
    made.close()


@pytest.fixture
def base_folder(tiny_folder, tmp_path):
    """What the tiny Llama may have been before some steps more."""
    shutil.copytree(tiny_folder, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    noise = torch.Generator().manual_seed(0)
    held = load_file(path)
    near = {x: t + 1e-3 * torch.randn(t.shape, generator=noise) for x, t in held.items()}
    save_file(near, path, {"format": "pt"})
    return path.parent


def of_hub(study, revision="main"):
    """The study with its model and texts on the hub."""
    texts = {
        name: replace(getattr(study, name), source=f"org/books@{revision}:default:{split}")
        for name, split in (("calibration", "train"), ("evaluation", "test"))
    }
    return replace(study, model="org/tiny", revision=revision, **texts)


def test_a_revision_is_what_is_fetched_and_a_branch_is_its_commit(
    hub, bench, books, tiny_folder, tiny_study, tmp_path
):
    (model, text) = ("models/org/tiny", "datasets/org/books")
    first, first_text = hub.push(model, tiny_folder), hub.push(text, books)
    newer = tmp_path / "newer"
    newer.mkdir()
    for path in tiny_folder.iterdir():
        (newer / path.name).write_bytes(path.read_bytes())
    (newer / "generation_config.json").write_text("{}")
    second, second_text = hub.push(model, newer), hub.push(text, books)
    pinned = of_hub(tiny_study(4, 4))
    train = f"org/books@{first_text}:default:train"
    pinned = replace(pinned, revision=first, calibration=TextSource(train, 4, 64))
    for study, commit, texts in (
        (pinned, first, [train, f"org/books@{second_text}:default:test"]),
        (of_hub(tiny_study(4, 4)), second, [f"org/books@{second_text}:default:train"]),
    ):
        stored, _ = bench.store.studies.create(study, "anna")
        settled = bench.request(stored.id, lambda _event: None)
        assert settled.revision == commit
        assert [settled.calibration.source, settled.evaluation.source][: len(texts)] == texts
        here = bench.study(stored.id)
        config = (tiny_folder if commit == first else newer) / "generation_config.json"
        found = bench.folder / stored.id / "hub" / "model" / "generation_config.json"
        assert found.read_bytes() == config.read_bytes()
        assert here.model == str(found.parent)
    # A second attempt of the same study takes what is there, though the branch moved.
    hub.push(model, tiny_folder)
    assert bench.request(stored.id, lambda _event: None).revision == second


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"revision": "no-such-tag"}, InvalidModel, r"Cannot get 'org/tiny@no-such-tag'"),
        (
            {"evaluation": TextSource("org/books@main:default:nowhere")},
            InvalidText,
            r"Cannot load 'org/books@[0-9a-f]{40}:default:nowhere'",
        ),
        ({"base": "org/base@main"}, InvalidModel, r"^org/base@[0-9a-f]{40} holds offsets to anoth"),
        (
            {"calibration": TextSource("/")},
            InvalidText,
            "^/ is a folder of images, and org/tiny reads a text: give that",
        ),
    ],
    ids=["revision", "split", "offsets", "images"],
)
def test_what_the_hub_does_not_have_is_one_line(
    hub, bench, books, tiny_folder, base_folder, tiny_study, change, kind, message
):
    note = {"source": str(tiny_folder), "digest": "0" * 64, "bytes": 1}
    (base_folder / "bitfront.json").write_text(json.dumps({"base": note}))
    hub.push("models/org/tiny", tiny_folder)
    hub.push("models/org/base", base_folder)
    hub.push("datasets/org/books", books)
    stored, _ = bench.store.studies.create(replace(of_hub(tiny_study(4, 4)), **change), "anna")
    with pytest.raises(kind, match=message) as caught:
        bench.request(stored.id, lambda _event: None)
    assert "\n" not in str(caught.value)


def test_whatever_is_named_on_the_hub_is_found_in_the_folder(tiny_study, digit_files, tmp_path):
    def texts(source):
        return {x: TextSource(source, 4, 64) for x in ("calibration", "evaluation")}

    plain = tiny_study(4, 4)
    for change in (
        {"model": "org/tiny"},
        {"base": "org/base@main"},
        {"second": SecondText(**texts("org/books@main"))},
        texts("org/books@main"),
    ):
        study = replace(plain, **change)
        assert needs_hub(study)
        assert not needs_hub(located(study, tmp_path))
    pictures = replace(plain, **texts(str(digit_files)))
    assert not needs_hub(pictures)
    assert located(pictures, tmp_path) == pictures
    both = located(replace(plain, second=SecondText(**texts("org/books@main"))), tmp_path)
    assert both.second.evaluation.source == str(tmp_path / "second_evaluation.jsonl")
    assert both.calibration == plain.calibration


def test_a_worker_without_the_hub_has_its_cache(hub, bench, tiny_folder, tiny_study):
    commit = hub.push("models/org/tiny", tiny_folder)
    study = replace(tiny_study(4, 4), model="org/tiny", revision="main")
    ids = [bench.store.studies.create(study, "anna")[0].id for _ in range(2)]
    bench.request(ids[0], lambda _event: None)
    n_asked = len(hub.asked)
    bench.settings.hub = False
    assert bench.request(ids[1], lambda _event: None).revision == commit
    assert len(hub.asked) == n_asked


def test_a_model_that_is_too_large_is_refused_before_it_is_fetched(
    hub, bench, tiny_folder, tiny_study, tmp_path, monkeypatch
):
    hub.push("models/org/tiny", tiny_folder)
    study = replace(tiny_study(4, 4), model="org/tiny", revision="main")
    stored, _ = bench.store.studies.create(study, "anna")
    bench.settings.max_model_gb = 1e-6
    with pytest.raises(InvalidModel, match=r"org/tiny@main has 0\.00\d+ GB .*, of at most 1e-06"):
        bench.request(stored.id, lambda _event: None)
    bench.settings.max_model_gb = 0.0
    with small_disk(tmp_path / "small", 1) as disk:
        filled(disk)
        monkeypatch.setenv("HF_HOME", str(disk / "cache"))
        with pytest.raises(StorageError, match=r"Cannot download org/tiny@main: .* has 0 GB free"):
            bench.request(stored.id, lambda _event: None)
    assert not any(asked.startswith("GET") and "/resolve/" in asked for asked in hub.asked)


def test_a_request_that_is_cut_short_is_fetched_again(tiny_study, tmp_path):
    """No file may have more than 16 bytes: as if the disk were full."""

    def fetch(limit):
        command = [sys.executable, "-m", "bitfront.workers.fetching", str(tmp_path / "hub"), "0"]
        return subprocess.run(
            command,
            input=tiny_study(4, 4).to_json(),
            text=True,
            capture_output=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )

    (tmp_path / "hub").mkdir()
    said = fetch(16)
    assert fetched(tmp_path / "hub") is None
    error = json.loads(said.stdout)
    assert (error["error"], said.stderr) == ("StorageError", "")
    assert "request.json: File too large" in error["detail"]
    fetch(resource.RLIM_INFINITY)
    assert fetched(tmp_path / "hub") == tiny_study(4, 4)


def test_a_folder_that_cannot_be_written_is_one_line(hub, bench, tiny_folder, tiny_study):
    hub.push("models/org/tiny", tiny_folder)
    study = replace(tiny_study(4, 4), model="org/tiny", revision="main")
    stored, _ = bench.store.studies.create(study, "anna")
    folder = bench.folder / stored.id / "hub"
    folder.mkdir(parents=True)
    (folder / "model").write_text("in its way")
    with pytest.raises(StorageError, match=r"^Cannot write .*/model: File exists\.$"):
        bench.request(stored.id, lambda _event: None)


def test_a_name_of_the_hub_is_never_a_path(hub, bench, tiny_study, tmp_path, monkeypatch):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "notes").write_text("secret")
    monkeypatch.chdir(tmp_path)
    text = TextSource("private/notes@main:default:train")
    for change in ({"model": "private/notes", "revision": "main"}, {"calibration": text}):
        stored, _ = bench.store.studies.create(replace(tiny_study(4, 4), **change), "anna")
        with pytest.raises((InvalidModel, InvalidText), match="Cannot get 'private/notes@main'"):
            bench.request(stored.id, lambda _event: None)


def test_fetching_ends_when_it_is_given_up(hub, bench, books, tiny_folder, tiny_study):
    """In the middle of a request that the hub never answers."""

    class Stopped(BaseException):
        pass

    fetching = []

    def stop(_event):
        if hub.asked:
            children = psutil.Process().children()
            fetching.extend(c for c in children if "bitfront.workers.fetching" in c.cmdline())
            raise Stopped

    hub.push("models/org/tiny", tiny_folder)
    hub.push("datasets/org/books", books)
    stored, _ = bench.store.studies.create(of_hub(tiny_study(4, 4)), "anna")
    with hub.silent(), pytest.raises(Stopped):
        bench.request(stored.id, stop)
    assert len(fetching) == 1
    assert not fetching[0].is_running()
    assert len(hub.asked) == 1
    assert not (bench.folder / stored.id / "hub" / "request.json").exists()


def test_after_fetching_no_worker_needs_a_network(
    hub, bench, books, settings, tiny_folder, base_folder, tiny_study, tmp_path
):
    """A second machine, with no cache and the hub gone, does all but the first stage."""
    hub.push("models/org/tiny", tiny_folder)
    base = hub.push("models/org/base", base_folder)
    hub.push("datasets/org/books", books)
    request = tiny_study(4, 4, device="cpu", dtype="float32", **CHOICES)
    same = {name: TextSource(str(books / f"{split}.jsonl"), 4, 64)
            for name, split in (("calibration", "train"), ("evaluation", "test"))}  # fmt: skip
    front = run_study(replace(request, **same, base=str(base_folder)), tmp_path / "alone")
    store = bench.store
    study, _ = store.studies.create(replace(of_hub(request), base="org/base@main"), "anna")
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "guard.log"
    environment = {
        "BITFRONT_DATABASE_URL": settings.database,
        "BITFRONT_ARTIFACTS_URL": settings.artifacts,
        "BITFRONT_LEASE_SECONDS": "20",
        "GUARD_LOG": str(log),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }

    def machine(name):
        places = {"BITFRONT_HOME": str(tmp_path / name), "HF_HOME": str(tmp_path / f"{name}-hf")}
        return LocalWorkers(1, ["cpu"], {**environment, **places})

    def is_prepared():
        return store.activity.finished(study.id, Stage.PREPARE) or is_over(store, study.id)

    with machine("first"):
        until(is_prepared)
    hub.stop()
    with machine("second"):
        until(lambda: is_over(store, study.id))
        assert store.studies.get(study.id).state is StudyState.COMPLETE
        assert measured(store.trials.front(study.id).trials) == measured(front.trials)
        number = store.trials.front(study.id).trials[0].number
        store.checkpoints.create(study.id, number, "packed")
        until(lambda: store.checkpoints.of(study.id)[0].state is TaskState.COMPLETE)
    files = store.files.of(study.id)
    with bench.artifacts.open(files["checkpoints/0/bitfront.json"]) as file:
        # No place of a worker, which nobody else has.
        assert json.load(file)["base"]["source"] == f"org/base@{base}"
    assert store.studies.get(study.id).study.base == f"org/base@{base}"
    assert set(log.read_text().split()) == {"fetching"}
