"""Keys and values of models that see: the language model's alone, images' tokens included."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from multimodal import DATA, TASKS, loaded, with_longer_text, write_samples
from scipy.stats import spearmanr
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from bitfront import Budget, Study, TextSource
from bitfront.allocation import Allocation
from bitfront.cli import app
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.formats import named
from bitfront.inputs import prepare
from bitfront.kv_cache import KVCache
from bitfront.models.bank import WeightBank
from bitfront.models.cache_layers import find_caches, with_caches
from bitfront.models.caches import RoundedCaches
from bitfront.models.image_text import ImageText
from bitfront.models.layers import search_space
from bitfront.models.packed_cache import PackedCache
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.models.tasks import run, set_task
from bitfront.quantizers.rtn import Rtn
from bitfront.results import Results
from bitfront.sensitivity import ESTIMATORS
from bitfront.space import SearchSpace

MENU = ("int2_g16", "int4_g16", "bf16")
CACHE = KVCache(MENU, batch=2, context=44, window=4, sinks=2)


@pytest.fixture(scope="module", params=TASKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made(name):
    """A model with samples of 32 (Qwen2-VL) or 44 (LLaVA) tokens."""
    return with_longer_text(loaded(name), 3)


@pytest.fixture(scope="module")
def both(made, tmp_path_factory):
    """Some weights of every part with all caches, and the bank of these weights."""
    menu = (named("int2_channel"), named("int4_channel"))
    whole = search_space(made.module, menu, None, tied=False)
    whole = replace(whole, layers=whole.layers[::4])
    space = with_caches(whole, made.module, CACHE)
    return space, WeightBank.build(tmp_path_factory.mktemp("bank"), made.module, space, Rtn())


def caches_of(space):
    return [row for row, x in enumerate(space.layers) if x.cache]


@torch.no_grad()
def by_steps(module, cache, samples, task):
    """Logits of a model that reads a sample, its image too, token by token into a cache."""
    language, seen = module.model.language_model, {}
    hook = language.register_forward_pre_hook(lambda _m, _a, x: seen.update(x), with_kwargs=True)
    run(module, samples)
    hook.remove()
    places = seen["position_ids"]
    states = [
        language(
            inputs_embeds=seen["inputs_embeds"][:, [i]],
            position_ids=None if places is None else places[..., [i]],
            past_key_values=cache,
        ).last_hidden_state
        for i in range(task.length)
    ]
    return module.lm_head(torch.cat(states, dim=1)[:, task.scored])


def test_caches_are_those_of_the_language_model_whatever_the_samples(made):
    found = find_caches(made.module, CACHE)
    blocks = [f"model.language_model.layers.{i}.self_attn" for i in range(2)]
    assert [x.name for x in found] == [f"{x}.{half}_cache" for x in blocks for half in "kv"]
    assert {(x.shape, x.kind) for x in found} == {
        ((32, 44), "self_attn.k_cache"),
        ((32, 44), "self_attn.v_cache"),
    }
    try:
        set_task(made.module, ImageText.of(made.module.config))  # as before samples are read
        assert find_caches(made.module, CACHE) == found
    finally:
        set_task(made.module, made.task)


@pytest.mark.parametrize("pre_rope", [False, True])
def test_one_pass_is_step_by_step_decoding_of_image_and_text(made, name, pre_rope):
    cache = replace(CACHE, pre_rope=pre_rope, context=made.task.length)
    if pre_rope and name == "tiny_qwen2_vl":
        with pytest.raises(InvalidModel, match="place in an image"):
            find_caches(made.module, cache)
        return
    space = SearchSpace(find_caches(made.module, cache), (named("int2_g16"),), kv_cache=cache)
    formats = dict(zip((x.name for x in space.layers), (*MENU, MENU[0]), strict=True))
    samples = made.samples[:2]
    held = PackedCache.in_formats(made.module, cache, formats)
    steps = by_steps(made.module, held, samples, made.task)
    with torch.no_grad(), RoundedCaches(made.module, space) as caches:
        own = run(made.module, samples)
        caches.apply(formats)
        whole = run(made.module, samples)
    change = (own - steps).square().mean().sqrt()
    assert (whole - steps).square().mean().sqrt() < 1e-3 * change
    assert held.nbytes == sum(space.nbytes(x, named(formats[x.name])) for x in space.layers)
    assert torch.equal(run(made.module, samples), own)


def test_rows_of_caches_rank_as_measured_and_on_the_same_scale(made, both):
    space, bank = both
    rows = caches_of(space)
    alone = replace(space, layers=tuple(space.layers[row] for row in rows))
    columns = [space.column(x) for x in MENU[:2]]
    values = {
        kind: ESTIMATORS.build(kind, params)
        .whole_table(made.module, made.samples[:48], alone, bank)
        .values[:, columns]
        for kind, params in (
            ("leave_one_in", {"max_sequences": 48}),
            ("fisher_directional", {}),
            ("kv_norms", {"max_sequences": 48}),
        )
    }
    truth = values.pop("leave_one_in")
    for kind, at_least in (("fisher_directional", 0.95), ("kv_norms", 0.7)):
        assert spearmanr(values[kind].ravel(), truth.ravel()).statistic > at_least, kind
        assert 0.8 < np.median(values[kind] / truth) < 1.25, kind


def test_one_table_and_slopes_are_of_weights_of_every_part_and_of_caches(made, both):
    space, bank = both
    samples, rows = made.samples[:4], caches_of(space)
    for kind in ("fisher_directional", "by_part"):
        table = ESTIMATORS.build(kind).whole_table(made.module, samples, space, bank)
        assert (table.values[space.allowed] > 0).all()
    harsh = {x.name: "int2_g16" if x.cache else "int4_channel" for x in space.layers}
    reference = Reference.of(made.module, samples)
    with PatchedModel(made.module, bank) as patched:
        patched.apply(Allocation(harsh))
        found = slopes(made.module, reference, space, bank, Allocation(harsh)).values
        before = BlockStart(made.module, reference).kl()
        patched.apply(Allocation(harsh | {space.layers[x].name: "int4_g16" for x in rows}))
        gained = BlockStart(made.module, reference).kl() - before
    assert np.isfinite(found[space.allowed]).all()
    print(found[rows, space.column("int4_g16")].sum(), gained)


@pytest.fixture(scope="module")
def finished(name, made, tmp_path_factory):
    """A results folder, the checkpoint of its answer, and what its KL was measured on."""
    out = tmp_path_factory.mktemp("kv")
    parts = {"calibration": made.samples[:12], "evaluation": made.samples[12:20]}
    command = ["search", str(DATA / name), "--budget", "110KB,4.5bpw", "--dtype", "float32"]
    command += ["--formats", "int2_channel,int4_channel,int8_channel", "--pin", "int8_g32"]
    command += ["--kv-formats", ",".join(MENU), "--kv-at", f"b2c{made.task.length}"]
    command += ["--kv-window", "4", "--kv-sinks", "2", "--n-trials", "6", "--n-sequences", "8"]
    command += ["--n-search-sequences", "4", "--n-evaluation-sequences", "8"]
    command += ["--n-finalists", "3", "--sequence-length", "8", "--out", str(out / "results")]
    command += ["--checkpoint", str(out / "checkpoint")]
    for text, samples in parts.items():
        path = write_samples(made.task, samples, out / f"{text}.safetensors")
        command += [f"--{text}", str(path)]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    print(run.output)
    return Results(out / "results"), out / "checkpoint", parts["evaluation"]


def test_a_front_is_of_weights_and_caches_and_its_checkpoint_decodes_as_measured(made, finished):
    results, folder, samples = finished
    best = json.loads((folder / "bitfront.json").read_text())["trial"]
    print(best)


def test_the_checkpoint_verifies_with_its_cache(finished):
    _, folder, _ = finished
    run = CliRunner().invoke(app, ["verify", str(folder)])
    assert run.exit_code == 0, run.output
    assert "as recorded" in run.output.lower()
