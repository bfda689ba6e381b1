"""Inputs of convolutions are rounded where the layer reads them, one scale for each image."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats._activations import ACTIVATIONS
from bitfront.kernels.weights import rounded_images, rounded_inputs
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space
from bitfront.models.patch import PatchedModel
from bitfront.models.quant_linear import packed_like
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.models.tasks import run
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity._inputs import input_energy, input_fisher

DEPTHWISE = "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv"
EXPAND = "efficientnet.encoder.blocks.2.expansion.expand_conv"  # 24 channels
PROJECT = "efficientnet.encoder.blocks.1.projection.project_conv"  # 64 channels
TOP = "efficientnet.encoder.top_conv"
NAMES = ("int8_channel", "int8_channel_aint8", "int8_channel_aint4_asym", "int8_channel_afp8")
BY_CHANNEL = ("int8_channel_aint4_g32", "int8_channel_anvfp4", "int8_channel_sym_had_aint4")


@pytest.fixture(scope="module")
def space(tiny_convnet):
    return search_space(tiny_convnet, tuple(map(named, (*NAMES, *BY_CHANNEL))), None, True)


@pytest.fixture(scope="module")
def bank(tiny_convnet, space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_convnet, space, Rtn(clip_steps=0))


def test_an_image_has_one_scale_and_none_of_its_batch():
    images = torch.randn(3, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    images[1] *= 1000
    for name in ("int8", "int4_asym", "fp8"):
        made = rounded_images(images, named(f"int8_channel_a{name}"), None)
        alone = [ACTIVATIONS[name].rounded(image.reshape(1, -1)) for image in images]
        torch.testing.assert_close(made, torch.cat(alone).reshape(images.shape), rtol=0, atol=0)
    levels = rounded_images(images, named("int8_channel_aint4"), None)
    assert all(len(image.unique()) <= 16 for image in levels)


def test_what_goes_by_channel_is_a_linear_layer_at_each_position():
    images = torch.randn(2, 64, 3, 5, generator=torch.Generator().manual_seed(0))
    positions = images.movedim(1, -1)
    for name in ("int8_channel_aint4_g32", "mxfp4_amxfp4"):
        expected = rounded_inputs(positions, named(name), None).movedim(-1, 1)
        torch.testing.assert_close(rounded_images(images, named(name), None), expected)
    grouped = rounded_images(images, named("mxfp4_amxfp4"), None, n_groups=2)
    torch.testing.assert_close(grouped, rounded_images(images, named("mxfp4_amxfp4"), None))
    turned = rounded_images(images, named("int8_channel_sym_had_aint8"), None)
    assert 0 < float((turned - images).norm() / images.norm()) < 0.02


def test_kernels_of_several_taps_take_no_groups_of_channels(tiny_convnet, tiny_vit, space):
    row = {x.name: space.allowed[i].tolist() for i, x in enumerate(space.layers)}
    assert row[DEPTHWISE] == [True] * 4 + [False] * 3
    assert row[PROJECT] == [True] * 7
    assert row[EXPAND] == [True] * 4 + [False, False, True]  # 24 are no whole groups of 32 or 16
    taken = (named("int8_channel_sym_had_aint4"),)
    for model, kernel in ((tiny_convnet, "3 x 3"), (tiny_vit, "8 x 8")):
        with pytest.raises(InvalidArgument, match=f"kernel of {kernel} have one scale") as refused:
            search_space(model, taken, None, True)
        assert "\n" not in str(refused.value)
    of_linears = search_space(tiny_vit, (*taken, named("bf16")), None, True)
    first = of_linears.layers[0].name
    assert first.endswith("projection")
    assert of_linears.allowed[0].tolist() == [False, True]
    assert of_linears.allowed[1:].all()
    assert type(of_linears).from_json(of_linears.to_json()) == of_linears


@pytest.mark.parametrize(("layer", "name"), [
    (DEPTHWISE, "int8_channel_aint4_asym"), (TOP, "int8_channel_aint8"),
    (PROJECT, "int8_channel_aint4_g32"), (PROJECT, "int8_channel_sym_had_aint4"),
])  # fmt: skip
def test_a_packed_convolution_gives_what_the_patched_one_does(
    layer, name, tiny_convnet, digit_pixels, bank
):
    module, seen = tiny_convnet.get_submodule(layer), {}
    first = module.register_forward_pre_hook(lambda _, args: seen.update(exact=args[0]))
    before = get_weight(tiny_convnet, layer).clone()
    with PatchedModel(tiny_convnet, bank) as patched, torch.no_grad():
        patched.apply(Allocation({layer: name}))
        last = module.register_forward_hook(lambda _, args, out: seen.update(out=out, args=args))
        run(tiny_convnet, digit_pixels[:2])
    first.remove()
    last.remove()
    assert not module._forward_pre_hooks
    assert torch.equal(get_weight(tiny_convnet, layer), before)
    assert not torch.equal(seen["args"][0], seen["exact"])
    packed = packed_like(module, named(name))
    packed.load_state_dict(bank.tensors(layer, name), strict=False)
    exact = seen["exact"].requires_grad_()
    torch.testing.assert_close(packed(exact), seen["out"], rtol=1e-4, atol=1e-5)
    packed(exact).sum().backward()  # gradients flow as if nothing was rounded
    again = exact.detach().clone().requires_grad_()
    with torch.no_grad():
        module_weight = bank.weight(layer, name).reshape(module.weight.shape)
    nn.functional.conv2d(
        again, module_weight, None, module.stride, module.padding, module.dilation, module.groups
    ).sum().backward()
    torch.testing.assert_close(exact.grad, again.grad, rtol=1e-3, atol=1e-4)


def test_output_error_of_a_rounding_is_that_of_the_convolution(tiny_convnet, digit_pixels, bank):
    space, seen = bank.space, []
    pixels, row = digit_pixels[:2], [x.name for x in space.layers].index(DEPTHWISE)
    module = tiny_convnet.get_submodule(DEPTHWISE)
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        run(tiny_convnet, pixels)
        hook.remove()
        exact = torch.cat(seen)
        found = input_energy(tiny_convnet, pixels, space, bank, relative=False)[row]
        for column, name in enumerate(NAMES):
            change = module(rounded_images(exact, named(name), None, 64)) - module(exact)
            expected = float(change.square().sum(dim=1).mean())
            assert found[column] == pytest.approx(expected, rel=1e-3)


def test_slopes_and_fisher_of_pairs_are_derivatives_along_the_rounding(
    tiny_convnet, digit_pixels, space, bank
):
    pixels, held = digit_pixels[:6], "int8_channel"
    reference = Reference.of(tiny_convnet, pixels)
    few = replace(space, layers=tuple(x for x in space.layers if x.name in (DEPTHWISE, PROJECT)))
    allocation = Allocation({x.name: held for x in few.layers})
    module = tiny_convnet.get_submodule(DEPTHWISE)
    with PatchedModel(tiny_convnet, bank) as patched:
        patched.apply(allocation)
        table = slopes(tiny_convnet, reference, few, bank, allocation)
        other = "int8_channel_aint4_asym"

        def kl(step):
            def towards(module, args):
                made = rounded_images(args[0], named(other), None, module.groups)
                return (args[0] + step * (made - args[0]),)

            hook = module.register_forward_pre_hook(towards)
            with torch.no_grad():
                found = [reference.divergence(run(tiny_convnet, x[None])[0], i).double().mean()
                         for i, x in enumerate(pixels)]  # fmt: skip
            hook.remove()
            return float(sum(found) / len(pixels))

        derivative = (kl(0.005) - kl(-0.005)) / 0.01
    row = [x.name for x in few.layers].index(DEPTHWISE)
    assert table.values[row, 0] == 0
    assert table.values[row, NAMES.index(other)] == pytest.approx(derivative, rel=0.05)
    added = input_fisher(tiny_convnet, pixels, few, bank)
    assert (added[:, 0] == 0).all()
    assert (added[:, 2] > added[:, 1]).all()
