"""Keys and values of models that see: the language model's alone, images' tokens included."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from multimodal import DATA, TASKS, loaded, with_longer_text, write_samples
from safetensors import safe_open
from scipy.stats import spearmanr
from transformers import (
    AutoModelForImageTextToText,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
)
from typer.testing import CliRunner

from bitfront import Budget, Choice, Study, TextSource
from bitfront.allocation import Allocation
from bitfront.cli import app
from bitfront.errors import InvalidArgument, InvalidModel, InvalidText
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


def mean_kl(reference, logits):
    """In nats a scored token; logits may be of the first samples alone."""
    return float(np.mean([reference.kl(x, i).mean().item() for i, x in enumerate(logits)]))


def measured(module, space, formats, reference, n=None):
    """KL of caches in formats, on the first n samples."""
    with torch.no_grad(), RoundedCaches(module, space) as caches:
        caches.apply(formats)
        return mean_kl(reference, run(module, reference.tokens[:n]))


def test_rows_of_caches_are_in_the_nats_that_are_measured(made, both):
    space, bank = both
    rows = caches_of(space)
    columns = [space.column(x) for x in MENU[:2]]
    alone = replace(space, layers=tuple(space.layers[row] for row in rows))
    samples = made.samples[:48]
    reference = Reference.of(made.module, samples)
    truth = [
        [measured(made.module, space, {x.name: name}, reference) for name in MENU[:2]]
        for x in alone.layers
    ]
    fisher = ESTIMATORS.build("fisher").whole_table(made.module, samples, alone, bank).values
    assert spearmanr(fisher[:, columns].ravel(), np.ravel(truth)).statistic > 0.95
    assert 0.8 < np.median(fisher[:, columns] / truth) < 1.25
    norms = ESTIMATORS.build("kv_norms").whole_table(made.module, samples, alone, bank).values
    keys = {x.name: MENU[0] for x in alone.layers if x.cache == "k"}
    of_keys = measured(made.module, space, keys, reference, 4)
    # Not to the bit on every CPU: a KL of 2e-4 is made of float32 logits (5e-6 apart on one).
    found = norms[[x.cache == "k" for x in alone.layers], columns[0]].sum()
    assert found == pytest.approx(of_keys, rel=2e-5)


def test_tables_and_slopes_are_of_weights_of_every_part_and_of_caches(made, both):
    space, bank = both
    samples, rows = made.samples[:2], caches_of(space)
    for kind in ("fisher_directional", "leave_one_in", "by_part"):
        table = ESTIMATORS.build(kind).whole_table(made.module, samples, space, bank)
        assert (table.values[space.allowed] > 0).all()
    held = Allocation({x.name: MENU[0] if x.cache else "int4_channel" for x in space.layers})
    reference = Reference.of(made.module, samples)
    with PatchedModel(made.module, bank) as patched:
        patched.apply(held)
        found = slopes(made.module, reference, space, bank, held).values
    assert np.isfinite(found[space.allowed]).all()
    assert found[rows, space.column(MENU[1])].sum() < 0 == found[rows, space.column(MENU[0])].sum()


@pytest.fixture(scope="module")
def finished(name, made, tmp_path_factory):
    """A results folder, the checkpoint of its answer, and what its KL was measured on."""
    out = tmp_path_factory.mktemp("kv")
    parts = {"calibration": made.samples[:12], "evaluation": made.samples[12:20]}
    command = ["search", str(DATA / name), "--budget", "110KB,4.5bpw", "--dtype", "float32"]
    command += ["--formats", "int2_channel,int4_channel,int8_channel", "--pin", "int8_g32"]
    command += ["--kv-formats", ",".join(MENU[:2]), "--kv-at", f"b2c{made.task.length}"]
    command += ["--kv-window", "4", "--kv-sinks", "2", "--n-trials", "5", "--n-sequences", "8"]
    command += ["--n-search-sequences", "4", "--n-evaluation-sequences", "8"]
    command += ["--n-finalists", "3", "--sequence-length", "8", "--out", str(out / "results")]
    command += ["--checkpoint", str(out / "checkpoint")]
    for text, samples in parts.items():
        path = write_samples(made.task, samples, out / f"{text}.safetensors")
        command += [f"--{text}", str(path)]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    return Results(out / "results"), out / "checkpoint", parts["evaluation"]


def test_the_checkpoint_decodes_images_and_text_as_measured_in_the_bytes_it_states(made, finished):
    results, folder, samples = finished
    best = results.front().best("kl", bytes=110_000, bits_per_weight=4.5)
    formats = {x.name: best.allocation.formats[x.name] for x in results.space.layers if x.cache}
    assert len(formats) == 4
    assert set(formats.values()) <= set(MENU[:2])
    module = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    set_task(module, made.task)
    steps = by_steps(module, PackedCache.of(module), samples, made.task)
    reference = Reference.of(made.module, samples)
    assert mean_kl(reference, steps) == pytest.approx(best.values["kl"], rel=1e-3)
    with torch.no_grad():
        at_16_bits = mean_kl(reference, run(module, samples))
    assert abs(at_16_bits / best.values["kl"] - 1) > 0.05
    generated_bytes(module, made.task, samples[:2], best.values["cache_bytes"])
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = sum(t.numel() * t.itemsize for t in map(file.get_tensor, file.keys()))
    assert stored + best.values["cache_bytes"] == best.values["bytes"] <= 110_000


def generated_bytes(module, task, samples, expected):
    """Generate from image and the first caption; check what the cache then holds."""
    n_given, cache = task.length - 18, PackedCache.of(module)
    given = {"input_ids": task.tokens(samples)[:, :n_given]}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["pixel_values"] = samples[:, task.length :].reshape(-1, *task.pixels)
    if task.grid is not None:
        given["pixel_values"] = given["pixel_values"].flatten(0, 1)
        given["image_grid_thw"] = torch.tensor([task.grid] * len(samples))
        given["mm_token_type_ids"] = (given["input_ids"] == task.image_token).int()
    n_new = task.length + 1 - n_given  # the last token is never put into the cache
    made = module.generate(
        **given, past_key_values=cache, min_new_tokens=n_new, max_new_tokens=n_new, do_sample=False
    )
    assert made.shape == (len(samples), task.length + 1)
    assert cache.nbytes == expected


def test_the_checkpoint_verifies_with_its_cache(finished):
    _, folder, _ = finished
    run = CliRunner().invoke(app, ["verify", str(folder)])
    assert run.exit_code == 0, run.output
    assert "as recorded" in run.output.lower()


def two_files(made, folder):
    """Of the samples, eight for calibration and four others for evaluation."""
    parts = {"calibration": made.samples[:8], "evaluation": made.samples[8:12]}
    return [
        write_samples(made.task, x, folder / f"{part}.safetensors") for part, x in parts.items()
    ]


def study_of(name, budget, files, **choices):
    texts = [TextSource(str(path), 2) for path in files]
    menu = {"formats": ("int4_channel",), "pinned": "int8_g32"}
    return Study(str(DATA / name), Budget.parse(budget), *texts, **menu, **choices)


def test_samples_that_end_before_a_key_is_quantized_are_refused(name, made, tmp_path):
    cache = replace(CACHE, window=made.task.length - 18)
    study = study_of(name, "110KB", two_files(made, tmp_path), kv_cache=cache)
    with pytest.raises(InvalidArgument, match=f"Sequences of {made.task.length} tokens end before"):
        prepare(study)


def test_what_nothing_is_predicted_from_is_no_part_of_a_sample_for_its_cache():
    task = ImageText(26, 1, 16, 1, (3, 8, 8))
    assert task.span(torch.zeros(2, 26)) == 26
    last = replace(task, image_start=10)
    assert last.span(torch.zeros(2, 26)) == 10  # position 8 predicts the last token of the text


def test_two_files_of_different_layouts_are_refused(tmp_path, made, name):
    longer = replace(made.task, length=made.task.length + 4)
    samples = made.samples[:12]
    tokens = torch.cat([made.task.tokens(samples), torch.full((12, 4), 2)], dim=1)
    others = longer.sample(tokens, samples[:, made.task.length :])
    files = two_files(made, tmp_path)
    write_samples(longer, others[8:], files[1])
    study = study_of(name, "5bits", files)
    with pytest.raises(InvalidText, match="differ in their layout: give two files with as many"):
        prepare(study)


def test_a_time_is_that_of_models_for_text(tmp_path, made, name):
    costs = (Choice("memory"), Choice("roofline", {"device": "h200"}))
    study = study_of(name, "2ms", two_files(made, tmp_path), costs=costs)
    with pytest.raises(InvalidArgument, match="is for images and text: leave it out, with any"):
        prepare(study)


def test_models_for_images_have_no_cache(tiny_vit):
    with pytest.raises(InvalidModel, match="has no KV cache"):
        find_caches(tiny_vit, CACHE)


def test_only_the_language_model_must_attend_as_we_do():
    module = loaded("tiny_llava").module
    module.config.vision_config._attn_implementation = "eager"
    assert len(find_caches(module, CACHE)) == 4
    assert module.config.vision_config._attn_implementation == "eager"
    module.config.text_config._attn_implementation = "eager"
    with pytest.raises(InvalidModel, match="attends by eager"):
        find_caches(module, CACHE)


def test_a_model_whose_images_see_later_tokens_is_refused():
    of_text = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    of_images = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    size = {"hidden_size": 32, "intermediate_size": 64}
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", "vocab_size": 24, "head_dim": 16, **of_text, **size},
        vision_config={"model_type": "siglip_vision_model", **of_images, **size},
        image_token_index=1,
        projection_dim=32,
    )
    module = PaliGemmaForConditionalGeneration(config).eval()
    set_task(module, ImageText.of(module.config))
    with pytest.raises(InvalidModel, match="earlier tokens"):
        find_caches(module, CACHE)
