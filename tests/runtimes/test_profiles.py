"""What a profile allows is what its exporter writes as it was measured, and nothing else."""

import json

import numpy as np
import pytest
from packaging.specifiers import SpecifierSet

from bitfront import Budget, Study, formats, run_study, runtimes
from bitfront.errors import InvalidArgument, InvalidModel, UnknownPlugin
from bitfront.export import EXPORTERS
from bitfront.models.layers import find_layers, search_space
from bitfront.models.load import LoadedModel
from bitfront.plugins import Choice
from bitfront.runtimes import RUNNERS
from tests.export.exports import BankOnDemand, stored_bytes
from tests.models.test_layers import build

CATALOGUE = formats.catalogue()
every_profile = pytest.mark.parametrize("name", runtimes.names())
BUDGET = Budget(4.25, "bpw")


def loadable(runtime):
    return tuple(f for name, f in CATALOGUE.items() if runtime.rule(name))


def tied(layers):
    """Last parts of the names of each group."""
    groups: dict[str, set[str]] = {}
    for layer in layers:
        groups.setdefault(layer.group, set()).add(layer.name.rpartition(".")[2])
    return sorted(map(sorted, groups.values()))


@every_profile
def test_a_profile_names_what_there_is(name):
    runtime = runtimes.named(name)
    assert runtime.engine in RUNNERS.names()
    assert set(runtime.loads) <= set(EXPORTERS.names())
    assert runtime.exporter in runtime.loads
    assert "0.0.1" not in SpecifierSet(runtime.versions)
    patterns = [pattern for rule in runtime.rules for pattern in rule.names]
    for pattern in (*patterns, *runtime.pinned, *runtime.menu):
        assert any(_matches(each, pattern) for each in CATALOGUE), pattern
    pinned = runtime.pinned[0]
    Study("m", BUDGET, formats=runtime.menu, pinned=None if pinned == "bf16" else pinned,
          runtime=name)  # fmt: skip


def _matches(name, pattern):
    rule = runtimes.base.Rule((pattern,))
    return runtimes.base.Runtime("", "", "", "", {}, (rule,), (), ()).rule(name) is not None


@every_profile
@pytest.mark.parametrize("seed", [0, 1])
def test_every_allocation_of_the_space_is_written_as_measured(
    name, seed, tiny_llama, tiny_tokenizer, tmp_path
):
    """Exporters refuse, or round anew, what their engine cannot hold; the space has none of it."""
    runtime = runtimes.named(name)
    pinned = None if runtime.pinned[0] == "bf16" else formats.named(runtime.pinned[0])
    if pinned is not None and not pinned.fits((512, 64)):
        pinned = formats.named("int8_g32")
    space = search_space(tiny_llama, loadable(runtime), pinned, False, runtime)
    rng = np.random.default_rng(seed)
    choice = [int(rng.choice(np.flatnonzero(row))) for row in space.group_allowed]
    model, allocation = (
        LoadedModel(tiny_llama, tiny_tokenizer, "digest", "test"),
        space.decode(choice),
    )
    exporter = EXPORTERS.build(runtime.exporter)
    exporter.write(model, allocation, BankOnDemand(tiny_llama, space), tmp_path / "out")
    assert "rounded_anew" not in json.loads((tmp_path / "out" / "bitfront.json").read_text())
    if runtime.exporter != "gguf":
        counted = space.outside_bytes + sum(
            formats.named(allocation.formats[x.name]).nbytes(x.shape) for x in space.layers
        )
        stored = stored_bytes(tmp_path / "out")
        shapes = sum(size for name, size in stored.items() if name.endswith("weight_shape"))
        padding = 4 * sum(x.shape[0] for x in space.layers)
        assert counted <= sum(stored.values()) - shapes <= counted + padding


def test_layers_that_vllm_fuses_share_a_format_though_nothing_else_is_tied(tiny_llama):
    runtime, menu = runtimes.named("vllm"), (formats.named("int4_g32_sym"),)
    free = search_space(tiny_llama, menu, None, False)
    bound = search_space(tiny_llama, menu, None, False, runtime)
    assert len(free.groups) == len(free.layers)
    parts = {frozenset(x) for x in tied(bound.layers)}
    assert parts == {
        frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}),
        frozenset({"o_proj"}), frozenset({"down_proj"}),
    }  # fmt: skip
    assert len(bound.groups) == 4 * 4
    assert (
        len(search_space(tiny_llama, menu, None, False, runtimes.named("llama_cpp")).groups) == 28
    )


@pytest.mark.parametrize("family", ["llama", "mixtral", "opt", "phi", "bert", "gpt_neox"])
def test_ties_by_input_already_hold_what_vllm_fuses(family):
    layers = find_layers(build(family))
    bound = search_space(build(family), (formats.named("int4_channel_sym"),), None, True,
                         runtimes.named("vllm"))  # fmt: skip
    assert tied(bound.layers) == tied(layers)


