"""Folders of images, files of samples and bases in requests: what is taken, what is refused."""

import json
import shutil
import uuid

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bitfront import pictures
from bitfront.api import weights
from bitfront.formats import named
from bitfront.models.layers import search_space
from tests.api.test_catalogue import safetensors

BUDGET = {"budget": "4bpw", "n_search_sequences": 2}
N_TOKENS = 40
"""Of a sample of image and text."""


def images(folder, n, label=""):
    """So many tiny images, each of its own grey."""
    place = folder / label
    place.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        Image.new("L", (4, 4), index).save(place / f"{label}{index}.png")


@pytest.fixture
def here(bench, vit_folder):
    """Folder of images, samples and a text, beside one of models."""
    return laid_out(bench, vit_folder)


@pytest.fixture(scope="module")
def refusing(untouched, vit_folder):
    """A client, and what it may not name."""
    texts = laid_out(untouched, vit_folder)
    secret = untouched.settings.home / "secret"
    images(secret, 9)
    (texts / "out").symlink_to(secret)
    for name in ("holes", "cats", "twice", "both"):
        images(texts / name, 4, "cat" if name == "cats" else "")
    (texts / "holes" / "x.png").symlink_to(secret / "0.png")
    (texts / "empty").mkdir()
    (texts / "all" / "train").mkdir(parents=True)
    (texts / "empty" / "image.doc").write_text("x")
    (texts / "twice" / "labels.csv").write_text("x.png,3\ny.png,3\nx.png,4\n")
    (texts / "both" / "labels.csv").write_text("0.png,3\n")
    (texts / "both" / "labels.json").write_text('{"0.png": 3}')
    (texts / "bare.safetensors").write_bytes(safetensors({"ids": (4, 4)}))
    (texts / "cut.safetensors").write_bytes(b"\xff" * 20)
    return untouched.client()


def laid_out(bench, vit_folder):
    models, texts = bench.settings.model_roots[0], bench.settings.data_roots[0]
    for name, config in {
        "vit": json.loads((vit_folder / "config.json").read_text()),
        "llava": {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}},
        "llama": {"architectures": ["LlamaForCausalLM"]},
    }.items():
        (models / name).mkdir()
        (models / name / "config.json").write_text(json.dumps(config))
        (models / name / "model.safetensors").write_bytes(safetensors({"a.weight": (8, 8)}))
    for part, n in (("train", 5), ("val", 3)):
        for digit in (3, 7):
            images(texts / part, n, f"digit {digit}")
        tokens, pixels = torch.zeros(n, N_TOKENS).long(), torch.zeros(n, 3, 2, 2)
        rows = {"input_ids": tokens, "pixel_values": pixels}
        save_file(rows, texts / f"{part}.safetensors")
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text("x")
    return texts


def text(source, n=3):
    return {"source": source, "n_sequences": n}


def asked(client, **body):
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    return client.post("/v1/studies", json={**BUDGET, **body}, headers=headers)


@pytest.mark.parametrize(
    ("model", "ends", "task"),
    [
        ("vit", "", "auto"),
        ("vit", "", "images"),
        ("llava", ".safetensors", "auto"),
        ("llava", ".safetensors", "image-text"),
        ("org/any@main", "", "auto"),
        ("org/any@main", ".safetensors", "image-text"),
    ],
)
def test_what_a_model_that_sees_is_fed_is_taken(client, bench, here, model, ends, task):
    sources = {"calibration": text(f"train{ends}"), "evaluation": text(str(here / f"val{ends}"))}
    answer = asked(client, model=model, task=task, **sources)
    assert answer.status_code == 202, answer.text
    study = bench.store.studies.page()[0].study
    assert (study.calibration.source, study.evaluation.n_sequences) == (
        str((here / f"train{ends}").resolve()),
        3,
    )
    assert study.task == task
    assert asked(client, **answer.json()["request"]).status_code == 202


