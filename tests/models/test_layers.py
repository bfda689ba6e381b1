"""Layers are found by structure in every family, with the groups that engines fuse."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bitfront import formats
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.models.layers import (
    blocks,
    find_layers,
    find_pinned,
    fixed_tensors,
    get_weight,
    search_space,
    set_weight,
    stacked_weights,
)

N_BLOCKS = 2
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED_QUERY = SIZES | {"num_key_value_heads": 2}
ATTENTION = ({"q_proj", "k_proj", "v_proj"}, {"o_proj"})
SWIGLU = ({"gate_proj", "up_proj"}, {"down_proj"})
EMBEDDING_AND_HEAD = ("model.embed_tokens", "lm_head")

# family: (config fields, groups of one block by the last part of the name, pinned layers)
FAMILIES = {
    "llama": (GROUPED_QUERY, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD),
    "qwen2": (GROUPED_QUERY, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD),
    "qwen3": (GROUPED_QUERY | {"head_dim": 8}, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD),
    "mistral": (GROUPED_QUERY, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD),
    "gemma2": (GROUPED_QUERY | {"head_dim": 8}, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD[:1]),
    "gemma3_text": (GROUPED_QUERY | {"head_dim": 8}, (*ATTENTION, *SWIGLU), EMBEDDING_AND_HEAD[:1]),
    "phi": (
        SIZES,
        ({"q_proj", "k_proj", "v_proj"}, {"dense"}, {"fc1"}, {"fc2"}),
        EMBEDDING_AND_HEAD,
    ),
    "phi3": (
        GROUPED_QUERY,
        ({"qkv_proj"}, {"o_proj"}, {"gate_up_proj"}, {"down_proj"}),
        EMBEDDING_AND_HEAD,
    ),
    "opt": (
        SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 16},
        ({"q_proj", "k_proj", "v_proj"}, {"out_proj"}, {"fc1"}, {"fc2"}),
        ("model.decoder.embed_tokens",),
    ),
    "gpt2": (
        SIZES | {"n_inner": 64},
        ({"c_attn"}, {"c_proj"}, {"c_fc"}, {"c_proj"}),
        ("transformer.wte",),
    ),
    "bert": (
        SIZES | {"is_decoder": True},
        ({"query", "key", "value"}, {"dense"}, {"dense"}, {"dense"}),
        ("bert.embeddings.word_embeddings",),
    ),
    "electra": (
        SIZES | {"is_decoder": True, "embedding_size": 16},
        ({"query", "key", "value"}, {"dense"}, {"dense"}, {"dense"}),
        ("electra.embeddings.word_embeddings",),
    ),
    "gpt_neox": (
        SIZES,
        ({"query_key_value"}, {"dense"}, {"dense_h_to_4h"}, {"dense_4h_to_h"}),
        ("gpt_neox.embed_in", "lm_head"),
    ),
    # Experts stacked into 3-D parameters are no linears; their router is never a layer.
    "mixtral": (GROUPED_QUERY | {"num_local_experts": 8}, ATTENTION, EMBEDDING_AND_HEAD),
    # The shared expert is found, the gate with one output is not.
    "qwen2_moe": (
        GROUPED_QUERY
        | {"num_experts": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 48},
        (*ATTENTION, *SWIGLU),
        EMBEDDING_AND_HEAD,
    ),
    # The router is an nn.Linear in a module beside the experts.
    "afmoe": (
        GROUPED_QUERY | {"num_experts": 16, "head_dim": 8, "num_dense_layers": 0},
        ({"q_proj", "k_proj", "v_proj", "gate_proj"}, {"o_proj"}, *SWIGLU),
        EMBEDDING_AND_HEAD,
    ),
}

# Searched layers outside the blocks, in model order; the other families have none.
OUTSIDE = {
    "opt": ("model.decoder.project_out", "model.decoder.project_in"),
    "bert": ("cls.predictions.transform.dense",),
    "electra": ("electra.embeddings_project", "generator_predictions.dense"),
}


def build(family: str, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family][0] | fields)
    return AutoModelForCausalLM.from_config(config).eval()


def groups_of(layers: tuple, block: int) -> list[set[str]]:
    members: dict[str, set[str]] = {}
    for layer in layers:
        if layer.block == block:
            members.setdefault(layer.group, set()).add(layer.name.rpartition(".")[2])
    return list(members.values())


def by_name(groups: tuple) -> list[list[str]]:
    return sorted(sorted(group) for group in groups)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_groups_of_each_block(family):
    _, expected, _ = FAMILIES[family]
    layers = find_layers(build(family))
    inside = [x for x in layers if x.block >= 0]
    assert len(inside) == N_BLOCKS * sum(len(group) for group in expected)
    for block in range(N_BLOCKS):
        assert by_name(groups_of(layers, block)) == by_name(expected)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "llama",
            [f"self_attn.{x}_proj" for x in "qkvo"]
            + [f"mlp.{x}_proj" for x in ("gate", "up", "down")],
        ),
        ("gpt2", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
        (
            "bert",
            [f"attention.self.{x}" for x in ("query", "key", "value")]
            + ["attention.output.dense", "intermediate.dense", "output.dense"],
        ),
    ],
)
def test_kinds_are_paths_in_the_block(family, expected):
    layers = [x for x in find_layers(build(family)) if x.block >= 0]
    assert [x.kind for x in layers] == expected * N_BLOCKS
    assert [x.block for x in layers] == [0] * len(expected) + [1] * len(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_one_kind_in_a_block_are_items_of_one_list(family):
    layers = find_layers(build(family))
    assert all(f".{x.block}." in x.name for x in layers if x.block >= 0)
    assert len({(x.block, x.kind) for x in layers}) == len(layers)
    assert all(x.kind == x.name for x in (*layers, *find_pinned(build(family))) if x.block < 0)


def test_a_number_outside_the_blocks_is_no_block():
    torch.manual_seed(0)
    sizes = {"n_words": 96, "emb_dim": 32, "n_layers": N_BLOCKS, "n_heads": 4}
    config = AutoConfig.for_model("xlm", **sizes, pad_index=0)
    layers = find_layers(AutoModelForCausalLM.from_config(config).eval())
    found: dict[str, list[int]] = {}
    for layer in layers:
        found.setdefault(layer.kind, []).append(layer.block)
    assert found == {"lin1": [0, 1], "lin2": [0, 1]} | {
        f"transformer.attentions.{part}_lin": [-1, -1] for part in ("q", "k", "v", "out")
    }


def test_items_of_a_list_share_a_kind_and_steps_of_a_sequence_do_not():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32)) for _ in range(9)
            )

        def forward(self, x):
            return sum(expert(x) for expert in self.experts)

    model = build("llama")
    model.model.layers[1].mlp = Experts()
    kinds = [x.kind for x in find_layers(model) if x.block == 1 and "mlp" in x.name]
    assert kinds == ["mlp.experts.0", "mlp.experts.2"] * 9


def test_blocks_that_are_linears_are_of_one_kind():
    class Linears(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layers = nn.Embedding(96, 32), nn.ModuleList()
            self.layers.extend(nn.Linear(32, 32) for _ in range(N_BLOCKS))

        def get_input_embeddings(self):
            return self.embed

        def get_output_embeddings(self):
            return None

    layers = find_layers(Linears(), tied=False)
    assert [(x.block, x.kind) for x in layers] == [(0, "layers"), (1, "layers")]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_outside_the_blocks(family):
    outside = [x for x in find_layers(build(family)) if x.block < 0]
    assert tuple(x.name for x in outside) == OUTSIDE.get(family, ())
    assert [x.group for x in outside] == [x.name for x in outside]


def test_outside_the_blocks_only_what_the_logits_depend_on():
    """BigBird's pooler runs, but nothing reads it; the added linear does not run at all."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("big_bird", **SIZES, is_decoder=True)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.classifier = nn.Linear(32, 32)
    names = [x.name for x in find_layers(model) if x.block < 0]
    assert names == ["cls.predictions.transform.dense"]


