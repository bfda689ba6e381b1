"""What rounding the inputs of layers adds to the loss of their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.models.accumulators import Accumulator, Labels, LayerView, accumulate
from bitfront.models.bank import WeightBank
from bitfront.models.matrices import along, n_rows, outputs_with
from bitfront.models.rounded_inputs import exact_inputs, roundings
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

Floats = NDArray[np.float64]


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
    with _convolutions(model, space) as images:
        sums = _Sums(model, space, bank, images, _along_gradient)
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
    with _convolutions(model, space) as images:
        sums = _Sums(model, space, bank, images, _of_output)
        accumulate(model, tokens, space, bank, [sums], None)
    by = sums.energy if relative else sums.n_rows
    return np.asarray(sums.sums / np.maximum(by, 1e-30)[:, None])


def _convolutions(
    model: nn.Module, space: SearchSpace
) -> AbstractContextManager[dict[int, Tensor]]:
    """What convolutions read, by row: images are rounded, not the patches that a view shows."""
    names = {row: x.name for row, x in enumerate(space.layers)}
    images = {r: x for r, x in names.items() if isinstance(model.get_submodule(x), nn.Conv2d)}
    return exact_inputs(model, images)


Measure = Callable[[nn.Module, LayerView], Callable[[Tensor], Tensor]]
"""From a layer to what a change of its inputs, shaped as they are, does to it: a sum."""


class _Sums(Accumulator):
    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        bank: WeightBank,
        images: Mapping[int, Tensor],
        measure: Measure,
    ) -> None:
        self.model, self.space, self.bank = model, space, bank
        self.images, self.measure = images, measure
        self.sums = np.zeros(space.allowed.shape)
        self.n_rows, self.energy = np.zeros(len(space.layers)), np.zeros(len(space.layers))

    def layer(self, view: LayerView) -> None:
        module = self.model.get_submodule(self.space.layers[view.row].name)
        inputs = self.images.get(view.row, view.inputs).float()
        measure = self.measure(module, view)
        self.n_rows[view.row] += n_rows(view.inputs)
        if view.gradients is None:
            self.energy[view.row] += float(measure(inputs))
        for columns, made in roundings(module, self.space, view.row, self.bank, inputs):
            self.sums[view.row, columns] += float(measure(made - inputs))

    def values(self, n_scored: int) -> Floats:
        return self.sums / n_scored


def _along_gradient(module: nn.Module, view: LayerView) -> Callable[[Tensor], Tensor]:
    toward = along(module, view.weight.float(), view.slopes.float())
    return lambda change: toward(change).square().sum()


def _of_output(module: nn.Module, view: LayerView) -> Callable[[Tensor], Tensor]:
    return lambda change: outputs_with(module, change, view.weight.float()).square().sum()
