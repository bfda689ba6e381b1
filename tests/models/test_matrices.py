"""A convolution is a matrix that multiplies patches, each group of its rows its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from bitfront.models.gradients import weight_gradients, whole_gradient
from bitfront.models.matrices import (
    as_matrix,
    as_stored,
    can_be_layer,
    gram,
    input_rows,
    n_groups,
    n_rows,
    output_rows,
    outputs_with,
    products,
    reading,
)

CASES = {
    "plain": nn.Conv2d(6, 10, 3),
    "strided": nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=(1, 2)),
    "pointwise": nn.Conv2d(6, 10, 1, stride=2, bias=False),
    "patches": nn.Conv2d(6, 16, 4, stride=4),
    "same": nn.Conv2d(6, 10, (5, 3), padding="same"),
    "dilated": nn.Conv2d(6, 10, 3, dilation=2, padding=2),
    "reflecting": nn.Conv2d(6, 10, 3, padding=1, padding_mode="reflect"),
    "two groups": nn.Conv2d(6, 10, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6, padding=1, stride=2),
    "multiplied": nn.Conv2d(6, 12, 5, groups=6, padding=2),
    "channels last": nn.Conv2d(6, 10, 3).to(memory_format=torch.channels_last),
    "linear": nn.Linear(6, 10),
    "gpt2": Conv1D(10, 6),
}


@pytest.fixture(params=CASES)
def module(request):
    return CASES[request.param]


@pytest.fixture
def inputs(module):
    shape = (2, 6, 9, 11) if isinstance(module, nn.Conv2d) else (2, 7, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_matrix_times_patches_is_what_the_module_puts_out(module, inputs):
    matrix = as_matrix(module, module.weight.detach())
    assert matrix.shape == (module.weight.numel() // matrix.shape[1], matrix.shape[1])
    expected = module(inputs) - module(torch.zeros_like(inputs))
    rows = input_rows(module, inputs)
    assert rows.shape[-1] == matrix.shape[1]
    assert (rows.ndim == 4) == (n_groups(module) > 1)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(products(rows, matrix), output_rows(module, expected), **close)
    torch.testing.assert_close(outputs_with(module, inputs, matrix), expected, **close)


def test_a_matrix_is_laid_out_as_the_weight_again(module):
    weight = module.weight.detach()
    assert torch.equal(as_stored(module, as_matrix(module, weight)), weight)


def test_gradients_from_rows_are_those_of_the_weight(module, inputs):
    output = module(inputs)
    slopes = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    expected = [
        as_matrix(module, torch.autograd.grad(output[i], module.weight, slopes[i], True)[0])
        for i in range(2)
    ]
    rows, gradients = input_rows(module, inputs), output_rows(module, slopes)
    found = weight_gradients(rows, gradients)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
    whole = whole_gradient(rows, gradients)
    torch.testing.assert_close(whole, torch.stack(expected).sum(0), rtol=1e-4, atol=1e-4)


def test_a_gram_matrix_gives_the_energy_of_outputs(module, inputs):
    """tr(W H W^T) is the sum of squared outputs, whatever each group reads."""
    matrix, rows = as_matrix(module, module.weight.detach()), input_rows(module, inputs)
    total = gram(rows)
    by_group = matrix.unflatten(0, (*total.shape[:-2], -1))
    energy = ((by_group @ total) * by_group).sum()
    torch.testing.assert_close(energy, products(rows, matrix).square().sum(), rtol=1e-4, atol=0)
    assert gram(rows, 2 * rows).allclose(2 * total)
    assert n_rows(rows) == output_rows(module, module(inputs)).flatten(0, 1).shape[0]


def test_layers_that_read_one_tensor_in_two_ways_share_no_rows():
    assert reading(CASES["plain"]) != reading(CASES["dilated"])
    assert reading(CASES["plain"]) == reading(nn.Conv2d(6, 99, 3))
    assert reading(CASES["linear"]) == reading(CASES["gpt2"])


def test_rows_of_a_linear_layer_have_no_groups():
    """ConvNeXt calls linears with height and width apart: that is no dimension of groups."""
    rows = input_rows(nn.Linear(6, 4), torch.ones(2, 3, 5, 6))
    assert rows.shape == (2, 15, 6)


def test_a_convolution_with_a_forward_of_its_own_is_no_layer():
    """A packed kernel would neither standardize the weight (BiT) nor pad as it does."""

    class Standardized(nn.Conv2d):
        def forward(self, inputs):
            return functional.conv2d(inputs, self.weight / self.weight.std(), self.bias)

    class Named(nn.Conv2d):
        pass

    assert not can_be_layer(Standardized(3, 4, 1))
    assert can_be_layer(Named(3, 4, 1))
    assert can_be_layer(nn.Linear(3, 4))
