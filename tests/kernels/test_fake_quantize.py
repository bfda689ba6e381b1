"""Rounding by group: codes equal to torch's bit by bit, errors to float64's, the same clips."""

import pytest
import torch

from bitfront.formats.int_grouped import IntGrouped
from bitfront.kernels.fake_quantize import (
    reference_errors,
    round_to_codes,
    rounding_errors,
    run_round_to_codes,
    run_rounding_errors,
)
from bitfront.quantizers import base
from bitfront.quantizers.rtn import Rtn

FORMATS = [
    IntGrouped(2, 32),
    IntGrouped(4, 16),
    IntGrouped(3, 64, symmetric=True),
    IntGrouped(4, 128),
    IntGrouped(5, None, symmetric=True),
    IntGrouped(8, None),
]


@pytest.fixture
def weight(generator, device):
    def draw(n_rows=7, n_columns=384):
        made = torch.randn(n_rows, n_columns, generator=generator)
        made[0] *= 1e4  # scales that saturate, and groups of zeros
        made[1, :128] = 0
        return made.to(device)

    return draw


def halves(n_rows, n_columns, num_bits):
    """Weights halfway between levels of scale 1, beyond both ends too."""
    reach = 2.0**num_bits
    return torch.linspace(-reach, reach, n_rows * n_columns).mul(2).round().div(2).view(n_rows, -1)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_codes_are_those_of_torch(weight, poisoned, format):
    made = weight()
    qparams = format.qparams(made, 0.7)
    codes = run_round_to_codes(made, *format.affine(qparams), format.num_bits)
    assert torch.equal(codes, format.encode(made, qparams))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_halves_round_to_even(device, poisoned, format):
    made = halves(5, 256, format.num_bits).to(device)
    scale, zero_point = format.affine(format.qparams(made))
    scale = torch.ones_like(scale)
    zero_point = None if zero_point is None else torch.zeros_like(zero_point)
    codes = run_round_to_codes(made, scale, zero_point, format.num_bits)
    first = 0 if zero_point is not None else -(2 ** (format.num_bits - 1))
    level = made.round().clamp(first, first + 2**format.num_bits - 1)
    assert torch.equal(codes, (level - first).to(torch.uint8))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_errors_are_those_of_float64(weight, generator, poisoned, format, weighted):
    made = weight()[1:]
    importance = torch.rand(made.shape[1], generator=generator).to(made) if weighted else None
    candidates = [format.affine(format.qparams(made, clip)) for clip in (1.0, 0.8, 0.4)]
    scales, zeros = zip(*candidates, strict=True)
    scale = torch.stack(scales)
    zero_point = None if format.symmetric else torch.stack(zeros)
    error = run_rounding_errors(made, scale, zero_point, format.num_bits, importance)
    expected = reference_errors(
        made.double(),
        scale.double(),
        None if zero_point is None else zero_point.double(),
        format.num_bits,
        None if importance is None else importance.double(),
    )
    torch.testing.assert_close(error.double(), expected, rtol=1e-4, atol=1e-12)


def test_ops_have_fakes_and_a_reference_on_the_processor(weight):
    made = weight().cpu()
    scale, zero_point = IntGrouped(4, 32).affine(IntGrouped(4, 32).qparams(made))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(round_to_codes, (made, scale, zero_point, 4), test_utils=checks)
    several = (made, scale[None], None, 4, made[0])
    torch.library.opcheck(rounding_errors, several, test_utils=checks)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rtn_on_a_gpu_rounds_by_the_kernels(monkeypatch, weight, format):
    """The same clips, so the same codes and parameters, as on the processor."""
    made = weight()
    expected = Rtn().quantize(made.cpu(), format)
    ran = []
    monkeypatch.setattr(base, "is_fused", lambda tensor: True)
    for name, run in (
        ("round_to_codes", run_round_to_codes),
        ("rounding_errors", run_rounding_errors),
    ):
        monkeypatch.setattr(
            f"bitfront.kernels.fake_quantize.{name}",
            lambda *x, name=name, run=run: ran.append(name) or run(*x),
        )
    found = Rtn().quantize(made, format)
    assert ran == ["rounding_errors", "round_to_codes"]
    assert torch.equal(found.codes.cpu(), expected.codes)
    for name, tensor in expected.qparams.items():
        assert torch.equal(found.qparams[name].cpu(), tensor), name
