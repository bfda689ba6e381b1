"""Convolutional models: their layers, how often these multiply, what is measured of them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, unfold
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from bitfront.costs import COSTS
from bitfront.errors import InvalidArgument
from bitfront.formats import catalogue, named
from bitfront.kernels.weights import by_channel, rounded_images
from bitfront.models.bank import WeightBank
from bitfront.models.layers import find_layers, get_weight, search_space, set_weight
from bitfront.models.matrices import as_matrix
from bitfront.models.patch import PatchedModel
from bitfront.models.quant_linear import keep_decoded, packed_like
from bitfront.models.shifted import ShiftedGrams, shifted_grams
from bitfront.models.statistics import InputGrams, _RelativeGramSums, input_grams
from bitfront.models.tasks import ImageClassification, run
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.rtn import Rtn
from bitfront.space import SearchSpace

MENU = ("int2_channel", "int4_channel", "int8_channel", "bf16")


def resnet():
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        downsample_in_bottleneck=True,
        num_labels=10,
        image_size=32,
    )
    return ResNetForImageClassification(config)


def mobilenet():
    config = MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=10)
    return MobileNetV2ForImageClassification(config)


def vit():
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    return ViTForImageClassification(config)


MODELS = {"resnet": resnet, "mobilenet": mobilenet, "vit": vit}


@pytest.fixture(scope="module", params=[*MODELS, "efficientnet"])
def model(request, tiny_convnet):
    if request.param == "efficientnet":
        return tiny_convnet
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def products_of(model, names):
    """Multiplications of one image, from the shapes of inputs and outputs alone."""
    counts = {}

    def hook(name):
        def count(module, inputs, output):
            each = module.weight[0].numel() if isinstance(module, nn.Conv2d) else output.shape[-1]
            other = 1 if isinstance(module, nn.Conv2d) else inputs[0].shape[-1]
            n = output.numel() if isinstance(module, nn.Conv2d) else output[..., 0].numel()
            counts[name] = counts.get(name, 0) + n * each * other

        return count

    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for handle in hooks:
        handle.remove()
    return counts


def test_every_convolution_is_a_layer_and_its_products_are_counted(model):
    layers = find_layers(model)
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert set(convolutions) <= {layer.name for layer in layers}
    for layer in layers:
        module = model.get_submodule(layer.name)
        assert layer.shape == as_matrix(module, module.weight).shape
        if isinstance(module, nn.Conv2d):
            assert layer.group == layer.name
    expected = products_of(model, [layer.name for layer in layers])
    assert {x.name: x.n_weights * x.positions for x in layers} == expected
    space = SearchSpace(layers, tuple(map(named, MENU)))
    (bops,) = COSTS.build("bops", {"activation_bits": 8}).cost(space)
    assert bops.values[:, 1].sum() == 4 * 8 * sum(expected.values())
    assert SearchSpace.from_json(space.to_json()) == space


def test_the_stem_has_no_block_and_depthwise_kernels_a_kind_of_their_own(tiny_convnet):
    layers = {layer.name: layer for layer in find_layers(tiny_convnet)}
    stem = layers["efficientnet.embeddings.convolution"]
    assert (stem.block, stem.shape, stem.positions) == (-1, (8, 27), 16 * 16)
    depthwise = layers["efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv"]
    assert (depthwise.block, depthwise.shape, depthwise.positions) == (1, (64, 25), 8 * 8)
    assert depthwise.kind == "depthwise_conv.depthwise_conv"
    squeeze = layers["efficientnet.encoder.blocks.1.squeeze_excite.reduce"]
    assert (squeeze.shape, squeeze.positions) == ((4, 64), 1)


def test_latency_tables_of_decoding_are_no_times_of_images(tiny_convnet, tmp_path):
    space = SearchSpace(find_layers(tiny_convnet), tuple(map(named, MENU)))
    table = tmp_path / "table.json"
    with pytest.raises(InvalidArgument, match="positions of an image: use bops or roofline"):
        COSTS.build("latency", {"table": str(table)}).cost(space)
    (times,) = COSTS.build("roofline", {"device": "cpu"}).cost(space)
    assert times.values.min() > 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_weight_is_written_in_place(memory_format):
    model = nn.Sequential(nn.Conv2d(6, 4, 3).to(memory_format=memory_format))
    parameter, matrix = model[0].weight, torch.randn(4, 54)
    set_weight(model, "0", matrix)
    assert model[0].weight is parameter
    assert torch.equal(get_weight(model, "0"), matrix)
    assert torch.equal(parameter[2].flatten(), matrix[2])


def test_gram_matrices_are_those_of_the_patches(tiny_convnet, digit_pixels):
    block = "efficientnet.encoder.blocks.1"
    names = [f"{block}.{x}" for x in ("expansion.expand_conv", "depthwise_conv.depthwise_conv")]
    inputs = {}
    hooks = [
        tiny_convnet.get_submodule(n).register_forward_pre_hook(
            lambda module, args, n=n: inputs.update({n: args[0]})
        )
        for n in names
    ]
    with torch.no_grad():
        tiny_convnet(digit_pixels[:3])
    for hook in hooks:
        hook.remove()
    grams = input_grams(tiny_convnet, digit_pixels[:3], names)
    rows = inputs[names[0]].flatten(2).mT.flatten(0, 1)
    torch.testing.assert_close(grams[names[0]], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)
    patches = unfold(inputs[names[1]], 5, stride=2).unflatten(1, (64, 25))
    expected = torch.einsum("ngcl,ngdl->gcd", patches, patches) / (3 * patches.shape[-1])
    torch.testing.assert_close(grams[names[1]], expected, rtol=1e-4, atol=1e-5)


def test_relative_gram_matrices_are_of_patches_over_what_their_group_puts_out():
    torch.manual_seed(0)
    module, pixels = nn.Conv2d(3, 6, 3, groups=3, padding=1), torch.randn(2, 3, 8, 8)
    sums = _RelativeGramSums(ImageClassification())
    module.register_forward_hook(sums.hook("convolution"))
    with torch.no_grad():
        power = module(pixels).flatten(2).unflatten(1, (3, 2)).square().sum(dim=2)
    patches = unfold(pixels, 3, padding=1).unflatten(1, (3, 9))
    expected = torch.einsum("ngcl,ngdl,ngl->gcd", patches, patches, 1 / power) / (2 * 64)
    torch.testing.assert_close(sums.mean("convolution"), expected, rtol=1e-4, atol=1e-5)


def test_a_shortcut_reads_the_same_tensor_otherwise():
    """It skips every other position, so it must not share the matrix of the layer before it."""
    torch.manual_seed(0)
    model = resnet().eval()
    model.resnet.encoder.stages[1].layers[0].layer[0].convolution.stride = (1, 1)
    model.resnet.encoder.stages[1].layers[0].layer[1].convolution.stride = (2, 2)
    stage = "resnet.encoder.stages.1.layers.0"
    names = [f"{stage}.shortcut.convolution", f"{stage}.layer.0.convolution"]
    pixels = torch.randn(2, 3, 32, 32)
    together = input_grams(model, pixels, names)
    for name in names:
        torch.testing.assert_close(together[name], input_grams(model, pixels, [name])[name])
    assert not torch.equal(*together.values())


def test_runs_of_grams_count_the_groups(tiny_convnet, digit_pixels):
    layers = find_layers(tiny_convnet)
    columns = {x.name: x.shape[1] for x in layers}
    grams = InputGrams(tiny_convnet, digit_pixels[:1], columns, max_bytes=4 * 64 * 25**2)
    for run_of_layers in {grams._run_of[name] for name in columns}:
        sizes = [grams[name].numel() for name in run_of_layers]
        assert len(sizes) == 1 or sum(sizes) <= 64 * 25**2


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_a_bank_of_every_quantizer_lets_the_model_answer_nearly_the_same(
    name, tiny_convnet, digit_pixels, tmp_path
):
    space = search_space(tiny_convnet, (named("int4_channel"), named("lut3_channel")), None, True)
    columns = {x.name: x.shape[1] for x in space.layers}
    grams = InputGrams(tiny_convnet, digit_pixels[:8], columns)
    bank = WeightBank.build(tmp_path, tiny_convnet, space, QUANTIZERS.build(name), grams)
    chosen = space.decode(space.uniform(0))
    with torch.no_grad():
        expected = run(tiny_convnet, digit_pixels[:64])[:, 0].argmax(-1)
        with PatchedModel(tiny_convnet, bank) as patched:
            patched.apply(chosen)
            found = run(tiny_convnet, digit_pixels[:64])[:, 0].argmax(-1)
        assert torch.equal(run(tiny_convnet, digit_pixels[:64])[:, 0].argmax(-1), expected)
    assert (found == expected).float().mean() > 0.8


def test_the_shift_of_inputs_behind_quantized_convolutions(tiny_convnet, digit_pixels, tmp_path):
    """GPTAQ's second matrix, in groups; behind unchanged layers it is zero."""
    depthwise = "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv"
    names = ["efficientnet.embeddings.convolution", depthwise]
    same = shifted_grams(tiny_convnet, tiny_convnet, digit_pixels[:2], names)
    assert same[depthwise].shape == (2, 64, 25, 25)
    assert same[names[0]].shape == (2, 1, 27, 27)
    assert not same[depthwise][1].any()
    space = search_space(tiny_convnet, (named("int3_channel"),), None, True)
    chosen, gptaq = space.decode(space.uniform(0)), QUANTIZERS.build("gptaq")
    grams = ShiftedGrams(tiny_convnet, digit_pixels[:2], space, chosen, gptaq)
    bank = WeightBank.build(tmp_path, tiny_convnet, space, gptaq, grams, used=chosen)
    assert grams[depthwise][1].any()
    assert bank.weight(depthwise, "int3_channel").isfinite().all()