def test_a_frozen_model_has_the_same_layers():
    model = build("opt")
    expected = find_layers(model)
    assert find_layers(model.requires_grad_(False)) == expected
    assert not any(p.requires_grad for p in model.parameters())


def test_routers_and_gates_outside_the_blocks_are_left_out():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(9))
            self.router = nn.Linear(16, 9)
            self.gate = nn.Linear(16, 1)

        def forward(self, x):
            weights = self.router(x).softmax(-1).unbind(-1)
            mixed = sum(w[..., None] * e(x) for w, e in zip(weights, self.experts, strict=True))
            return x + self.gate(x).sigmoid() * mixed

    model = build("opt")
    embed = model.model.decoder.project_in
    model.model.decoder.project_in = nn.Sequential(Mixed(), embed)
    names = {x.name.partition("project_in.")[2] for x in find_layers(model)} - {""}
    assert "1" in names
    assert names <= {"1", *(f"0.experts.{n}" for n in range(9))}


@pytest.mark.parametrize("family", FAMILIES)
def test_pinned_layers(family):
    assert tuple(x.name for x in find_pinned(build(family))) == FAMILIES[family][2]


@pytest.mark.parametrize("family", FAMILIES)
def test_untied_layers_are_their_own_groups(family):
    model = build(family)
    layers = find_layers(model, tied=False)
    assert [x.group for x in layers] == [x.name for x in layers]
    assert [x.name for x in layers] == [x.name for x in find_layers(model)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_stored_tensor_is_counted_once(family):
    model = build(family)
    names = {x.name for x in (*find_layers(model), *find_pinned(model))}
    fixed = fixed_tensors(model, names)
    stored = {id(t): t for t in model.state_dict(keep_vars=True).values()}
    counted = [id(model.get_submodule(name).weight) for name in names] + [
        id(t) for t in fixed.values()
    ]
    assert sorted(counted) == sorted(stored)


def test_tied_embedding_counts_once():
    untied, tied = build("llama"), build("llama", tie_word_embeddings=True)
    assert [x.name for x in find_pinned(tied)] == ["model.embed_tokens"]
    fixed = [search_space(m, (SixteenBit(),), None, tied=True).fixed_bytes for m in (untied, tied)]
    assert fixed[0] - fixed[1] == 96 * 32 * 2


def test_conv1d_is_seen_as_rows_of_outputs():
    model = build("gpt2")
    name = "transformer.h.0.mlp.c_fc"
    weight = get_weight(model, name)
    assert weight.shape == (64, 32)
    inputs = torch.randn(3, 32)
    module = model.get_submodule(name)
    expected = inputs @ (2 * weight).T + module.bias
    set_weight(model, name, 2 * weight)
    torch.testing.assert_close(module(inputs), expected)


def test_set_weight_keeps_the_parameter_and_moves_the_tied_head():
    model = build("gemma3_text")
    model.bfloat16()
    parameter = model.get_input_embeddings().weight
    set_weight(model, "model.embed_tokens", torch.ones(96, 32))
    assert model.get_output_embeddings().weight is parameter
    assert parameter.dtype == torch.bfloat16
    assert (model.lm_head.weight == 1).all()


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_layers_leave_no_hook_and_no_gradient_behind(family):
    model = build(family)
    find_layers(model)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_the_list_with_most_weights_wins_over_a_longer_one():
    model = build("llama")
    model.adapters = nn.ModuleList(nn.Linear(2, 2) for _ in range(50))
    assert blocks(model) is model.model.layers


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InvalidModel, match="no list of blocks"):
        blocks(nn.Sequential(nn.Linear(4, 4)))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", 0),
        ("mixtral", N_BLOCKS * 8 * 3 * 32 * 64),
        ("qwen2_moe", N_BLOCKS * 8 * 3 * 32 * 16),
    ],
)
def test_weights_of_stacked_experts(family, expected):
    assert stacked_weights(build(family)) == expected