def test_a_shared_global_scale_keeps_nvfp4_from_fused_layers(tiny_llama):
    menu = tuple(map(formats.named, ("nvfp4", "int4_g32_sym")))
    space = search_space(tiny_llama, menu, None, True, runtimes.named("vllm"))
    takes = {
        layer.name.rpartition(".")[2]
        for layer, may in zip(space.layers, space.allowed, strict=True)
        if may[0]
    }
    assert takes == {"down_proj"}  # the output projection has 64 columns, half of Marlin's tile
    runtime = runtimes.named("vllm")
    nvfp4, shape = menu[0], (128, 256)
    assert runtime.allows(nvfp4, "x.down_proj", shape, is_fused=False)
    assert not runtime.allows(nvfp4, "x.up_proj", shape, is_fused=True)
    assert not runtime.allows(nvfp4, "x.down_proj", (128, 192), is_fused=False)


@pytest.mark.parametrize(
    ("format", "ranks", "columns", "is_allowed"),
    [
        ("int4_g64_sym", 2, 128, True),
        ("int4_g64_sym", 4, 128, False),  # half a group
        ("int3_channel_sym", 2, 96, False),  # 144 bits are no whole words of 32
        ("int3_channel_sym", 2, 128, True),
        ("int4_channel_sym", 2, 96, True),
        ("fp8_e4m3", 2, 96, True),
        ("int4_g64", 1, 128, False),  # fractional zero points
        ("nf4_g64", 1, 128, False),
    ],
)
def test_ranks_hold_whole_groups_and_whole_words(format, ranks, columns, is_allowed):
    runtime, chosen = runtimes.named("vllm", ranks), formats.named(format)
    assert runtime.allows(chosen, "b.0.down_proj", (64, columns), False) is is_allowed
    # rows are spread there, whatever their number of groups
    elsewhere = runtime.rule(format) is not None
    assert runtime.allows(chosen, "b.0.up_proj", (64, columns), False) is elsewhere


def test_no_trial_of_a_search_is_beyond_the_runtime(tiny_study, tmp_path):
    """A rank of two has 32 columns of the output projection, half a group of 64."""
    menu = ("int3_g32_sym", "int4_g64_sym", "int8_g32_sym")
    study = tiny_study(2, 2, formats=menu, tied=False, estimator=Choice("weight_error"), n_trials=6,
                       n_search_sequences=1)  # fmt: skip
    bound = {**vars(study), "pinned": None, "runtime": "vllm", "tensor_parallel": 2}
    run_study(Study(**bound), tmp_path)
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    seen = set()
    for line in lines:
        chosen = json.loads(line)["allocation"]["formats"]
        seen |= set(chosen.values())
        for layer, format in chosen.items():
            block, _, part = layer.rpartition(".")
            assert (part, format) != ("o_proj", "int4_g64_sym")
            if part in {"q_proj", "gate_proj"}:
                partners = {"q_proj": ("k_proj", "v_proj"), "gate_proj": ("up_proj",)}[part]
                assert {chosen[f"{block}.{x}"] for x in partners} == {format}
    assert len(lines) > 6
    assert "int4_g64_sym" in seen


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runtime": "vlm"}, "Did you mean 'vllm'"),
        ({"tensor_parallel": 2}, "without a runtime"),
        ({"runtime": "llama_cpp", "tensor_parallel": 2}, "takes only 1"),
        ({"runtime": "vllm"}, r"cannot load int2_g64: it takes int\[2-8\]_g32_sym"),
        (
            {"runtime": "vllm", "formats": ("int4_g64_sym",)},
            "no int8_g64 embedding or head: pin none",
        ),
        ({"runtime": "llama_cpp", "formats": ("int6_g32_sym",)}, "cannot load int6_g32_sym"),
        ({"runtime": "llama_cpp", "formats": ("int4_g16_sym",)}, "cannot load int4_g16_sym"),
        ({"runtime": "vllm", "formats": ("int4_g16_sym",)}, "cannot load int4_g16_sym"),
    ],
)
def test_what_a_runtime_cannot_load_is_refused_at_once(fields, message):
    with pytest.raises((InvalidArgument, UnknownPlugin), match=message):
        Study("m", BUDGET, **fields)


@pytest.mark.parametrize(
    ("runtime", "family", "ranks", "error", "message"),
    [
        ("vllm", "gpt2", 1, InvalidModel, "is a Conv1D"),
        ("llama_cpp", "phi", 1, InvalidModel, "not 'phi'"),
        ("vllm", "llama", 3, InvalidArgument, "3 ranks do not divide 4 attention heads"),
    ],
)
def test_models_that_a_runtime_cannot_load_are_refused(runtime, family, ranks, error, message):
    profile, menu = runtimes.named(runtime, ranks), (formats.named("int4_g32_sym"),)
    with pytest.raises(error, match=message):
        search_space(build(family), menu, None, True, profile)


def test_a_bounded_space_survives_json_and_says_why_nothing_is_left(tiny_llama):
    menu = tuple(map(formats.named, ("int4_g64_sym", "int8_g32_sym")))
    runtime = runtimes.named("vllm", 2)
    space = search_space(tiny_llama, menu, None, True, runtime)
    assert space.barred
    again = type(space).from_json(space.to_json())
    assert again == space
    assert (again.allowed == space.allowed).all()
    with pytest.raises(InvalidArgument, match="none that may stand there"):
        search_space(tiny_llama, menu[:1], None, True, runtime)
