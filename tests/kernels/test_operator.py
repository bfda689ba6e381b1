"""`torch.ops.bitfront.dequant_matmul`: its registration, compiled, and its gradients."""

import subprocess
import sys

import pytest
import torch

from bitfront import formats
from bitfront.kernels import dequant_matmul
from bitfront.kernels._blocks import has_kernel
from bitfront.kernels.dequant_matmul import KERNEL, reference
from tests.kernels.test_dequant_matmul import Product

CUTS = ["int4_g64", "nf3_g32"], [24, 8], [128]


@pytest.fixture
def product(device, generator):
    return Product(*CUTS, device, generator)


def operands(product, dtype=torch.float32, **options):
    """Arguments of the operator, and leaves that want gradients."""
    x = torch.randn(2, 3, 128, generator=product.generator, dtype=dtype).to(product.device)
    bias = torch.randn(32, generator=product.generator, dtype=dtype).to(product.device)
    order = torch.randperm(128, generator=product.generator).to(product.device)
    x.requires_grad_(), bias.requires_grad_()
    return (x, product.tensors, *CUTS, bias, order), (x, bias)


def test_where_the_kernels_run(device):
    half, single = torch.float16, torch.float32
    for format in formats.catalogue().values():
        runs = device.type == "cuda" and has_kernel(format)
        assert KERNEL.supports(format, device, half) == runs
        assert not KERNEL.supports(format, torch.device("cpu"), half)
        assert not KERNEL.supports(format, device, single)
    assert hasattr(torch.ops.bitfront, KERNEL.name)


@pytest.mark.filterwarnings("ignore")
def test_the_registration_is_sound(product):
    arguments, _ = operands(product)
    torch.library.opcheck(torch.ops.bitfront.dequant_matmul.default, arguments)
    weight = (product.tensors, *CUTS, torch.float32)
    torch.library.opcheck(torch.ops.bitfront.decode.default, weight)


def test_compiled_whole_with_gradients(product):
    arguments, (x, bias) = operands(product)
    compiled = torch.compile(
        lambda *a: torch.ops.bitfront.dequant_matmul(*a) * 2, fullgraph=True, backend="aot_eager"
    )
    out = compiled(*arguments)
    expected = 2 * reference(x, product.matrix, product.tensors, bias, arguments[-1])
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out.square().sum(), (x, bias))
    wanted = torch.autograd.grad(expected.square().sum(), (x, bias))
    for each, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-3)


def test_a_processor_decodes_a_few_rows_at_a_time(monkeypatch, generator):
    """Segments of several formats, one with a scale of the whole block; the last piece is short."""
    formats = ["int4_g64", "nvfp4", "nf3_g32", "int8_channel"]
    product = Product(formats, [40, 24], [64, 64], torch.device("cpu"), generator)
    x, bias = (torch.randn(*shape, generator=generator) for shape in ((3, 128), (64,)))
    order = torch.randperm(128, generator=generator)
    expected = reference(x, product.matrix, product.tensors, bias, order)
    monkeypatch.setattr(dequant_matmul, "_CHUNK_WEIGHTS", 16 * 128)
    found = reference(x, product.matrix, product.tensors, bias, order)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_in_a_graph(product):
    arguments, _ = operands(product, torch.float16)
    arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    expected = torch.ops.bitfront.dequant_matmul(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = torch.ops.bitfront.dequant_matmul(*arguments)
    out.fill_(torch.nan)
    graph.replay()
    assert torch.equal(out, expected)


def test_defining_it_imports_no_triton_and_wakes_no_gpu():
    code = (
        "import sys, torch, bitfront.models.quant_linear\n"
        "assert 'bitfront.kernels._launch' not in sys.modules\n"
        "assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