def test_kernels_and_vectors_in_three_dimensions_are_no_stacks():
    model = build("llama")
    model.convolution = nn.Conv1d(8, 8, 4)
    model.scale = nn.Parameter(torch.ones(1, 1, 32))
    assert stacked_weights(model) == 0


class SixteenBit:
    """Stands in for a format: this file needs none of the real ones."""

    name = "sixteen_g48"
    num_bits = 16
    input_format = None

    def fits(self, shape):
        return True

    def nbytes(self, shape):
        return 2 * shape[0] * shape[1]


class NeverFits(SixteenBit):
    def fits(self, shape):
        return False


def test_fixed_bytes_are_sixteen_bits_of_all_the_rest():
    model = build("llama")
    space = search_space(model, (SixteenBit(),), SixteenBit(), tied=True)
    n_norms = (2 * N_BLOCKS + 1) * 32
    assert space.fixed_bytes == 2 * n_norms
    assert space.outside_bytes == 2 * (n_norms + 2 * 96 * 32)


def test_a_pinned_format_that_fits_nowhere_is_refused():
    with pytest.raises(InvalidArgument, match=r"Pinned format 'sixteen_g48' does not fit"):
        search_space(build("llama"), (SixteenBit(),), NeverFits(), tied=True)


def test_pinned_format_falls_back_to_its_channel_variant():
    menu = (formats.named("int4_channel"),)
    space = search_space(build("llama"), menu, formats.named("int8_g64"), tied=True)
    assert [f.name for _, f in space.pinned] == ["int8_channel"] * 2
