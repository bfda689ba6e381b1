"""What papers say of formats, on made-up weights."""

import cases
import pytest
import torch

from bitfront.formats import named
from bitfront.quantizers.rtn import Rtn


def weights(kind):
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(64, 512, generator=generator)
    sizes = torch.exp2(-8 * torch.rand(64, 16, generator=generator)).repeat_interleave(32, dim=1)
    rare = gaussian * (1 + 40 * (torch.rand(64, 512, generator=generator) < 1 / 256))
    return {
        "gaussian": gaussian,
        "outliers": gaussian**3,
        "rare outliers": rare,
        "uneven blocks": gaussian * sizes,
    }[kind]


@pytest.mark.parametrize(("name", "other", "share", "kind", "paper"), cases.FORMATS_BESIDE)
def test_a_format_has_less_error_than_another_as_its_paper_says(name, other, share, kind, paper):
    weight = weights(kind)
    ours, theirs = (
        (Rtn().quantize(weight, named(x)).dequantize() - weight).square().mean()
        for x in (name, other)
    )
    assert ours <= share * theirs, paper


@pytest.mark.parametrize("name", ["sign_channel", "sign_g32"])
@pytest.mark.parametrize("kind", ["gaussian", "outliers"])
def test_no_scale_of_signs_has_less_error_than_the_mean_size(name, kind):
    """BitDelta, arXiv:2402.10193, section 3.1."""
    weight, format = weights(kind), named(name)
    scale = format.qparams(weight)["scale"]
    groups = weight.reshape(*scale.shape, -1)

    def error(factor):
        return (groups.sign() * (scale.float() * factor)[..., None] - groups).square().sum(dim=2)

    for factor in (0.2, 0.7, 0.9, 0.97, 1.03, 1.1, 1.5, 4):
        assert (error(1) < error(factor)).all()
