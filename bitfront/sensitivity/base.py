"""Estimator: how much each layer suffers in each format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfront.models.bank import WeightBank
from bitfront.models.data import digest
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
