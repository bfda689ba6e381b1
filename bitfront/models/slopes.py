"""Slopes: what every single switch of format would do to KL, to first order, from one pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.models.bank import WeightBank
from bitfront.models.cache_gradients import cache_slopes
from bitfront.models.gradients import visit_gradients, weight_gradients
from bitfront.models.layers import get_weight
from bitfront.models.losses import KlLoss
from bitfront.models.matrices import along
from bitfront.models.reference import Answers, Reference
from bitfront.models.rounded_inputs import exact_inputs, has_pairs, roundings
from bitfront.models.tasks import task_of
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


def slopes(
    model: nn.Module,
    reference: Answers,
    space: SearchSpace,
    bank: WeightBank,
    allocation: Allocation,
    progress: Callable[[int, int], None] | None = None,
) -> LayerTable:
    """First-order change of KL in nats per token when one layer leaves an allocation.

        slope[l, f] = < d KL / d W_l at the allocation, Q_f(W_l) - Q_held(W_l) >
                      + < d KL / d x_l at the allocation, Q_f(x_l) - Q_held(x_l) >

    where x are a layer's inputs, for formats that are pairs. Gradients are taken at the quantized
    model, so they hold the interaction of each layer's error with those of all others; entries of
    the held formats are 0. Costs a forward and a backward pass over the text and a float32 copy of
    the searched weights; caches cost a second pass.

    Args:
        model: holding the allocation; left as it was.
        reference: predictions of the unquantized model, with the tokens.
        space: rows and columns.
        bank: the quantized weights.
        allocation: what the model holds.
        progress: called with `(passes done, passes in all)`.

    Raises:
        NonFinite: outputs or gradients overflow; names the layer.
    """
    gradients: dict[int, torch.Tensor] = {}
    with_weights = space.of_weights
    by_input = np.zeros(with_weights.allowed.shape)

    def add(row: int, inputs: torch.Tensor, output_gradients: torch.Tensor) -> None:
        gradient = weight_gradients(inputs, output_gradients).sum(dim=0)
        gradients[row] = gradients[row] + gradient if row in gradients else gradient
        if row in exact:
            module, before = model.get_submodule(names[row]), exact[row].float()
            weight = get_weight(model, names[row]).float()
            toward = along(module, weight, output_gradients.float())
            for columns, made in roundings(module, with_weights, row, bank, before):
                by_input[row, columns] += float(toward(made - before).sum())

    tokens = reference.tokens
    names = {row: x.name for row, x in enumerate(with_weights.layers)} if has_pairs(space) else {}
    with exact_inputs(model, names) as exact:
        visit_gradients(model, tokens, with_weights, KlLoss(reference), add, progress=progress)
    values = np.zeros((len(space.layers), len(space.formats)))
    if space.kv_cache is not None and isinstance(reference, Reference):
        held = {x: f for x, f in allocation.formats.items() if space.is_cache(x)}
        values = cache_slopes(model, reference, space, held)
    of_weights = [row for row, layer in enumerate(space.layers) if not layer.cache]
    for index, gradient in gradients.items():
        row = of_weights[index]
        name = space.layers[row].name
        weight = bank.weight(name, allocation.formats[name], gradient.device)
        held_inputs = by_input[index, space.column(allocation.formats[name])]
        for column in np.flatnonzero(space.allowed[row]):
            switched = bank.weight(name, space.formats[column].name, gradient.device) - weight
            total = float((gradient * switched).sum()) + by_input[index, column] - held_inputs
            values[row, column] = total / (len(tokens) * reference.n_scored)
    return LayerTable(
        space,
        values,
        task_of(model).loss_name,
        f"slopes at {allocation.digest}, bank {bank.digest}",
    )
