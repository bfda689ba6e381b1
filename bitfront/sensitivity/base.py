"""Estimator: how much each layer suffers in each format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfront.models.bank import WeightBank
from bitfront.models.data import digest
from bitfront.models.gradients import Visit, visit_gradients
from bitfront.models.losses import LabelLoss, check_labels
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


class Estimator(ABC):
    """Makes the loss table. Subclasses are frozen dataclasses of hyperparameters."""

    needs: ClassVar[str]
    """`"weights"`, `"activations"`, `"gradients"` or `"forwards"`."""

    in_nats: ClassVar[bool] = False
    """Whether entries estimate KL in nats per token; otherwise they only rank."""

    non_negative: ClassVar[bool] = True
    """Whether no entry can be below zero, but for rounding."""

    by_block: ClassVar[bool] = False
    """Whether a table takes so long that it is made and stored block by block.

    A layer's row must then not depend on which other layers are asked for.
    """

    version: ClassVar[int] = 1
    """Raised when the same hyperparameters begin to give other values; part of every cache key."""

    @abstractmethod
    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table of expected loss when one layer alone takes one format.

        Args:
            model: the unquantized causal language model, in evaluation mode; left as it was.
            batches: token ids, int64 `[n_sequences, sequence_length]`.
            space: rows and columns of the table.
            bank: the quantized weights, so that each format is judged by its own error.
            progress: called with `(steps done, steps in all)` as the work goes on.

        Raises:
            NonFinite: weights, activations or gradients are not finite; names the layer.
        """

    def table(
        self,
        space: SearchSpace,
        values: NDArray[np.float64],
        batches: torch.Tensor,
        bank: WeightBank,
        reduction: str = "sum",
    ) -> LayerTable:
        """`values [n_layers, n_formats]` as a table that names the digests of what made them."""
        source = (
            f"{self!r} version {self.version}, tokens {digest(batches)[:16]}, "
            f"bank {bank.digest[:16]}"
        )
        quantity = "kl" if self.in_nats else "loss"
        return LayerTable(space, values, quantity, source, reduction)


@dataclass(frozen=True)
class LabelEstimator(Estimator):
    """Estimators made of gradients of the negative log-likelihood of next tokens.

    Args:
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    labels: str = "model"
    n_draws: int = 1
    seed: int = 0

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_labels(self.labels, self.n_draws)

    def visit_layers(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        visit: Visit,
        progress: Callable[[int, int], None] | None,
    ) -> int:
        """Hand inputs and output gradients of every layer to `visit`; returns the scored tokens.

        A token counts once for every draw of its label.
        """
        loss = LabelLoss.of(batches, self.labels, self.n_draws, self.seed)
        visit_gradients(model, batches, space, loss, visit, self.n_draws, progress)
        return batches[:, 1:].numel() * self.n_draws
