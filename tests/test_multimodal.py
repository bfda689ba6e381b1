"""Models that see: LLaVA and Qwen2-VL shapes, from finding layers to searching them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from multimodal import DATA, IMAGE, TASKS, accuracy, loaded, write_samples
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
)
from typer.testing import CliRunner

from bitfront.allocation import Allocation
from bitfront.cli import app
from bitfront.errors import InvalidModel, InvalidText
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.image_text import ImageText, check_none_shared, parts_of, read_samples
from bitfront.models.layers import find_pinned, search_space
from bitfront.models.load import load_model
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.statistics import input_grams
from bitfront.models.tasks import run, set_task
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.rtn import Rtn
from bitfront.results import Results
from bitfront.sensitivity import ESTIMATORS


@pytest.fixture(scope="module", params=TASKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def made(name):
    return loaded(name)


@pytest.fixture(scope="module")
def space(made):
    menu = (named("int2_channel"), named("int4_channel"))
    return search_space(made.module, menu, named("int8_g32"), tied=False)


@pytest.fixture(scope="module")
def bank(made, space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), made.module, space, Rtn())


@pytest.fixture(scope="module")
def measured(made, space, bank):
    """Measured KL of each layer alone in each format, on samples that no estimator sees."""
    estimator = ESTIMATORS.build("leave_one_in")
    return estimator.estimate(made.module, made.samples[64:72], space, bank).values


def kl(made, bank, formats, samples):
    reference = Reference.of(made.module, samples)
    with PatchedModel(made.module, bank) as patched:
        patched.apply(Allocation(formats))
        means = [
            reference.kl(run(made.module, x[None])[0].detach(), i).mean().item()
            for i, x in enumerate(samples)
        ]
    return float(np.mean(means))


def test_it_has_learned_to_name_digits(made):
    assert accuracy(made) > 0.85


def test_layers_of_every_part_are_found_and_their_blocks_kept_apart(made, space):
    part_of = parts_of(made.module)
    parts = {
        part: [x for x in space.layers if part_of[x.name] == part] for part in part_of.values()
    }
    assert len(parts["language"]) == 2 * 7
    assert {x.block for x in parts["language"]} == {0, 1}
    assert {x.block for x in parts["vision"]} == {-1}
    if made.task.grid:  # Qwen2-VL has its projector, the merger, inside the tower
        assert len(parts["vision"]) == 2 * 4 + 2
    else:  # LLaVA reads the second last block of its tower
        assert len(parts["vision"]) == 1 + 2 * 6
        assert len(parts["projector"]) == 2
    kinds = {part: {x.kind for x in layers} for part, layers in parts.items()}
    assert not kinds["vision"] & kinds["language"]
    assert {part_of[x.name] for x in find_pinned(made.module)} == {"language"}


def test_text_alone_is_scored_and_sees_the_image(made):
    samples = made.samples[:2]
    outputs = run(made.module, samples)
    assert outputs.shape[1] == made.task.n_scored(samples) == 9
    other = samples.clone()
    other[:, made.task.length :] = samples.flip(0)[:, made.task.length :]
    assert (run(made.module, other) - outputs)[:, 5:].abs().max() > 0.1
    words = made.task.labels(samples)
    assert not (words == made.task.image_token).any()


def test_samples_of_another_layout_are_refused(made):
    made.task.check(made.samples)
    with pytest.raises(InvalidText, match="all of one layout"):
        made.task.check(made.samples[:, :-1])
    other = made.samples[:2].clone()
    other[:, 3] = 0
    with pytest.raises(InvalidText, match="all of one layout"):
        made.task.check(other)


@pytest.mark.parametrize("kind", ["fisher_directional", "output_error", "activation_entropy"])
def test_estimators_run_on_images_and_text(kind, made, space, bank):
    table = ESTIMATORS.build(kind).estimate(made.module, made.samples[:8], space, bank)
    assert np.isfinite(table.values).all()
    assert (table.values[:, 0] > 0).all()


def test_estimates_rank_layers_of_all_parts_as_measured(made, space, bank, measured):
    estimator = ESTIMATORS.build("by_part", {"max_sequences": 8})
    table = estimator.estimate(made.module, made.samples[:16], space, bank)
    assert spearman(table.values.ravel(), measured.ravel()) > 0.75


def test_each_part_has_its_own_estimator_and_sums_to_what_it_costs(made, space, bank):
    estimator = ESTIMATORS.build(
        "by_part", {"vision": "output_error", "language": "activation_entropy", "max_sequences": 8}
    )
    samples = made.samples[:8]
    values = estimator.estimate(made.module, samples, space, bank).values
    part_of = parts_of(made.module)
    for part in ("vision", "language"):
        rows = [row for row, x in enumerate(space.layers) if part_of[x.name] == part]
        formats = {space.layers[row].name: "int2_channel" for row in rows}
        assert values[rows, 0].sum() == pytest.approx(kl(made, bank, formats, samples), rel=1e-3)


def test_calibration_with_images_beats_that_with_text_alone(made, space, tmp_path):
    """LUQ: statistics of both kinds of tokens, not of text alone."""
    names = [x.name for x in space.layers if parts_of(made.module)[x.name] == "language"]
    both = input_grams(made.module, made.samples[:32], names)
    alone = of_text_alone(made, names)
    losses = []
    for index, grams in enumerate((both, alone)):
        narrow = replace(space, formats=space.formats[:1], pinned=())
        narrow = replace(narrow, layers=tuple(x for x in space.layers if x.name in names))
        gptq = QUANTIZERS.build("gptq")
        bank = WeightBank.build(tmp_path / str(index), made.module, narrow, gptq, grams)
        losses.append(kl(made, bank, dict.fromkeys(names, "int2_channel"), made.samples[64:128]))
    assert losses[0] < losses[1]


def of_text_alone(made, names):
    """Gram matrices of the inputs of the language model at text positions."""
    sums = {}

    def add(name):
        def hook(_module, inputs):
            x = inputs[0].detach()[:, ~made.task.is_image].reshape(-1, inputs[0].shape[-1])
            sums[name] = x.T @ x / len(x)

        return hook

    hooks = [made.module.get_submodule(x).register_forward_pre_hook(add(x)) for x in names]
    with torch.no_grad():
        run(made.module, made.samples[:32])
    for hook in hooks:
        hook.remove()
    return sums


def test_balanced_statistics_give_both_kinds_the_same_weight(made):
    name = next(
        n
        for n, m in made.module.named_modules()
        if n.endswith("language_model.layers.0.self_attn.q_proj")
    )
    of_text = of_text_alone(made, [name])[name]
    try:
        set_task(made.module, replace(made.task, balanced=True))
        balanced = input_grams(made.module, made.samples[:32], [name])[name]
    finally:
        set_task(made.module, made.task)
    plain = input_grams(made.module, made.samples[:32], [name])[name]
    share = made.task.n_image_tokens / made.task.length
    of_image = (plain - (1 - share) * of_text) / share
    torch.testing.assert_close(balanced, (of_image + of_text) / 2, rtol=1e-3, atol=1e-4)


def test_a_search_writes_a_checkpoint_that_verifies(name, made, tmp_path):
    parts = {"calibration": made.samples[:12], "evaluation": made.samples[12:20]}
    files = {
        x: write_samples(made.task, y, tmp_path / f"{x}.safetensors") for x, y in parts.items()
    }
    command = ["search", str(DATA / name), "--budget", "3.6bpw", "--estimator"]
    command += ["by_part:vision=output_error,max_sequences=2", "--dtype", "float32"]
    command += ["--formats", "int2_channel,int4_channel", "--pin", "int8_g32", "--n-trials", "5"]
    command += ["--n-sequences", "8", "--n-search-sequences", "4", "--n-finalists", "2"]
    command += ["--n-evaluation-sequences", "8", "--out", str(tmp_path / "results")]
    command += ["--checkpoint", str(tmp_path / "checkpoint")]
    for text, path in files.items():
        command += [f"--{text}", str(path)]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    best = Results(tmp_path / "results").front().best("kl", bits_per_weight=3.6)
    assert 0 < best.values["kl"] < 1
    assert set(best.allocation.formats.values()) == {"int2_channel", "int4_channel", "int8_g32"}
    run = CliRunner().invoke(app, ["verify", str(tmp_path / "checkpoint")])
    assert run.exit_code == 0, run.output


def test_the_same_samples_twice_and_files_of_something_else_are_refused(name, made, tmp_path):
    path = write_samples(made.task, made.samples[:4], tmp_path / "a.safetensors")
    task, samples = read_samples(str(path), ImageText.of(made.module.config), 4, 0)
    assert task == made.task
    with pytest.raises(InvalidText, match="share 1"):
        check_none_shared(samples[:2], samples[1:], ("a", "b"))
    with pytest.raises(InvalidText, match="5 are needed"):
        read_samples(str(path), task, 5, 0)
    with pytest.raises(InvalidText, match="as the model's processor makes them"):
        read_samples(str(DATA / name / "model.safetensors"), task, 1, 0)


def spearman(a, b):
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_a_model_whose_images_look_at_later_tokens_when_told_of_them_is_refused(tmp_path):
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    of_text = {"vocab_size": 24, "head_dim": 16, "layer_types": ["full_attention"]}
    config = Gemma3Config(
        text_config=small | of_text | {"intermediate_size": 64, "num_key_value_heads": 1},
        vision_config=small | {"intermediate_size": 64, "image_size": 8, "patch_size": 2},
        image_token_index=IMAGE,
        mm_tokens_per_image=16,
    )
    write_model(Gemma3ForConditionalGeneration(config), tmp_path)
    with pytest.raises(InvalidModel, match="Images of gemma3 look at later tokens where its"):
        load_model(str(tmp_path))


def test_a_model_with_images_of_an_unknown_layout_is_refused(tmp_path):
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    config = InternVLConfig(
        text_config=small | {"model_type": "llama", "vocab_size": 24, "intermediate_size": 64},
        vision_config=small | {"intermediate_size": 64, "image_size": 8, "patch_size": 2},
        image_token_id=IMAGE,
    )
    write_model(InternVLForConditionalGeneration(config), tmp_path)
    with pytest.raises(InvalidModel, match="internvl has images of a layout that bitfront"):
        load_model(str(tmp_path))


def write_model(module, folder):
    """With the tokenizer of the tiny LLaVA."""
    module.save_pretrained(folder)
    AutoTokenizer.from_pretrained(DATA / "tiny_llava").save_pretrained(folder)
