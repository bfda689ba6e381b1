"""Products with packed weights against float64 from the packed bytes, in every format."""

import pytest
import torch

from bitfront import formats
from bitfront.errors import InvalidArgument
from bitfront.formats.int_grouped import IntGrouped
from bitfront.kernels import _launch, dequant_matmul
from bitfront.kernels._blocks import block_matrix, has_kernel
from bitfront.kernels._launch import decoded
from bitfront.kernels.launches import Launch
from tests.kernels.unpacked import random_tensors, weight_of

LIMITS = {torch.float16: 1e-3, torch.bfloat16: 1e-2}
NAMES = [name for name, format in formats.catalogue().items() if has_kernel(format)]
GEMV = Launch("gemv", 1, 16, 64, num_warps=1)
GEMM = Launch("gemm", 16, 32, 32)

# one of each family and width; columns with strides of 2 to 32, that differ between the planes,
# and that are no multiple of 16
CASES = [
    ("int2_g64", (24, 320)),
    ("int2_g32_sym", (9, 256)),
    ("int3_g16", (9, 176)),
    ("int3_g64", (9, 576)),
    ("int3_channel_sym", (7, 570)),
    ("int4_g128", (17, 384)),
    ("int4_channel", (5, 33)),
    ("int5_g32", (8, 352)),
    ("int6_g128_sym", (8, 256)),
    ("int7_g32", (5, 96)),
    ("int8_g16_sym", (9, 256)),
    ("int8_g64_sym", (9, 192)),
    ("nf2_g64", (8, 256)),
    ("nf3_g32", (7, 352)),
    ("nf4_g64", (8, 192)),
    ("fp4_g32", (8, 160)),
    ("fp6_e3m2_g64", (7, 192)),
    ("mxfp4", (8, 128)),
    ("mxfp6_e2m3", (7, 160)),
    ("mxfp8_e4m3", (9, 96)),
    ("mxint8", (5, 96)),
    ("nvfp4", (7, 176)),
    ("nvint4", (7, 176)),
    ("lut2_g64", (8, 256)),
    ("lut3_channel", (7, 352)),
    ("lut4_g64", (9, 192)),
    ("lut4_channel", (5, 33)),
    ("fp8_e4m3", (9, 132)),
]


class Product:
    """A random weight cut into blocks, and the product that is to come out."""

    def __init__(self, names, n_rows, n_columns, device, generator, **fixed):
        self.matrix = block_matrix(tuple(n_rows), tuple(n_columns), tuple(names))
        self.tensors, self.generator = [], generator
        for block in self.matrix:
            stored = random_tensors(block.format, block.shape, generator, **fixed)
            self.tensors += [tensor.to(device) for tensor in stored.values()]
        self.device = device

    @property
    def weight(self):
        """Float64 from the stored tensors as they are now."""
        rows = []
        for blocks, stored in zip(self.matrix.blocks, self.matrix.split(self.tensors), strict=True):
            named = [
                dict(zip(b.names, t, strict=True)) for b, t in zip(blocks, stored, strict=True)
            ]
            parts = [
                weight_of(b.format.name, t, b.shape) for b, t in zip(blocks, named, strict=True)
            ]
            rows.append(torch.cat(parts, dim=1))
        return torch.cat(rows)

    @classmethod
    def single(cls, name, shape, device, generator, **fixed):
        return cls([name], [shape[0]], [shape[1]], device, generator, **fixed)

    def activations(self, n_tokens, dtype):
        x = torch.randn(n_tokens, self.weight.shape[1], generator=self.generator)
        return x.to(self.device, dtype)

    def check(self, x, bias=None, order=None, launch=None):
        out = dequant_matmul.run(x, self.matrix, self.tensors, bias, order, launch)
        columns = x if order is None else x[..., order.long()]
        expected = columns.cpu().double() @ self.weight.T
        expected = expected if bias is None else expected + bias.cpu().double()
        assert out.dtype == x.dtype
        error = (out.cpu().double() - expected).norm() / expected.norm()
        assert error < LIMITS[x.dtype], f"{error:.1e}"
        return out


