"""Gradient at the uniformly quantized model times weight error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.embeddings import answers_of
from bitfront.models.gradients import (
    LogitGradient,
    sequence_groups,
    visit_gradients,
    whole_gradient,
)
from bitfront.models.losses import KlLoss, label_loss
from bitfront.models.patch import PatchedModel
from bitfront.models.tasks import task_of
from bitfront.sensitivity.base import Estimator, part_of
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class DeltaLoss(Estimator):
    """Gradient of the model quantized uniformly to a format, times the error of each weight.

        signed:      c <g_W, D>                                g_W: gradient of the mean loss
        not signed:  c mean over sequences of sum_ij |g_ij D_ij|

    with D = Q(W) - W, g at the model with every layer in the format, c = 1/2 for `loss="kl"` and
    1 for `"nll"`. The operating point is the low-bit model, not the unquantized one: layers whose
    error others amplify or cancel get credit for it.

    KL(unquantized || quantized) is nearly quadratic in the error, with zero gradient at the
    unquantized model. So `loss="kl", signed=True` is each layer's Aumann-Shapley share of the KL of
    the uniform model, 1/2 <F sum_m D_m, D_u>, interactions included: a column sums to about that KL
    (exactly the trapezoid rule of the integral along the straight path). A share is negative where
    a layer's error cancels others'.

    Cost: a forward and a backward pass over the text per format, and a copy of the weights.

    Prefer it only where `bitfront compare` says so: it ranks among the first on stories15M and
    below `weight_error` on SmolLM2-135M, see benchmarks/results/estimators.csv.

    Source: `loss="nll", signed=False` is DeltaLoss of SignRoundV2 / AutoRound's AutoScheme (2025);
    the shares of KL are ours.

    Args:
        loss: `"kl"` against the unquantized model, or `"nll"` of the text.
        signed: whether products within a layer cancel.
        top_k: tokens kept per position of the unquantized model's prediction, for `"kl"`.
    """

    loss: str = "kl"
    signed: bool = True
    top_k: int = 512

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True
    non_negative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.loss not in {"kl", "nll"}:
            raise InvalidArgument(f"Unknown loss {self.loss!r}: use 'kl' or 'nll'.")
        if self.top_k < 1:
            raise InvalidArgument(f"top_k is {self.top_k}: give at least 1.")

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        task = task_of(model)
        loss: LogitGradient = (
            KlLoss(answers_of(model, batches, self.top_k))
            if self.loss == "kl"
            else label_loss(batches, "text", 1, 0, task)
        )
        sums = np.zeros((len(space.layers), len(space.formats)))
        with PatchedModel(model, bank) as patched:
            for column in range(len(space.formats)):
                patched.apply(_uniform(space, column))
                visit = self._visit(sums[:, column], patched, space, column)
                step = part_of(progress, column, len(space.formats))
                visit_gradients(model, batches, space, loss, visit, progress=step)
        scale = 0.5 if self.loss == "kl" else 1.0
        n_scored = len(batches) * task.n_scored(batches)
        return self.table(space, scale * sums / n_scored, batches, bank)

    def _visit(
        self, sums: np.ndarray, patched: PatchedModel, space: SearchSpace, column: int
    ) -> Callable[[int, Tensor, Tensor], None]:
        def visit(row: int, inputs: Tensor, gradients: Tensor) -> None:
            if not space.allowed[row, column]:
                return
            error = patched.error(space.layers[row].name)
            if self.signed:
                gradient = whole_gradient(inputs, gradients)
                sums[row] += float((gradient * error).sum())
                return
            for group in sequence_groups(inputs, gradients):
                sums[row] += float((group * error).abs().sum())

        return visit


def _uniform(space: SearchSpace, column: int) -> Allocation:
    """One format wherever it fits; the other layers, and the pinned ones, stay unquantized."""
    name = space.formats[column].name
    fitting = space.allowed[:, column]
    return Allocation({x.name: name for x, fits in zip(space.layers, fitting, strict=True) if fits})