@pytest.mark.parametrize(
    ("model", "calibration", "evaluation", "said"),
    [
        (
            "vit",
            "a.txt",
            "val",
            "Images 'a.txt' cannot be used: the model reads a folder of images, give",
        ),
        ("vit", "org/a@main", "val", "Images 'org/a@main' cannot be used"),
        ("vit", "train", "nothing", "Images 'nothing' cannot be used"),
        ("vit", "train", "../secret", "Images '../secret' cannot be used"),
        ("vit", "train", "/etc", "Images '/etc' cannot be used"),
        ("vit", "train", "val.safetensors", "Images 'val.safetensors' cannot be used"),
        ("vit", "train", "train", "are one source"),
        ("vit", "train", "out", "Images 'out' cannot be used"),
        ("vit", "train", "holes", "x.png in the image folder is a link that leads out of it"),
        ("vit", "train", "empty", "has 0 images"),
        ("vit", "train", "cats", "Label 'cat' (subfolders of"),
        ("vit", "train", "twice", "has two labels for 'x.png', '3' and '4': remove one."),
        ("vit", "train", "both", "has labels.json and labels.csv: remove one of them."),
        ("llava", "train", "val", "Samples 'train' cannot be used: give a .safetensors file"),
        ("llava", "train.safetensors", "bare.safetensors", "(it has no input_ids): give"),
        ("llava", "train.safetensors", "cut.safetensors", "cannot be used (its header has"),
        ("llama", "train", "val", "Text 'train' cannot be used"),
        ("llama", "all/train", "val", "Text 'all/train' cannot be used: give"),
        ("org/any@main", "train", "a.txt", "Calibration is a folder of images, evaluation a text"),
        ("org/any@main", "train", "val.safetensors", "evaluation a .safetensors file"),
        ("org/any@main", "train", "train", "are one source"),
    ],
    ids=str,
)
def test_what_no_model_is_fed_is_one_line(
    refusing, untouched, model, calibration, evaluation, said
):
    body = {"model": model, "calibration": text(calibration), "evaluation": text(evaluation)}
    answer = asked(refusing, **body)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert untouched.store.studies.page() == []
    assert refusing.post("/v1/estimate", json={**BUDGET, **body}).status_code == 422


def test_too_few_are_counted_as_the_search_takes_them(client, here):
    """Those that trials measure come on top of those that estimators see."""
    body = {"model": "vit", "calibration": text("train", 8), "evaluation": text("val", 6)}
    assert asked(client, **body).status_code == 202
    told = asked(client, **body | {"calibration": text("train", 9)}).json()["detail"]
    assert "train has 10 images" in told
    assert "11 are needed" in told
    told = asked(
        client,
        model="llava",
        calibration=text("train.safetensors", 4),
        evaluation="val.safetensors",
    ).json()["detail"]
    assert told == "Samples 'train.safetensors' cannot be used: there are 5, 6 are needed."


def test_what_is_for_language_models_is_refused_with_others(client, here):
    body = {"model": "vit", "calibration": text("train"), "evaluation": text("val")}
    second = {"calibration": "a.txt", "evaluation": "a.txt"}
    told = asked(client, **body, second=second).json()["detail"]
    assert "are for language models: leave them out" in told
    told = asked(client, **body | {"model": "llama", "task": "images"}).json()["detail"]
    assert told == (
        "Model 'llama' is not for the task images (it is LlamaForCausalLM): leave out task."
    )


def test_a_kv_cache_is_searched_where_images_are_told_of_and_not_where_they_are_classified(
    client, here
):
    cache = {"formats": ["int4_g32"], "window": 4, "sinks": 2}
    told = {}
    for model, end in (("vit", ""), ("llava", ".safetensors")):
        body = {"model": model, "calibration": text(f"train{end}"), "evaluation": text(f"val{end}")}
        told[model] = asked(client, **body | {"budget": "1MB", "kv_cache": cache})
    assert told["llava"].json()["request"]["kv_cache"]["formats"] == ["int4_g32"]
    assert told["vit"].json()["detail"] == (
        "Model 'vit' is for images, and has no KV cache: leave out kv_cache."
    )


