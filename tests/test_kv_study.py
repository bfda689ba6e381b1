"""One budget over weights and the KV cache, from the command line to a generating model."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from bitfront.cli import app
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.packed_cache import PackedCache
from bitfront.report.points import encoded
from bitfront.results import Results
from bitfront.run import export_checkpoint

LENGTH = 72


@pytest.fixture(scope="module")
def finished(tiny_folder, calibration_file, evaluation_file, tmp_path_factory):
    """A results folder and the checkpoint of its answer."""
    out = tmp_path_factory.mktemp("kv")
    run = CliRunner().invoke(
        app,
        [
            *("search", str(tiny_folder), "--budget", "175KB", "--formats", "int2_g32,int4_g32"),
            *("--calibration", str(calibration_file), "--evaluation", str(evaluation_file)),
            *("--kv-formats", "int2_g32,int8_g32,bf16", "--kv-at", f"b2c{LENGTH}"),
            *("--kv-window", "8", "--kv-sinks", "2", "--pin", "int8_g32", "--n-trials", "7"),
            *("--n-sequences", "2", "--n-search-sequences", "2", "--n-evaluation-sequences", "2"),
            *("--sequence-length", str(LENGTH), "--n-finalists", "3"),
            *("--out", str(out / "results"), "--checkpoint", str(out / "checkpoint"), "--json"),
        ],
    )
    assert run.exit_code == 0, run.output
    return Results(out / "results"), out / "checkpoint"


def test_the_answer_is_within_the_budget_and_chooses_for_both(finished):
    results, _ = finished
    best = results.front().best("kl", bytes=175_000)
    cache = results.space.kv_cache
    assert best.values["bytes"] <= 175_000
    assert 0 < best.values["cache_bytes"] < results.space.cache_bytes_at_16_bits
    expected = sum(
        cache.nbytes(x.cache, x.shape[0], named(best.allocation.formats[x.name]))
        for x in results.space.layers
        if x.cache
    )
    assert best.values["cache_bytes"] == expected


def test_the_front_and_its_page_show_the_caches(finished):
    results, _ = finished
    header, first, *_ = encoded(results.front(), "csv").decode().splitlines()
    assert header.split(",")[9] == "cache_bytes"
    assert "self_attn.k_cache" in first
    page = (results.directory / "report.html").read_text()
    assert "KV MB" in page
    assert "self_attn.v_cache" in page


def test_two_lines_make_the_cache_that_was_measured(finished):
    results, folder = finished
    best = results.front().best("kl", bytes=175_000)
    model = AutoModelForCausalLM.from_pretrained(folder)
    cache = PackedCache.of(model)
    prompt = AutoTokenizer.from_pretrained(folder)("Alice had" * 8, return_tensors="pt")
    tokens = prompt["input_ids"][:, :8].repeat(2, 1)
    n_new = LENGTH + 1 - tokens.shape[1]  # the last token is never put into the cache
    made = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        past_key_values=cache,
        min_new_tokens=n_new,
        max_new_tokens=n_new,
        do_sample=False,
    )
    assert made.shape == (2, LENGTH + 1)
    assert cache.nbytes == best.values["cache_bytes"]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = sum(t.numel() * t.itemsize for t in map(file.get_tensor, file.keys()))
    assert stored + cache.nbytes == best.values["bytes"]


def test_the_checkpoint_verifies_with_its_cache(finished):
    _, folder = finished
    run = CliRunner().invoke(app, ["verify", str(folder)])
    assert run.exit_code == 0, run.output
    assert "as recorded" in run.output.lower()
    config = json.loads((folder / "config.json").read_text())
    assert set(config["quantization_config"]["kv_cache"]["formats"].values()) - {"bf16"}


def test_other_exporters_refuse_a_quantized_cache(finished, tmp_path):
    results, _ = finished
    best = results.front().best("kl", bytes=175_000)
    with pytest.raises(InvalidArgument, match="only the exporter packed"):
        export_checkpoint(results.study, best, tmp_path / "out", "fake_quant", results.directory)
