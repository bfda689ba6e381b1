"""Separate experts compute what the stack did, and statistics are of the tokens each one saw."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3MoeForCausalLM

from bitfront import formats
from bitfront.experts import Grouping
from bitfront.models.bank import WeightBank
from bitfront.models.decoding import DecodingStep, Hollow, hollowed
from bitfront.models.expert_groups import clusters, features
from bitfront.models.experts import (
    SeparateExperts,
    active_share,
    expert_modules,
    restacked,
    separate_experts,
    tokens_seen,
)
from bitfront.models.gradients import visit_gradients, weight_gradients
from bitfront.models.layers import fixed_tensors, get_weight, search_space, stacked_weights
from bitfront.models.losses import LabelLoss
from bitfront.models.patch import PatchedModel
from bitfront.models.statistics import input_grams
from bitfront.quantizers.rtn import Rtn
from bitfront.space import SearchSpace
from tests.models.test_layers import SIZES

ROUTED = SIZES | {"num_key_value_heads": 2, "num_experts_per_tok": 2}
LATENT = {
    "n_routed_experts": 8, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4,
}  # fmt: skip
# family: config fields, blocks with experts, experts of a block
FAMILIES = {
    "mixtral": (ROUTED | {"num_local_experts": 4}, 2, 4),
    "qwen2_moe": (
        ROUTED
        | {"num_experts": 6, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 48},
        *(2, 6),
    ),
    "qwen3_moe": (ROUTED | {"num_experts": 8, "moe_intermediate_size": 16, "head_dim": 8}, 2, 8),
    "deepseek_v3": (ROUTED | LATENT, 1, 8),
    # gate and up interleaved, weights transposed, with biases
    "gpt_oss": (
        ROUTED
        | {"num_local_experts": 4, "head_dim": 8, "initial_context_length": 64}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        *(2, 4),
    ),
}
MENU = tuple(map(formats.named, ("int2_channel", "int4_channel")))


def build(family):
    """With weights so large that every expert matters, and a router that is not of zeros."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family][0])
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def tokens():
    return torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model):
    return model(tokens()).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_as_the_loop_and_the_batched_product_of_transformers(family):
    model = build(family).double()
    expected = {}
    for name in ("eager", "batched_mm"):
        model.set_experts_implementation(name)
        expected[name] = logits(model)
    before = sum(p.numel() for p in model.parameters())
    assert separate_experts(model) == FAMILIES[family][1]
    found = logits(model)
    for stacked in expected.values():
        torch.testing.assert_close(found, stacked, rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in model.parameters()) == before
    assert stacked_weights(model) == 0
    assert separate_experts(model) == 0
    # Experts are not idle: without one, other logits.
    next(iter(expert_modules(model).values()))[0].down_proj.weight.detach().zero_()
    assert (logits(model) - found).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_the_same_logits_as_the_grouped_product_in_float32(family):
    model = build(family)
    model.set_experts_implementation("grouped_mm")
    expected = logits(model)
    separate_experts(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_again_they_are_what_they_were(family):
    model = build(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    separate_experts(model)
    after = restacked(model, model.state_dict())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_expert_has_layers_and_every_tensor_counts_once(family):
    _, n_blocks, n_experts = FAMILIES[family]
    model = build(family)
    n_parameters = sum(p.numel() for p in model.parameters())
    separate_experts(model)
    space = search_space(model, MENU, None, tied=True)
    routed = [x for x in space.layers if x.active < 1]
    assert len(routed) == n_blocks * n_experts * 2
    assert {x.active for x in routed} == {2 / n_experts}
    assert len({x.kind for x in routed}) == 2
    fixed = fixed_tensors(model, {x.name for x in space.layers})
    n_fixed = sum(t.numel() for name, t in fixed.items() if name in dict(model.named_parameters()))
    assert space.n_weights + n_fixed == n_parameters
    assert not any(
        "gate" in x.name.rpartition(".")[2] and x.active == 1
        for x in space.layers
        if x.shape[0] == n_experts
    )


@pytest.mark.parametrize(
    ("grouping", "n_groups"),
    [("matrix", 32), ("expert", 16), ("cluster:3", 6), ("cluster:99", 16), ("block", 2)],
)
def test_groups_of_experts(tiny_moe, grouping, n_groups):
    space = search_space(tiny_moe, MENU, None, True, experts=Grouping.parse(grouping))
    routed = {x.group: x.block for x in space.layers if x.active < 1}
    assert len(routed) == n_groups
    # attention is grouped as ever, and no group has layers of two blocks
    assert len(space.groups) == n_groups + 4
    for group in space.groups:
        assert len({space.layers[row].block for row in group}) == 1
    kept = SearchSpace.from_json(space.to_json())
    assert kept.layers == space.layers
    assert kept.digest == space.digest


def test_clusters_are_of_experts_that_are_alike():
    points = np.array([[0.0, 1.0], [9.0, 1.0], [0.2, 1.0], [9.1, 1.0], [-5.0, 1.0]])
    assert clusters(points, 3).tolist() == [0, 1, 0, 1, 2]
    assert clusters(points, 3, seed=5).tolist() == [0, 1, 0, 1, 2]
    assert clusters(points[:, 1:], 3).tolist() == [0] * 5


def test_features_are_norms_of_matrices_and_of_the_row_of_the_router():
    model = build("mixtral")
    separate_experts(model)
    found = features(model, "model.layers.1.mlp.experts")
    block = model.model.layers[1].mlp
    expert = block.experts[2]
    expected = [expert.gate_up_proj.weight, expert.down_proj.weight, block.gate.weight[2]]
    np.testing.assert_allclose(
        found[2], [float(x.detach().norm().log()) for x in expected], rtol=1e-5
    )


def test_a_stack_that_is_followed_by_a_norm_stays():
    model = build("mixtral")
    model.model.layers[0].mlp.experts.has_post_expert_norm = True
    assert separate_experts(model) == 1
    assert stacked_weights(model) == 4 * 3 * 32 * 64


def test_active_share_without_a_number_is_all():
    model = build("mixtral")
    assert active_share(model, 4) == 0.5
    assert active_share(model, 1) == 1.0


# Statistics


def seen_by_the_loop(model, name, index):
    """Inputs of one expert, found from the stacked module's own arguments, `[n, hidden]`."""
    rows = []

    def keep(_module, args):
        hidden, chosen, _ = args
        rows.append(hidden[(chosen == index).any(dim=-1)])

    hook = model.get_submodule(name).register_forward_pre_hook(keep)
    with torch.no_grad():
        for sequence in tokens():
            model(sequence[None])
    hook.remove()
    return torch.cat(rows)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_grams_and_counts_are_of_the_tokens_that_an_expert_saw(family):
    stacked = build(family)
    stacked.set_experts_implementation("eager")
    model = copy.deepcopy(stacked)
    separate_experts(model)
    seen = tokens_seen(model, tokens())
    module = list(seen.counts)[-1]
    assert sum(seen.counts[module]) == tokens().numel() * 2
    names = [f"{module}.{index}.gate_up_proj" for index in range(len(seen.counts[module]))]
    grams = input_grams(model, tokens(), names)
    for index, name in enumerate(names):
        inputs = seen_by_the_loop(stacked, module, index)
        assert len(inputs) == seen.counts[module][index]
        expected = inputs.T @ inputs / max(len(inputs), 1)
        torch.testing.assert_close(grams[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_gradients_of_slices_are_those_of_the_stack_for_each_sequence(family):
    stacked = build(family)
    stacked.set_experts_implementation("eager")
    model = copy.deepcopy(stacked)
    separate_experts(model)
    space = search_space(model, MENU, None, tied=True)
    loss = LabelLoss.of(tokens(), "text", 1, 0)
    found: dict[int, list[torch.Tensor]] = {}

    def visit(row, inputs, gradients):
        assert len(inputs) == 1  # a sequence at a time, or squares would mix sequences
        found.setdefault(row, []).append(weight_gradients(inputs, gradients)[0])

    visit_gradients(model, tokens(), space, loss, visit)
    for parameter in stacked.parameters():
        parameter.requires_grad_(True)
    sequences = []
    for row in range(2):
        stacked.zero_grad()
        batch = tokens()[row : row + 1]
        out = stacked(batch, use_cache=False).logits
        out.backward(loss(out.detach(), slice(row, row + 1), 0))
        sequences.append({n: p.grad.clone() for n, p in stacked.named_parameters()})
    for index, layer in enumerate(space.layers):
        if layer.active == 1:
            continue
        module, number, part = layer.name.rsplit(".", 2)
        expected = [grads[f"{module}.{part}"][int(number)] for grads in sequences]
        total = sum(found.get(index, [torch.zeros(layer.shape)]))
        torch.testing.assert_close(total, sum(expected), rtol=1e-3, atol=1e-5)


def test_slices_are_swapped_and_put_back(tiny_moe, tiny_tokens, tmp_path):
    space = search_space(tiny_moe, MENU[1:], None, tied=True)
    bank = WeightBank.build(tmp_path, tiny_moe, space, Rtn(clip_steps=0))
    layer = next(x for x in space.layers if x.active < 1)
    before = get_weight(tiny_moe, layer.name).clone()
    others = {n: t.clone() for n, t in tiny_moe.state_dict().items() if layer.name not in n}
    with PatchedModel(tiny_moe, bank) as patched:
        patched.apply(space.decode([0] * len(space.groups)))
        expected = bank.weight(layer.name, "int4_channel")
        assert torch.equal(get_weight(tiny_moe, layer.name), expected)
        assert not torch.equal(expected, before)
    assert torch.equal(get_weight(tiny_moe, layer.name), before)
    assert all(torch.equal(tiny_moe.state_dict()[n], t) for n, t in others.items())


def test_the_stack_gives_its_memory_away(moe_folder):
    model = Qwen3MoeForCausalLM.from_pretrained(moe_folder, dtype=torch.float32)
    stack = model.model.layers[0].mlp.experts
    address = stack.gate_up_proj.data_ptr()
    separate_experts(model)
    experts = model.model.layers[0].mlp.experts
    assert isinstance(experts, SeparateExperts)
    assert experts[0].gate_up_proj.weight.data_ptr() == address
    assert not list(stack.parameters())


def test_the_rest_of_a_decoding_step_runs_without_the_weights_of_experts(moe_folder):
    model = Qwen3MoeForCausalLM.from_pretrained(moe_folder, dtype=torch.float32).eval()
    separate_experts(model)
    space = search_space(model, MENU, None, tied=False)
    hollow = hollowed(model, space)
    assert {type(hollow.get_submodule(x.name)) for x in space.layers} == {Hollow}
    assert DecodingStep(hollow, 2, 8).run().shape == (2, 1, 512)