@pytest.mark.parametrize("model", ["llava", "org/any@main"])
def test_samples_that_end_before_a_key_is_quantized_are_refused_at_once(refusing, untouched, model):
    body = {"model": model, "calibration": text("train.safetensors"), "budget": "1MB"}
    body["evaluation"] = text("val.safetensors", 2)
    cache = {"formats": ["int4_g32", "int2_g16"], "window": 6, "sinks": 2}
    answer = asked(refusing, **body, kv_cache=cache)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"] == (
        "Sequences of 40 tokens end before keys are quantized: 2 sinks, a window of 6 and a group "
        "of 32 come first. Give sequences of more than 40 tokens, or a smaller window."
    )
    assert untouched.store.studies.page() == []


def test_labels_of_a_hostile_file_are_one_line(client, here):
    body = {"model": "vit", "calibration": text("train"), "evaluation": text("val")}
    for labels in (b"[" * 100_000, b'{"a": ' * 2_000, b"[1]", b"\xff", b'{"a":1,"a":2}', b""):
        (here / "val" / "labels.json").write_bytes(labels)
        answer = asked(client, **body)
        assert answer.status_code == 422, labels[:20]
        assert len(answer.json()["detail"]) < 400


def test_a_folder_of_too_many_files_is_not_looked_through(client, here, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FILES", 7)
    body = {"model": "vit", "calibration": text("train"), "evaluation": text("val")}
    assert "has more than 7 files" in asked(client, **body).json()["detail"]


def test_a_base_is_named_like_a_model(client, bench, here):
    body = {"model": "llama", "calibration": "a.txt", "evaluation": "b.txt"}
    assert asked(client, **body, base="org/base@main").status_code == 202
    assert bench.store.studies.page()[0].study.base == "org/base@main"
    told = asked(client, **body, base="org/base").json()["detail"]
    assert told.startswith("Base 'org/base' names no revision: give org/base@COMMIT, or a branch")
    bench.settings.hub = False
    told = asked(client, **body, base="org/base@main").json()["detail"]
    assert told.startswith("Base 'org/base@main' cannot be used: give a folder or .gguf file below")


@pytest.mark.parametrize("name", ["tiny_vit", "tiny_convnet"])
def test_an_estimate_counts_images_and_the_layers_that_a_search_finds(
    client, bench, here, name, request
):
    folder = request.getfixturevalue(f"{name.removeprefix('tiny_')}_folder")
    shutil.copytree(folder, bench.settings.model_roots[0] / name)
    body = {"model": name, "calibration": text("train", 4), "evaluation": text("val", 5)}
    body |= {"n_trials": 10, "n_finalists": 3, "formats": ["int8_channel", "int4_channel"]}
    told = client.post("/v1/estimate", json={**BUDGET, **body}).json()
    assert (told["unit"], told["n_estimator_tokens"]) == ("images", 4)
    assert told["n_tokens"] == {"calibration": 10 * 2, "evaluation": (3 + 2) * 5}
    model = request.getfixturevalue(name)
    space = search_space(model, (named("int8_channel"),), None, tied=True)
    found = weights.read(folder).layers(with_experts=True, n_classes=10).values()
    assert sorted(x.shape for x in found) == sorted(x.shape for x in space.layers)
    assert told["model"]["n_layers"] == len(space.layers)
    if name == "tiny_vit":
        assert told["model"]["flops"] == 2 * told["model"]["n_parameters"] * (20 + 25) * 16
    else:
        assert (told["model"]["flops"], told["model"]["seconds_at_least"]) == (None, {})


def test_an_estimate_counts_tokens_of_samples(client, here):
    body = {"model": "llava", "n_trials": 10, "n_finalists": 3}
    body |= {
        x: text(f"{y}.safetensors") for x, y in (("calibration", "train"), ("evaluation", "val"))
    }
    told = client.post("/v1/estimate", json={**BUDGET, **body}).json()
    assert told["unit"] == "tokens"
    assert told["n_tokens"] == {"calibration": 10 * 2 * N_TOKENS, "evaluation": 7 * 3 * N_TOKENS}
