"""What rounding the inputs of layers adds to the loss of their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from bitfront.models.accumulators import Accumulator, Labels, LayerView, accumulate
from bitfront.models.bank import WeightBank
from bitfront.models.rounded_inputs import roundings
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

Floats = NDArray[np.float64]


def has_pairs(space: SearchSpace) -> bool:
    """Whether formats of the menu round inputs."""
    return any(f.input_format is not None for f in space.formats)


def of_weight_formats(space: SearchSpace) -> tuple[SearchSpace, list[int]]:
    """A space of the formats of weights alone, each once, and the column there of each format."""
    formats = tuple(dict.fromkeys(f.weight_format for f in space.formats))
    at = [formats.index(f.weight_format) for f in space.formats]
    held = np.stack([space.allowed[:, np.equal(at, c)].any(axis=1) for c in range(len(formats))], 1)
    weights_only = [
        f.name for f, of_any in zip(formats, held.T, strict=True) if _only(space, of_any)
    ]
    bars = {
        (x.kind, x.shape, f.name)
        for row, x in enumerate(space.layers)
        for f, may in zip(formats, held[row], strict=True)
        if not may and not x.cache
    }
    alone = replace(
        space, formats=formats, barred=tuple(sorted(bars)), cache_only=tuple(weights_only)
    )
    return alone, at


def of_pairs(
    table: LayerTable, space: SearchSpace, columns: list[int], added: Floats, by: str
) -> LayerTable:
    """A table of pairs from that of their weights.

    Args:
        table: of the space of `of_weight_formats`.
        space: that of the pairs.
        columns: column of the table for each format.
        added: what rounding inputs adds, `[n_layers, n_formats]`.
        by: what found that, for the source.
    """
    values = np.where(space.allowed, table.values[:, columns] + added, 0.0)
    return replace(table, space=space, values=values, source=f"{table.source}, inputs by {by}")


def _only(space: SearchSpace, of_any: NDArray[np.bool_]) -> bool:
    """Whether caches alone have a format, given the layers that do."""
    caches = np.array([bool(x.cache) for x in space.layers])
    return bool(of_any[caches].any() and not of_any[~caches].any())


def input_fisher(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    bank: WeightBank,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """KL in nats a token that rounding the inputs of each layer alone adds, by format.

        1/2 sum over tokens of <g_t, Q(x_t) - x_t>^2 / number of tokens

    with x_t a token's input and g_t = W^T dL/dy_t the gradient there of a sequence's summed
    negative log-likelihood, of next tokens drawn from the model's own prediction: the Fisher form
    along the error of each token, which keeps the correlations of its channels (a token whose small
    channels all become 0 errs in one direction) and takes tokens for independent. One forward and
    backward pass for the whole menu. Formats that round no input have 0.

    Args:
        model: the unquantized model; left as it was.
        tokens: int64 `[n_sequences, length]`.
        space: layers with weights.
        bank: the quantized weights.
        progress: called with `(passes done, passes in all)`.

    Raises:
        NonFinite: outputs or gradients overflow; names the layer.
    """
    sums = _Sums(space, bank, _along_gradient)
    (values,), _ = accumulate(model, tokens, space, bank, [sums], Labels(), progress)
    return values / 2


def input_energy(
    model: nn.Module, tokens: Tensor, space: SearchSpace, bank: WeightBank, relative: bool
) -> Floats:
    """Mean of ||W (Q(x) - x)||^2 over the tokens that a layer saw, by format.

    Args:
        model: the unquantized model; left as it was.
        tokens: int64 `[n_sequences, length]`.
        space: layers with weights.
        bank: the quantized weights.
        relative: divide by the mean of ||W x||^2.
    """
    sums = _Sums(space, bank, _of_output)
    accumulate(model, tokens, space, bank, [sums], None)
    by = sums.energy if relative else sums.n_tokens
    return np.asarray(sums.sums / np.maximum(by, 1e-30)[:, None])


Measure = Callable[[LayerView, Tensor], Tensor]
"""Sum over tokens of what an error of the inputs, `[n, length, in_features]`, does."""


class _Sums(Accumulator):
    def __init__(self, space: SearchSpace, bank: WeightBank, measure: Measure) -> None:
        self.space, self.bank, self.measure = space, bank, measure
        self.sums = np.zeros(space.allowed.shape)
        self.n_tokens, self.energy = np.zeros(len(space.layers)), np.zeros(len(space.layers))

    def layer(self, view: LayerView) -> None:
        inputs = view.inputs.float()
        self.n_tokens[view.row] += inputs.numel() / max(inputs.shape[-1], 1)
        if view.gradients is None:
            self.energy[view.row] += float(_of_output(view, inputs))
        for columns, rounded in roundings(self.space, view.row, self.bank, inputs):
            if self.space.formats[columns[0]].input_format is not None:
                self.sums[view.row, columns] += float(self.measure(view, rounded - inputs))

    def values(self, n_scored: int) -> Floats:
        return self.sums / n_scored


def _along_gradient(view: LayerView, error: Tensor) -> Tensor:
    gradient = view.slopes.float() @ view.weight.float()
    return (gradient * error).sum(dim=-1).square().sum()


def _of_output(view: LayerView, error: Tensor) -> Tensor:
    return linear(error, view.weight.float()).square().sum()