@pytest.mark.parametrize(("name", "shape"), CASES, ids=[name for name, _ in CASES])
def test_few_and_some_tokens(name, shape, device, generator, poisoned):
    product = Product.single(name, shape, device, generator)
    product.check(product.activations(1, torch.float16))  # the default launch
    product.check(product.activations(3, torch.bfloat16), launch=GEMM)
    product.check(product.activations(2, torch.float16), launch=Launch("decode"))


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", ["int3_g64", "nf4_g32", "fp8_e4m3"])
def test_one_token_split_over_columns(name, dtype, device, generator, poisoned):
    product = Product.single(name, (9, 384), device, generator)
    x, bias = product.activations(1, dtype), torch.randn(9, generator=generator).to(device, dtype)
    for splits in (3, 8):  # of three tiles, so that some splits have none
        launch = Launch("gemv", 1, 16, 32, splits=splits, num_warps=1)
        first = product.check(x, bias, launch=launch)
    assert torch.equal(first, product.check(x, bias, launch=launch))


@pytest.mark.parametrize("n_tokens", [1, 3, 16, 17, 64, 130])
@pytest.mark.parametrize("name", ["int4_g64", "int5_g32_sym"])
def test_batches(name, n_tokens, device, generator, poisoned):
    product = Product.single(name, (33, 256), device, generator)
    launch = Launch("gemm", 64 if n_tokens >= 64 else 16, 64, 32, splits=2)
    bias = torch.randn(33, generator=generator).to(device, torch.float16)
    x = product.activations(n_tokens, torch.float16)
    first = product.check(x, bias, launch=launch)
    assert torch.equal(first, product.check(x, bias, launch=launch))
    product.check(x.reshape(n_tokens, 1, -1).transpose(0, 1)[0], launch=Launch("gemm", 16, 64, 16))


