"""The inline PTX of gemm: emulated here, on a GPU what every product of gemm runs."""

import pytest
import torch
from kernels.test_dequant_matmul import Product

from bitfront import formats
from bitfront.kernels import dequant_matmul
from bitfront.kernels.launches import Launch
from bitfront.quantizers.rtn import Rtn

GEMM = Launch("gemm", 16, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "n_columns"),
    [
        *((f"int{bits}_g32_sym", 704) for bits in range(2, 9)),  # strides of two planes differ
        *((f"int{bits}_g64", 512) for bits in (2, 3, 7)),
        *((f"int{bits}_g16", 512) for bits in (3, 4)),
        ("int5_channel", 352),
        ("mxfp4", 352),
    ],
)
def test_products_of_assembled_levels(name, n_columns, dtype, device, generator, assembled):
    product = Product.single(name, (9, n_columns), device, generator)
    product.check(product.activations(3, dtype), launch=GEMM)


@pytest.mark.parametrize("activation", [torch.relu, torch.ones_like], ids=["relu", "ones"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_an_error_of_a_zero_point_does_not_add_up_over_a_group(
    bits, activation, device, generator, assembled
):
    """Where x has a mean and the weight has none, what a group shares is all that adds up."""
    name = f"int{bits}_g64"
    product = Product.single(name, (16, 512), device, generator)
    weight = torch.randn(16, 512, generator=generator) / 50
    stored = Rtn().quantize(weight, formats.named(name)).tensors()
    product.tensors = [tensor.to(device) for tensor in stored.values()]
    product.check(activation(product.activations(4, torch.bfloat16)), launch=GEMM)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
@pytest.mark.parametrize("emulate", [False, True], ids=["plain", "assembled"])
def test_words_of_narrow_planes_that_last_for_many_tiles(
    bits, emulate, device, generator, poisoned, request
):
    if emulate:
        request.getfixturevalue("assembled")
    product = Product.single(f"int{bits}_g64", (9, 1024), device, generator)
    product.check(
        product.activations(3, torch.float16), launch=Launch("gemm", 16, 16, 32, splits=2)
    )


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_field_is_exact(bits, device, generator, assembled):
    for name in (f"int{bits}_channel_sym", f"int{bits}_channel"):
        product = Product.single(name, (16, 128), device, generator, scale=0.5)
        if not name.endswith("sym"):
            product.tensors[-1].zero_()
        for dtype in (torch.float16, torch.bfloat16):
            units = torch.eye(128, dtype=dtype, device=device)
            out = dequant_matmul.run(
                units, product.matrix, product.tensors, launch=Launch("gemm", 128, 16, 16)
            )
            assert torch.equal(out.cpu().double(), product.weight.T)
