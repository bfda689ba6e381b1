"""A patched model multiplies by rounded inputs, as a packed layer does; then it is as it was."""

import copy

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bitfront.allocation import Allocation
from bitfront.formats import named
from bitfront.kernels.weights import rounded_inputs
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.models.quant_linear import QuantLinear
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.quantizers.rtn import Rtn

NAMES = (
    "int4_g32",
    "int4_g32_aint8",
    "int4_g32_aint4",
    "int4_g32_cols_aint4",
    "int4_g64_had_amxfp4",
)
LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def space(tiny_llama):
    return search_space(tiny_llama, tuple(map(named, NAMES)), None, True)


@pytest.fixture(scope="module")
def bank(tiny_llama, space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, space, Rtn(clip_steps=0))


class Roundings(TorchDispatchMode):
    """Counts them."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func.name() == "bitfront::round_inputs"
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def test_a_pair_has_the_entry_of_its_weight(space, bank, tmp_path, tiny_llama):
    assert {format for _, format in bank.entries} == {f.weight_format.name for f in space.formats}
    for pair in ("int4_g32_aint8", "int4_g32_aint4"):
        assert torch.equal(bank.weight(LAYER, pair), bank.weight(LAYER, "int4_g32"))
    weights = tuple(dict.fromkeys(f.weight_format for f in space.formats))
    alone = search_space(tiny_llama, weights, None, True)
    assert WeightBank.build(tmp_path, tiny_llama, alone, Rtn(clip_steps=0)).digest == bank.digest


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_gives_what_its_packed_self_gives(name, tiny_llama, tiny_tokens, bank):
    seen = {}
    module = tiny_llama.get_submodule(LAYER)
    first = module.register_forward_pre_hook(lambda _, args: seen.update(exact=args[0]))
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({LAYER: name}))
        last = module.register_forward_hook(lambda _, args, out: seen.update(out=out))
        logits(tiny_llama, tiny_tokens[:2])
    first.remove()
    last.remove()
    packed = QuantLinear(named(name), tuple(module.weight.shape), torch.float32)
    packed.load_state_dict(bank.tensors(LAYER, name))
    torch.testing.assert_close(seen["out"], packed(seen["exact"]), rtol=1e-4, atol=1e-5)
    packed.keeps = True
    torch.testing.assert_close(seen["out"], packed(seen["exact"]), rtol=1e-4, atol=1e-5)
    plain = functional.linear(seen["exact"], bank.weight(LAYER, name))
    is_rounded = not torch.allclose(seen["out"], plain, rtol=1e-4, atol=1e-4)
    assert is_rounded is (named(name).input_format is not None)


def test_layers_that_read_one_tensor_round_it_once_and_others_not_at_all(
    tiny_llama, tiny_tokens, space, bank
):
    def counted(formats):
        with PatchedModel(tiny_llama, bank) as patched, Roundings() as roundings:
            patched.apply(Allocation(formats))
            logits(tiny_llama, tiny_tokens[:1])
        return roundings.n

    alike = {x.name: "int4_g32_aint8" for x in space.layers}
    assert counted(alike) == 4 * 4  # q/k/v, output, gate/up, down
    mixed = alike | {x.name: "int4_g32_aint4" for x in space.layers if x.name.endswith("k_proj")}
    assert counted(mixed) == 4 * 5
    assert counted({x.name: "int4_g32" for x in space.layers}) == 0


def test_hooks_come_and_go_with_pairs(tiny_llama, tiny_tokens, bank, monkeypatch):
    before = logits(tiny_llama, tiny_tokens[:1])
    module = tiny_llama.get_submodule(LAYER)
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({LAYER: "int4_g32"}))
        assert not module._forward_pre_hooks
        held = get_weight(tiny_llama, LAYER).clone()
        monkeypatch.setattr(WeightBank, "weight", None)  # only inputs differ: nothing is read
        for pair in ("int4_g32_aint8", "int4_g32_aint4", "int4_g32_aint4"):
            patched.apply(Allocation({LAYER: pair}))
            assert len(module._forward_pre_hooks) == 1
        assert torch.equal(get_weight(tiny_llama, LAYER), held)
    assert not module._forward_pre_hooks
    assert torch.equal(logits(tiny_llama, tiny_tokens[:1]), before)


def test_gradients_flow_as_if_nothing_was_rounded(bank):
    name = "int4_g64_had_amxfp4"
    packed = QuantLinear(named(name), (64, 128), torch.float32)
    packed.load_state_dict(bank.tensors(LAYER, name))
    inputs = torch.randn(3, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    packed(inputs).sum().backward()
    expected = bank.weight(LAYER, name).sum(dim=0).expand(3, -1)
    torch.testing.assert_close(inputs.grad, expected, rtol=1e-3, atol=1e-4)


def test_skipping_blocks_changes_nothing(tiny_llama, tiny_tokens, bank):
    reference = Reference.of(tiny_llama, tiny_tokens[:2])
    with BlockStart(tiny_llama, reference) as start, PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({LAYER: "int4_g32_aint4"}))
        whole = start.kl()
        patched.apply(Allocation({}))
        start.move_to(1)
        patched.apply(Allocation({LAYER: "int4_g32_aint4"}))
        assert start.kl() == pytest.approx(whole, rel=1e-5)


def test_slopes_of_pairs_are_derivatives_along_the_rounding(tiny_llama, tiny_tokens, space, bank):
    tokens = tiny_tokens[:2]
    reference, row = Reference.of(tiny_llama, tokens), [x.name for x in space.layers].index(LAYER)
    column = {f.name: i for i, f in enumerate(space.formats)}
    start = {x.name: "int4_g32" for x in space.layers}
    model = copy.deepcopy(tiny_llama).double()
    for held, other in (("int4_g32", "int4_g32_aint4"), ("int4_g32_aint4", "int4_g32")):
        allocation = Allocation(start | {LAYER: held})
        with PatchedModel(tiny_llama, bank) as patched:
            patched.apply(allocation)
            table = slopes(tiny_llama, reference, space, bank, allocation)
        assert table.values[row, column[held]] == pytest.approx(0, abs=1e-12)
        for name, format in allocation.formats.items():
            model.get_submodule(name).weight.data = bank.weight(name, format).double()

        def kl(step, held=held, other=other):
            def towards(_module, args):
                x = args[0].float()
                first, last = (rounded_inputs(x, named(n), None).double() for n in (held, other))
                return (first + step * (last - first),)

            hook = model.get_submodule(LAYER).register_forward_pre_hook(towards)
            with torch.no_grad():
                out = model(tokens, use_cache=False).logits[:, :-1].log_softmax(-1)
            hook.remove()
            exact = logits(tiny_llama, tokens)[:, :-1].double().log_softmax(-1)
            return float((exact.exp() * (exact - out)).sum(-1).mean())

        derivative = (kl(1e-3) - kl(-1e-3)) / 2e-3
        assert table.values[row, column[other]] == pytest.approx(derivative, rel=0.03, abs=1e-6)


def with_outliers(model, channels=(3, 17, 40), factor=30.0):
    """The same function with a few loud channels, as inputs of large models have them.

    What the norms multiply by, the weights behind them divide by.
    """
    made = copy.deepcopy(model)
    with torch.no_grad():
        for block in made.model.layers:
            attention, mlp = block.self_attn, block.mlp
            for norm, readers in (
                (block.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                norm.weight[list(channels)] *= factor
                for reader in readers:
                    reader.weight[:, list(channels)] /= factor
    return made


def test_a_rotation_makes_four_bit_inputs_usable_where_channels_are_loud(
    tiny_llama, tiny_tokens, tmp_path
):
    """QuaRot, section 5: W4A4 without a rotation is useless on models with outlier channels."""
    loud = with_outliers(tiny_llama)
    torch.testing.assert_close(
        logits(loud, tiny_tokens[:1]), logits(tiny_llama, tiny_tokens[:1]), rtol=1e-3, atol=1e-3
    )
    menu = ("int4_channel_sym", "int4_channel_sym_had")
    names = [f"{weights}{inputs}" for weights in menu for inputs in ("", "_aint4")]
    space = search_space(loud, tuple(map(named, names)), None, True)
    made = WeightBank.build(tmp_path, loud, space, Rtn(clip_steps=0))
    reference, kl = Reference.of(loud, tiny_tokens[:4]), {}
    with BlockStart(loud, reference) as start, PatchedModel(loud, made) as patched:
        for name in names:
            patched.apply(Allocation({x.name: name for x in space.layers}))
            kl[name] = start.kl()
    plain, turned = (kl[f"{weights}_aint4"] for weights in menu)
    assert turned < 0.4 * plain
    assert turned - kl[menu[1]] < 0.3 * (plain - kl[menu[0]])