@pytest.mark.parametrize(
    ("dtype", "powers"),
    [
        (torch.bfloat16, (113, 113)),  # 1e34; beyond it a sum of levels may leave float32
        (torch.bfloat16, (-100, -100)),
        (torch.bfloat16, (-60, 60)),
        (torch.float16, (14, 15)),  # up to 65,504
        (torch.float16, (-18, -15)),  # subnormal
        (torch.float16, (-14, 14)),
    ],
    ids=str,
)
def test_inputs_of_any_magnitude(dtype, powers, device, generator):
    """As large, as small, and as unlike each other as the dtype allows."""
    low, high = powers
    scale = 2.0**-14 if high > 0 else 1.0  # outputs in fp16 are neither infinite nor subnormal
    for name in ("int5_g32_sym", "nf4_g64", "int8_channel"):
        product = Product.single(name, (8, 128), device, generator, scale=scale)
        for launch in (GEMV, GEMM, Launch("decode")):
            n_tokens = 1 if launch.kernel == "gemv" else 3
            spread = low + (high - low) * torch.rand(n_tokens, 128, generator=generator)
            x = torch.randn(n_tokens, 128, generator=generator).sign() * 2**spread
            product.check(x.to(device, dtype), launch=launch)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_weights_of_every_format(name, device, generator, poisoned):
    shape = (5, 128) if formats.named(name).group_columns else (5, 131)
    product = Product.single(name, shape, device, generator)
    matrix, tensors = product.matrix, product.tensors
    weight = decoded(matrix, tensors, torch.float32).cpu()
    torch.testing.assert_close(weight.double(), product.weight, rtol=3e-7, atol=0)
    reference = dequant_matmul.decode_reference(matrix, tensors, torch.float32).cpu()
    torch.testing.assert_close(reference, weight, rtol=3e-7, atol=0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_field_of_every_container(bits, device, generator):
    """Where x is a single 1 the output is one column: every code, exactly, by each kernel."""
    units = torch.eye(96, dtype=torch.float16, device=device)
    one_hot = {1 << i for i in range(0, 15, bits)}
    for codes in (0, -1, *one_hot, None):  # None: random
        product = Product.single(
            f"int{bits}_g32_sym", (4, 96), device, generator, codes=codes, scale=0.5
        )
        gemm = Launch("gemm", 128, 4, 64)
        out = dequant_matmul.run(units, product.matrix, product.tensors, launch=gemm)
        assert torch.equal(out.cpu().double(), product.weight.T)
    for column in (0, 1, 37, 95):
        out = dequant_matmul.run(units[column], product.matrix, product.tensors, launch=GEMV)
        assert torch.equal(out.cpu().double(), product.weight[:, column])


def test_one_bit(device, generator, monkeypatch):
    """No format offers it; the kernels know it."""

    class OneBit(IntGrouped):
        def __post_init__(self):
            pass

    format = OneBit(1, 32, symmetric=True)
    monkeypatch.setattr(formats, "named", lambda name: format)
    product = Product(["int1_g32_sym"], [4], [288], device, generator)
    product.check(product.activations(1, torch.float16), launch=GEMV)
    product.check(product.activations(3, torch.float16), launch=GEMM)


MIXES = {
    "q, k and v": (["int4_g64", "int2_g32_sym", "int3_g64"], [33, 16, 9], [256]),
    "gate and up": (["nf3_g32", "mxfp4"], [16, 17], [320]),
    "column groups": (["int4_g32", "int2_g32", "fp4_g32"], [9], [96, 192, 64]),
    "tables": (["lut3_g64", "nf3_g64", "lut4_channel", "int2_g64"], [9, 8], [128, 64]),
    "both": (["int3_g32", "int8_g32_sym", "fp8_e4m3", "nvfp4"], [9, 8], [160, 96]),
}


@pytest.mark.parametrize("mix", MIXES)
def test_blocks_of_many_widths_in_one_launch(mix, device, generator, poisoned):
    product = Product(*MIXES[mix], device, generator)
    n_rows, n_columns = product.weight.shape
    order = torch.randperm(n_columns, generator=generator).to(device, torch.int32)
    bias = torch.randn(n_rows, generator=generator).to(device, torch.float16)
    for launch in (GEMV, Launch("gemm", 32, 32, 32, splits=2), Launch("decode")):
        n_tokens = 1 if launch.kernel == "gemv" else 17
        x = product.activations(n_tokens, torch.float16)
        product.check(x, launch=launch)
        product.check(x, bias, order, launch)


def test_columns_that_need_padding_are_ordered_before_it(device, generator):
    product = Product(["int4_channel", "int6_channel"], [8], [32, 33], device, generator)
    order = torch.randperm(65, generator=generator).to(device)
    product.check(product.activations(1, torch.float16), None, order, GEMV)
    product.check(product.activations(3, torch.float16), None, order, GEMM)


def test_shapes_of_inputs_are_those_of_outputs(device, generator):
    product = Product.single("int4_g32", (8, 64), device, generator)
    x = product.activations(6, torch.float16)
    out = product.check(x)
    for shape in [(2, 3), (6, 1), (1, 2, 3)]:
        found = dequant_matmul.run(x.view(*shape, 64), product.matrix, product.tensors)
        assert torch.equal(found, out.view(*shape, 8))
    empty = dequant_matmul.run(x[:0], product.matrix, product.tensors)
    assert empty.shape == (0, 8)


def test_one_row_kernels_refuse_what_they_would_get_wrong(device, generator):
    product = Product.single("int3_channel", (8, 48), device, generator)
    with pytest.raises(InvalidArgument, match=r"gemv takes one token .* use gemm"):
        product.check(product.activations(1, torch.float16), launch=GEMV)
    product = Product.single("int4_channel", (8, 48), device, generator)
    with pytest.raises(InvalidArgument, match=r"gemv takes one token .* use gemm"):
        product.check(product.activations(2, torch.float16), launch=GEMV)


def test_one_token_is_handed_over_where_whole_words_of_it_can_be_read(
    device, generator, monkeypatch
):
    """`gemv` reads 64 bits of x at once; a contiguous view may begin at any of its numbers."""
    product = Product.single("int4_g32", (8, 64), device, generator)
    view = torch.randn(1, 65, generator=generator).to(device, torch.float16)[:, 1:]
    assert view.is_contiguous()
    given, product_of = [], _launch._product
    monkeypatch.setattr(_launch, "_product", lambda x, *a: (given.append(x), product_of(x, *a)))
    product.check(view, launch=GEMV)
    assert [x.data_ptr() % 8 for x in given] == [0]


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (([8], [64], ["int4_g64", "int4_g64"]), "2 formats for 1 segments"),
        (([8], [40, 24], ["int4_channel", "int4_channel"]), "multiples of 16"),
        (([8], [64], ["int4_g128"]), "int4_g128 cannot be multiplied packed"),
        (([8], [64], ["bf16"]), "bf16 cannot be multiplied packed"),
    ],
)
def test_cuts_that_do_not_go_are_refused(cuts, message):
    with pytest.raises(InvalidArgument, match=message):
        block_matrix(*map(tuple, cuts))


def test_wrong_tensors_and_columns_are_refused(device, generator):
    product = Product.single("int4_g32", (8, 64), device, generator)
    x = product.activations(2, torch.float16)
    cuts = ["int4_g32"], [8], [64]
    with pytest.raises(InvalidArgument, match="2 tensors for int4_g32: give 3"):
        dequant_matmul.dequant_matmul(x, product.tensors[:2], *cuts)
    with pytest.raises(InvalidArgument, match="x has 63 columns, the packed weight 64"):
        dequant_matmul.dequant_matmul(x[:, 1:], product.tensors, *cuts)