CONVOLUTIONS = {
    "depthwise": lambda: nn.Conv2d(12, 12, 3, padding=1, groups=12),
    "strided": lambda: nn.Conv2d(3, 5, 7, stride=2, bias=False),
    "of patches": lambda: nn.Conv2d(16, 4, 4, stride=4),
    "in groups": lambda: nn.Conv2d(128, 6, 1, groups=2),
    "of pixels": lambda: nn.Conv2d(256, 4, 1),
    "of one channel": lambda: nn.Conv2d(1, 1, (1, 5), padding="same", dilation=2),
}


def hostile_convolution(kind):
    """Weights with tails, taps of zeros and a row of zeros."""
    torch.manual_seed(0)
    module = CONVOLUTIONS[kind]().requires_grad_(False)
    weight = module.weight
    weight.div_(torch.randn(weight.shape)).mul_(0.1)
    if len(weight) > 1:
        weight[:, :, 0, 0] = 0
        weight[-1] = 0
    return module


def as_decoded(module, inputs, values, format, tensors):
    """What torch computes of the decoded weight, with inputs as the format says."""
    seen = rounded_images(inputs, format, format.input_scale(tensors), module.groups)
    others = module.stride, module.padding, module.dilation, module.groups
    return conv2d(seen, values.reshape(module.weight.shape), module.bias, *others)


@pytest.mark.parametrize("name", catalogue())
def test_every_format_convolves_packed_as_decoded(name):
    format, n_fitting = named(name), 0
    for kind in CONVOLUTIONS:
        module = hostile_convolution(kind)
        matrix = as_matrix(module, module.weight)
        has_taps = set(module.kernel_size) != {1}
        if not format.fits(tuple(matrix.shape)) or (has_taps and by_channel(format)):
            continue
        n_fitting += 1
        quantized = Rtn(clip_steps=0).quantize(matrix, format)
        values, tensors = quantized.dequantize(), quantized.tensors()
        packed = packed_like(module, format)
        packed.load_state_dict(tensors, strict=False)
        held = sum(t.numel() * t.itemsize for t in packed.tensors().values())
        assert held == format.nbytes(tuple(matrix.shape)), kind
        assert torch.equal(packed.matrix(torch.float32), values), kind
        inputs = torch.randn(2, module.in_channels, 9, 8)
        expected = as_decoded(module, inputs, values, format, tensors)
        assert expected.isfinite().all(), kind
        for _ in range(2):
            assert (packed(inputs) - expected).norm() <= 1e-6 * expected.norm(), kind
            keep_decoded(packed)
    assert n_fitting
