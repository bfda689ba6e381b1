"""Estimator: how much each layer suffers in each format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from bitfront.models.bank import WeightBank
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


class Estimator(ABC):
    """Makes the loss table. Subclasses are frozen dataclasses of hyperparameters."""

    needs: ClassVar[str]
    """`"weights"`, `"activations"`, `"gradients"` or `"forwards"`."""

    in_nats: ClassVar[bool] = False
    """Whether entries estimate KL in nats per token; otherwise they only rank."""

    version: ClassVar[int] = 1
    """Raised when the same hyperparameters begin to give other values; part of every cache key."""

    @abstractmethod
    def estimate(
        self, model: nn.Module, batches: torch.Tensor, space: SearchSpace, bank: WeightBank
    ) -> LayerTable:
        """The table of expected loss when one layer alone takes one format.

        Args:
            model: the unquantized causal language model, in evaluation mode; left as it was.
            batches: token ids, int64 `[n_sequences, sequence_length]`.
            space: rows and columns of the table.
            bank: the quantized weights, so that each format is judged by its own error.

        Raises:
            NonFinite: activations or gradients overflow; names the layer.
        """
