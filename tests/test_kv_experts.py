"""One front over the experts of a mixture and its KV cache, from the text to a generating model."""

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from bitfront import Budget, Choice, Study, TextSource, export_checkpoint, run_study
from bitfront.experts import TokensSeen
from bitfront.formats import named
from bitfront.kv_cache import KVCache
from bitfront.models.packed_cache import PackedCache
from bitfront.results import Results

LENGTH = 64
CACHE = KVCache(("int2_g32", "bf16"), batch=4, context=LENGTH, window=8, sinks=2)


@pytest.fixture(scope="module")
def searched(moe_folder, calibration_file, evaluation_file, tmp_path_factory):
    """A study, its front, and its results folder."""
    study = Study(
        model=str(moe_folder),
        budget=Budget.parse("175KB"),
        calibration=TextSource(str(calibration_file), 4, LENGTH),
        evaluation=TextSource(str(evaluation_file), 1, LENGTH),
        formats=("int2_g64", "int4_g64"),
        searches=(Choice("sweep"),),
        n_trials=6,
        n_search_sequences=1,
        n_finalists=2,
        pinned="int8_g32",
        dtype="float32",
        kv_cache=CACHE,
    )
    folder = tmp_path_factory.mktemp("results")
    return study, run_study(study, folder), Results(folder)


def test_experts_and_caches_choose_under_one_budget(searched):
    study, front, results = searched
    chosen = front.best("kl", **study.budget.bounds())
    assert chosen.values["bytes"] <= 175_000
    space = results.space
    caches = {x.name for x in space.layers if x.cache}
    routed = {x.name for x in space.layers if x.active < 1}
    assert (len(caches), len(routed)) == (2 * 2, 2 * 8 * 2)
    formats = chosen.allocation.formats
    assert {formats[name] for name in caches} <= set(CACHE.formats)
    assert {formats[name] for name in routed} == {"int2_g64", "int4_g64"}
    # Scores of all of them are in nats: of what no text showed, by the others.
    table = results.load_table("fisher_directional", space)
    assert (table.values[space.allowed] > 0).all()
    assert table.source.endswith(", caches by cache_fisher")
    seen = TokensSeen.load(results.directory / "experts.json")
    assert f"{seen.n_unseen} of 16 experts saw too few" in table.note


def test_the_checkpoint_has_the_bytes_that_were_counted_and_generates(searched, tmp_path):
    study, front, results = searched
    chosen = front.best("kl", **study.budget.bounds())
    export_checkpoint(study, chosen, tmp_path / "out", "packed", results.directory)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    cache = PackedCache.of(model)
    held = {x: f for x, f in chosen.allocation.formats.items() if x.endswith("_cache")}
    tokens = torch.arange(4 * LENGTH).reshape(4, LENGTH) * 7 % 512
    with torch.no_grad():
        first = model(tokens[:, :-1], past_key_values=cache).logits
        last = model(tokens[:, -1:], past_key_values=cache).logits
    assert first.isfinite().all()
    assert last.isfinite().all()
    assert cache.nbytes == chosen.values["cache_bytes"]
    sizes = (CACHE.nbytes(x[-7], 32, named(f)) for x, f in held.items())
    assert cache.nbytes == sum(sizes)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        stored = sum(t.numel() * t.itemsize for t in map(file.get_tensor, file.keys()))
    assert stored + cache.nbytes == chosen.values["bytes"]
