"""Squared gradients times squared error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.models.bank import WeightBank
from bitfront.models.gradients import errors, sequence_groups
from bitfront.models.layers import get_weight
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class Fisher(LabelEstimator):
    """Squared weight gradients times squared weight errors: the diagonal of the Fisher information.

        1/2 sum_ij F_ij D_ij^2        F_ij = sum over sequences of g_ij^2 / number of tokens

    with D = Q(W) - W and g the gradient of a sequence's summed negative log-likelihood. Gradients
    of different tokens are uncorrelated (exactly for drawn labels, nearly for the text's), so the
    square of their sum estimates the sum of their squares: F is per token, entries are in nats.
    Squaring the gradient of a whole batch instead would grow with the batch.

    LeCun et al., Optimal Brain Damage (1989), eq. 4; Kim et al., SqueezeLLM (2024), section 4.1.
    Costs one forward and backward pass over the text whatever the number of formats, and memory
    for one pass: F itself is never stored. The standard baseline.

    Args:
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        values = np.zeros((len(space.layers), len(space.formats)))

        def visit(row: int, inputs: Tensor, gradients: Tensor) -> None:
            weight = get_weight(model, space.layers[row].name)
            squares = torch.zeros_like(weight, dtype=torch.float32)
            for group in sequence_groups(inputs, gradients):
                squares += group.square_().sum(dim=0)
            for column, error in errors(weight, space, bank, row):
                values[row, column] += float((squares * error.square_()).sum())

        n_scored = self.visit_layers(model, batches, space, visit, progress)
        return self.table(space, values / (2 * n_scored), batches, bank)
