"""Squared gradients of single weights: the diagonal of the Fisher information."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from bitfront.models.gradients import sequence_groups, visit_gradients
from bitfront.models.losses import label_loss
from bitfront.models.statistics import LayerStatistics
from bitfront.models.tasks import task_of
from bitfront.space import SearchSpace


class FisherDiagonals(LayerStatistics):
    """Mean squared gradient of every weight, as many layers per pass as there is memory for.

        F_ij = sum over sequences of g_ij^2 / number of tokens

    with g of the sequence's negative log-likelihood under labels drawn from the model, as the
    estimator `fisher` has it; float32 `[out_features, in_features]`.

    Args:
        model: the unquantized causal language model; it must not change meanwhile.
        tokens: token ids, int64 `[n_sequences, sequence_length]`.
        space: its layers are those that can be asked for, in its order.
        max_bytes: memory of the diagonals of one pass; at least one layer is always taken.
    """

    def __init__(
        self, model: nn.Module, tokens: torch.Tensor, space: SearchSpace, max_bytes: int = 2**31
    ) -> None:
        super().__init__({x.name: x.n_weights for x in space.layers}, max_bytes)
        self.model = model
        self.tokens = tokens
        self.space = space

    def of_run(self, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Their diagonals."""
        layers = tuple(x for x in self.space.layers if x.name in names)
        device = next(self.model.parameters()).device
        sums = [torch.zeros(x.shape, device=device) for x in layers]

        def add(row: int, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
            for group in sequence_groups(inputs, gradients):
                sums[row] += group.square_().sum(dim=0)

        task = task_of(self.model)
        loss = label_loss(self.tokens, "model", 1, 0, task)
        run = replace(self.space, layers=layers, barred=())
        visit_gradients(self.model, self.tokens, run, loss, add)
        n_scored = len(self.tokens) * task.n_scored(self.tokens)
        return {x.name: total / n_scored for x, total in zip(layers, sums, strict=True)}
