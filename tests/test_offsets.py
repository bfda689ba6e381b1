"""Bits over the difference of a fine-tuned model and its base, from the command line to a model."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from tuned import rounded, tune
from typer.testing import CliRunner

from bitfront.cli import app
from bitfront.errors import InvalidArgument, InvalidModel, MismatchedArtifact
from bitfront.export.packed import Packed
from bitfront.formats import named
from bitfront.inputs import load_searched
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight
from bitfront.models.load import load_model
from bitfront.models.offset import load_offset
from bitfront.models.patch import PatchedModel
from bitfront.models.tasks import run
from bitfront.quantizers.rtn import Rtn
from bitfront.results import Results
from bitfront.run import export_checkpoint
from bitfront.sensitivity import ESTIMATORS
from bitfront.sharing import share_offset

BOOKS = ("alice", "persuasion")


@pytest.fixture(scope="module")
def tuned(tiny_folder, tmp_path_factory):
    """Folders of the tiny Llama fine-tuned on each of its books alone, by name of the book."""
    place = tmp_path_factory.mktemp("tuned")
    return {book: tune(tiny_folder, f"{book}.txt", place / book) for book in BOOKS}


@pytest.fixture(scope="module")
def texts(calibration_file, evaluation_file):
    """Unseen ends of the books."""
    return dict(zip(BOOKS, (calibration_file, evaluation_file), strict=True))


@pytest.fixture(scope="module")
def finished(tuned, tiny_folder, texts, tmp_path_factory):
    """Results folder and checkpoint of a search over the offset of the model of one book."""
    out = tmp_path_factory.mktemp("offsets")
    run = CliRunner().invoke(
        app,
        [
            *("search", str(tuned["alice"]), "--base", str(tiny_folder), "--budget", "2.5bpw"),
            *("--calibration", str(texts["alice"]), "--evaluation", str(texts["persuasion"])),
            *("--formats", "zero,sign_g64,int2_g64,int4_g64", "--n-trials", "9", "--pin"),
            *("int4_g64", "--n-sequences", "2", "--n-search-sequences", "2"),
            *("--n-evaluation-sequences", "2", "--sequence-length", "64", "--n-finalists", "2"),
            *("--out", str(out / "results"), "--checkpoint", str(out / "checkpoint")),
        ],
    )
    assert run.exit_code == 0, run.output
    return Results(out / "results"), out / "checkpoint", run.output


def of(tiny_study, **changes):
    """A study of other things than the tiny Llama."""
    return replace(tiny_study(2, 2), **changes)


def stored(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_at_equal_bytes_offsets_keep_more_than_weights(tuned, tiny_folder, tiny_study):
    study = of(tiny_study, formats=("int2_g64",), model=str(tuned["alice"]))
    weights, offsets = (rounded(study, base) for base in (None, str(tiny_folder)))
    assert weights.nbytes == offsets.nbytes
    assert offsets.kl < weights.kl / 20


def test_the_answer_beats_every_uniform_offset_within_the_budget(finished):
    results, _, _ = finished
    best = results.front().best("kl", **results.study.budget.bounds())
    uniform = {
        next(iter(set(t.allocation.formats.values()) - {"int4_g64"}), "int4_g64"): t
        for t in results.trials()
        if t.text == "evaluation" and t.origin == "uniform"
    }
    assert set(uniform) == {"zero", "sign_g64", "int2_g64", "int4_g64"}
    assert uniform["zero"].values["bits_per_weight"] == 0
    assert best.values["bits_per_weight"] <= 2.5
    assert best.values["kl"] <= uniform["int2_g64"].values["kl"]
    assert best.values["kl"] < uniform["zero"].values["kl"] / 4


def test_bytes_are_those_of_the_offset_alone(finished, tuned, tiny_folder):
    results, folder, said = finished
    best = results.front().best("kl", **results.study.budget.bounds())
    assert sum(t.numel() * t.itemsize for t in stored(folder).values()) == best.values["bytes"]
    n_weights = sum(p.numel() for p in load_model(str(tiny_folder)).module.parameters())
    assert int(results.identity["base bytes"]) == 2 * n_weights
    assert f"{(2 * n_weights + best.values['bytes']) / 1e6:.4g} MB in all" in said


def test_the_checkpoint_is_the_measured_model(finished, tuned):
    results, folder, _ = finished
    best = results.front().best("kl", **results.study.budget.bounds())
    _, space = load_searched(results.study)
    made = load_offset(folder, "float32", "cpu")
    with safe_open(results.study.model + "/model.safetensors", framework="pt") as file:
        norm = file.get_tensor("model.norm.weight")
    base = load_model(results.study.base, dtype="float32").module
    assert torch.equal(made.module.get_parameter("model.norm.weight"), norm.bfloat16().float())
    for layer in space.layers:
        format = named(best.allocation.formats[layer.name])
        tensors = {k: stored(folder)[f"{layer.name}.{k}"] for k in format.stored(layer.shape)}
        offset = format.decode_stored(tensors, layer.shape)
        whole = get_weight(base, layer.name) + offset
        assert torch.equal(get_weight(made.module, layer.name), whole)


def changed(folder, out, own_head=False, **configuration):
    """A copy of a model whose config.json says something else; a head of its own is another one."""
    shutil.copytree(folder, out)
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | configuration))
    if own_head or configuration.get("tie_word_embeddings") is False:
        head = {"lm_head.weight": stored(out)["model.embed_tokens.weight"].flip(1) * 1.1}
        save_file(stored(out) | head, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.mark.parametrize(
    ("of_tuned", "of_base"),
    [
        ({"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}, {}),
        ({"tie_word_embeddings": False}, {}),
        ({"own_head": True}, {}),
        ({}, {"tie_word_embeddings": False}),
    ],
    ids=["another rotation", "head of its own", "untold head", "base with a head of its own"],
)
def test_the_configuration_is_that_of_the_fine_tune(
    of_tuned, of_base, tuned, tiny_folder, tiny_study, tiny_tokens, tmp_path
):
    fine_tuned = changed(tuned["alice"], tmp_path / "tuned", **of_tuned)
    base = changed(tiny_folder, tmp_path / "base", **of_base)
    study = of(tiny_study, formats=("int4_g64",), model=str(fine_tuned), base=str(base))
    model, space = load_searched(study)
    bank = WeightBank.build(tmp_path / "bank", model.module, space, Rtn(), base=model.base_module)
    chosen = space.decode(space.uniform(0))
    Packed().write(model, chosen, bank, tmp_path / "offset")
    with PatchedModel(model.module, bank, as_stored=True) as patched:
        patched.apply(chosen)
        measured = run(model.module, tiny_tokens[:1])
    made = load_offset(tmp_path / "offset", "float32", "cpu").module
    with torch.no_grad():
        assert torch.allclose(run(made, tiny_tokens[:1]), measured, atol=1e-4)
    assert made.generation_config.eos_token_id == [2, 7]


def test_a_model_in_bfloat16_rotates_as_one_that_was_loaded_so(finished, tiny_folder):
    _, folder, _ = finished
    made, loaded = (
        dict(load(str(path), dtype="bfloat16", device="cpu").module.named_buffers())
        for load, path in ((load_offset, folder), (load_model, tiny_folder))
    )
    assert {name: (x.dtype, x.tolist()) for name, x in made.items()} == {
        name: (x.dtype, x.tolist()) for name, x in loaded.items()
    }


def test_the_checkpoint_verifies(finished):
    _, folder, _ = finished
    run = CliRunner().invoke(app, ["verify", str(folder)])
    assert run.exit_code == 0, run.output
    assert "as recorded" in run.output.lower()


def test_another_base_is_refused(finished, tuned, tmp_path):
    _, folder, _ = finished
    with pytest.raises(MismatchedArtifact, match="give the base that the model was fine-tuned"):
        load_offset(folder, "float32", "cpu", base=str(tuned["persuasion"]))
    with pytest.raises(InvalidModel, match="only offsets to"):
        AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(InvalidModel, match="holds no offsets"):
        load_offset(tuned["alice"])


def test_offsets_to_themselves_or_to_nothing_are_refused(finished, tmp_path):
    _, folder, _ = finished
    wrong = tmp_path / "wrong"
    shutil.copytree(folder, wrong)
    note = json.loads((wrong / "bitfront.json").read_text())
    for changed, says in (
        ({"source": str(wrong)}, "a base of its own base"),
        ({"source": ""}, "holds no offsets"),
        ({"digest": 5}, "holds no offsets"),
    ):
        text = json.dumps(note | {"base": note["base"] | changed})
        (wrong / "bitfront.json").write_text(text)
        with pytest.raises(InvalidModel, match=says):
            load_offset(wrong, "float32", "cpu")
    (wrong / "bitfront.json").write_text(json.dumps(note | {"formats": None}))
    with pytest.raises(InvalidModel, match="Cannot add the offsets"):
        load_offset(wrong, "float32", "cpu")


def test_a_model_of_other_tensors_is_no_base(tuned, moe_folder, tiny_study):
    study = of(tiny_study, model=str(tuned["alice"]), base=str(moe_folder))
    with pytest.raises(InvalidModel, match="are not of one base"):
        load_searched(study)


def test_exporters_of_quantized_weights_refuse_offsets(finished, tmp_path):
    results, _, _ = finished
    best = results.front().best("kl", **results.study.budget.bounds())
    with pytest.raises(InvalidArgument, match="take packed for the offset alone"):
        export_checkpoint(
            results.study, best, tmp_path / "out", "compressed_tensors", results.directory
        )
    export_checkpoint(results.study, best, tmp_path / "whole", "fake_quant", results.directory)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    ours = load_offset(finished[1], "float32", "cpu").module.state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, ours[name].bfloat16().float())


def test_tensors_that_equal_the_base_take_no_bytes(tiny_folder, tiny_study):
    study = of(tiny_study, formats=("zero", "int4_g64"), base=str(tiny_folder))
    _, space = load_searched(study)
    assert space.fixed_bytes == 0


def test_estimators_look_at_the_difference(tuned, tiny_folder, tiny_study, tiny_tokens, tmp_path):
    study = of(
        tiny_study, formats=("zero", "int4_g64"), model=str(tuned["alice"]), base=str(tiny_folder)
    )
    made = rounded(study, str(tiny_folder))
    for name in ("weight_error", "output_error"):
        estimator = ESTIMATORS.build(name, {"relative": True})
        table = estimator.estimate(made.module, tiny_tokens[:1], made.space, made.bank)
        assert table.values[:, 0] == pytest.approx(1.0, rel=1e-3)  # all that there is is lost
        assert (table.values[:, 1] < 0.05).all()


def test_a_shared_offset_is_a_base(tuned, tiny_folder, tiny_study, tmp_path):
    sources = [str(folder) for folder in tuned.values()]
    shared = tmp_path / "shared"
    nbytes = share_offset(sources, str(tiny_folder), shared, "int4_g64", device="cpu")
    assert nbytes == sum(t.numel() * t.itemsize for t in stored(shared).values())
    base, held = load_model(str(tiny_folder), dtype="float32"), load_offset(shared, "float32")
    name = "model.layers.1.mlp.down_proj"
    mean = sum(get_weight(load_model(x, dtype="float32").module, name) for x in sources) / 2
    found = get_weight(held.module, name) - get_weight(base.module, name)
    step = (mean - get_weight(base.module, name)).abs().max() * 2 / 15
    assert (found - mean + get_weight(base.module, name)).abs().max() <= step
    study = of(tiny_study, formats=("int2_g64",), model=sources[0])
    alone, rest = (rounded(study, x) for x in (str(tiny_folder), str(shared)))
    assert rest.nbytes == alone.nbytes
    assert rest.kl < alone.kl
    with pytest.raises(InvalidArgument, match="at least 2"):
        share_offset(sources[:1], str(tiny_folder), tmp_path / "one")
    with pytest.raises(InvalidArgument, match="are one model"):
        share_offset([sources[0]] * 2, str(tiny_folder), tmp_path / "same")


def test_the_command_shares(tuned, tiny_folder, tmp_path):
    command = ["share", *map(str, tuned.values()), "--base", str(tiny_folder), "--format"]
    command += ["int3_g64", "--out", str(tmp_path / "shared"), "--json"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 0, run.output
    assert json.loads(run.output.splitlines()[-1])["bytes"] > 0
    shutil.rmtree(tmp_path / "shared")


def test_without_a_base_nothing_changes(tiny_study):
    plain = of(tiny_study)
    assert "base" not in json.loads(plain.to_json())
    with_base = of(tiny_study, base="org/base@main")
    assert type(plain).from_json(with_base.to_json()) == with_base


def test_layers_are_left_out_of_differences_only(tiny_study):
    for choices in ({"formats": ("zero", "int2_g64")}, {"pinned": "zero"}):
        with pytest.raises(InvalidArgument, match="only a difference can bear"):
            of(tiny_study, **choices)
    for runtime in ("transformers", "vllm"):
        with pytest.raises(InvalidArgument, match="cannot load a base and an offset"):
            of(tiny_study, base="org/base", runtime=runtime)
