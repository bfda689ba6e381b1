"""Packed layers that read one tensor: one product for all, and the numbers of each alone."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaForCausalLM

from bitfront import formats
from bitfront.models import quant_linear
from bitfront.models.decoding import fill
from bitfront.models.layers import find_layers
from bitfront.models.packed_checkpoint import replace_with_packed
from bitfront.models.quant_linear import QuantLinear, join_siblings

MENU = ("int4_g32", "int3_g64", "nf4_g32")


@pytest.fixture
def fused(monkeypatch):
    """Layers multiply by the operator whatever the input, as on a GPU; it runs its reference."""
    monkeypatch.setattr(quant_linear, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(quant_linear.torch_cpu, "most_tokens", lambda is_kept: 0)


@pytest.fixture
def products(fused, monkeypatch):
    """Names of formats of each call of the operator."""
    made, multiply = [], quant_linear.dequant_matmul

    def noted(*arguments):
        made.append(arguments[2])
        return multiply(*arguments)

    for module in (quant_linear, quant_linear.weights):
        monkeypatch.setattr(module, "dequant_matmul", noted)
    return made


def packed(tiny_folder):
    """A tiny Llama, its formats in turn, and the groups of its layers."""
    model = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).eval()
    groups = {}
    for index, layer in enumerate(find_layers(model)):
        replace_with_packed(model, layer.name, formats.named(MENU[index % 3]))
        fill(model.get_submodule(layer.name))
        groups.setdefault(layer.group, []).append(layer.name)
    return model, [names for names in groups.values() if len(names) > 1]


def held(model):
    return [m.siblings._held for m in model.modules() if isinstance(m, QuantLinear) and m.siblings]


def test_a_model_gives_the_same_in_fewer_products(tiny_folder, products):
    model, groups = packed(tiny_folder)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        apart = model(tokens).logits
        n_apart = len(products)
        join_siblings(model, groups)
        products.clear()
        together = model(tokens).logits
        assert torch.equal(copy.deepcopy(model)(tokens).logits, together)
    assert torch.equal(together, apart)
    n_blocks = model.config.num_hidden_layers
    assert n_apart == 7 * n_blocks
    assert [len(names) for names in products] == [3, 1, 2, 1] * n_blocks * 2
    assert set(held(model)) == {None}


def test_it_is_compiled_whole_and_only_once(tiny_folder, fused):
    """Nothing that is held between two layers is held after a pass: no guard, no other output."""
    model, groups = packed(tiny_folder)
    join_siblings(model, groups)
    mlp, graphs = model.model.layers[0].mlp, []

    def backend(graph, _):
        graphs.append(graph.graph)
        return graph

    compiled = torch.compile(mlp, fullgraph=True, backend=backend)
    with torch.no_grad():
        for seed in (0, 1):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(2, 64, generator=generator).bfloat16()
            assert torch.equal(compiled(x), mlp(x))
    (graph,) = graphs
    assert sum("dequant_matmul" in str(node.target) for node in graph.nodes) == 2
    assert len(graph.output_node().args[0]) == 1
    assert set(held(model)) == {None}


@pytest.fixture
def layers(products):
    """Three siblings and one of other columns; the middle one has a bias."""
    made = nn.ModuleList()
    for name, shape in zip(MENU, ((24, 64), (8, 64), (16, 64)), strict=True):
        made.append(QuantLinear(formats.named(name), shape, torch.float32))
        fill(made[-1])
    made[1].bias = nn.Parameter(torch.arange(8.0))
    made.append(QuantLinear(formats.named("int4_g32"), (8, 32), torch.float32))
    join_siblings(made, [["0", "1", "2"]])
    return made


def test_what_comes_out_does_not_depend_on_who_was_called_before(layers, products):
    a, b = (torch.randn(3, 64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    calls = [(0, a), (1, a), (2, a), (2, a), (0, b), (1, a), (1, a.clone()), (0, b), (0, b), (1, b)]
    for place, x in calls:
        alone = nn.functional.linear(x, layers[place].matrix(x.dtype), layers[place].bias)
        torch.testing.assert_close(layers[place](x), alone)
    assert len(products) == 7  # one for the first three, and all others but the last take anew


def test_gradients_reach_all_that_was_read(layers):
    x = torch.randn(2, 64, requires_grad=True)
    outputs = [layer(x) for layer in layers[:3]]
    loss = sum((each * (1 + place)).sum() for place, each in enumerate(outputs))
    found = torch.autograd.grad(loss, (x, layers[1].bias))
    wanted = sum((1 + p) * layers[p].matrix(x.dtype).sum(0) for p in range(3))
    torch.testing.assert_close(found[0], wanted.expand(2, -1))
    torch.testing.assert_close(found[1], torch.full((8,), 4.0))


def test_layers_that_cannot_be_one_are_left_alone(layers):
    join_siblings(layers, [["0", "3"]])  # of other columns
    assert all(layer.siblings is None for layer in layers)


def test_on_a_cpu_each_layer_has_its_own_way(tiny_folder, monkeypatch):
    model, groups = packed(tiny_folder)
    join_siblings(model, groups)
    layer = model.model.layers[0].self_attn.q_proj
    x = torch.randn(1, layer.shape[1], dtype=torch.bfloat16)
    monkeypatch.setattr(layer.siblings, "output", None)
    assert layer(x).shape == (1, layer.shape[0])


def test_layers_of_a_gpu_are_traced_whole_even_without_one():
    """On tensors that only say they are there: in one product, with no question to the device."""
    graphs = []

    def backend(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"), torch.no_grad():
        shape = (8, 64)
        layers = nn.ModuleList(
            QuantLinear(formats.named(n), shape, torch.bfloat16) for n in MENU[:2]
        )
        join_siblings(layers, [["0", "1"]])
        compiled = torch.compile(lambda x: [f(x) for f in layers], fullgraph=True, backend=backend)
        outputs = compiled(torch.empty(3, 64, dtype=torch.bfloat16))
    assert [tuple(each.shape) for each in outputs] == [(3, 8), (3, 8)]
    assert [sum("dequant_matmul" in each for each in graph) for graph in graphs] == [1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_they_are_captured_in_a_graph(tiny_folder):
    model, groups = packed(tiny_folder)
    join_siblings(model.cuda(), groups)
    attention, x = model.model.layers[0].self_attn, torch.randn(1, 64, device="cuda").bfloat16()
    wanted = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    graph.replay()
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("other", "is_joined"),
    [("lut3_g64", True), ("int4_g64_had", False), ("slim3_g32", False), ("higgs_n32p2_g64", False)],
)
def test_a_layer_that_is_turned_or_in_parts_stays_apart(other, is_joined):
    names = ("int4_g64", "int3_g64", other)
    layers = nn.ModuleList([QuantLinear(formats.named(x), (16, 128), torch.half) for x in names])
    join_siblings(layers, [["0", "1", "2"]])
    assert layers[0].siblings is layers[1].siblings is not None
    assert (layers[2].siblings is layers[0].siblings) == is_joined
