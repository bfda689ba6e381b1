"""Norms of keys and values, scaled to the measured loss of all caches together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.caches import RoundedCaches
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.models.tasks import run
from bitfront.plugins import Plugins
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

_NORMS = {"spectral": 2, "frobenius": "fro"}


@dataclass(frozen=True)
class KvNorms(Estimator):
    """Squared norms of each block's keys and values, in nats by two measurements a format.

        entry = KL(all keys in f) ||K||^2 / sum over blocks of ||K||^2,    values alike

    Rounding a matrix to b bits leaves an error of about its norm times 2^-b, and keys have larger
    norms than values: the norms share out among the blocks what quantizing the keys, or the values,
    of all of them was measured to cost. It does not see what a block does with its keys. Rows of
    weights are those of another estimator.

    Cost: a forward pass for the norms and, on `max_sequences`, one for the keys and one for the
    values in each format of the cache; beside it that of the other estimator.

    Prefer it where gradients are out of reach, with `weights=leave_one_in` or `weights=linearity`:
    only the estimator of weights takes any, as the default does, and formats of inputs do. The
    rows of caches that estimators in nats get by default (squared gradients times squared error)
    rank better on the tiny trained model.

    Source: KV-AdaQuant (Hariri et al. 2025), theorems on spectral and Frobenius norms; the scaling
    to nats is ours.

    Args:
        norm: `"spectral"` or `"frobenius"`.
        weights: estimator in nats of the rows of weights.
        max_sequences: how many of the sequences are looked at and measured.
    """

    norm: str = "frobenius"
    weights: str = "fisher_directional"
    max_sequences: int = 4

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True
    cache_source: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.norm not in _NORMS:
            raise InvalidArgument(f"Unknown norm {self.norm!r}: use {', '.join(_NORMS)}.")
        if self.max_sequences < 1:
            raise InvalidArgument(f"max_sequences is {self.max_sequences}: give at least 1.")
        other = self._other()
        if not other.in_nats or isinstance(other, KvNorms):
            raise InvalidArgument(
                f"Estimator {self.weights!r} of weights is not in nats: take fisher_directional, "
                "fisher or leave_one_in."
            )

    def _other(self) -> Estimator:
        known: Plugins[Estimator] = Plugins("bitfront.sensitivity", "estimator")
        return known.build(self.weights) if self.weights != "kv_norms" else self

    def looked_at(self, model: nn.Module, batches: torch.Tensor) -> torch.Tensor:
        """What the other estimator looks at."""
        return self._other().looked_at(model, batches)

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """That of the other estimator, for weights; see `Estimator.estimate`."""
        table = self._other().estimate(model, batches, space, bank, progress)
        return self.table(space, table.values, batches, bank, table.reduction, table.note)

    def cache_rows(
        self, model: nn.Module, batches: torch.Tensor, space: SearchSpace, bank: WeightBank
    ) -> NDArray[np.float64]:
        """See `Estimator.cache_rows`."""
        tokens = batches[: self.max_sequences]
        squares = self._squares(model, tokens, space)
        values = np.zeros(space.allowed.shape)
        reference = Reference.of(model, tokens)
        for half in "kv":
            rows = [row for row, layer in enumerate(space.layers) if layer.cache == half]
            for column in np.flatnonzero(space.allowed[rows].any(axis=0)):
                name = space.formats[column].name
                fitting = [row for row in rows if space.allowed[row, column]]
                chosen = Allocation({space.layers[row].name: name for row in fitting})
                shares = squares[fitting] / max(squares[fitting].sum(), 1e-30)
                with PatchedModel(model, bank) as patched, BlockStart(model, reference) as start:
                    patched.apply(chosen)
                    values[fitting, column] = start.kl() * shares
        return values

    def _squares(self, model: nn.Module, tokens: Tensor, space: SearchSpace) -> NDArray[np.float64]:
        """Mean squared norm of what each cache holds of a sequence, `[n_layers]`; weights 0."""
        rows = {layer.name: row for row, layer in enumerate(space.layers)}
        squares = np.zeros(len(rows))
        order = _NORMS[self.norm]

        def add(name: str, states: Tensor, _: Tensor) -> None:
            for matrix in states.float().transpose(1, 2).flatten(2):  # `[n_tokens, channels]`
                norm = float(torch.linalg.matrix_norm(matrix, order))
                squares[rows[name]] += norm**2 / len(tokens)

        with RoundedCaches(model, space) as caches, torch.no_grad():
            caches.watch(add)
            for sequence in tokens:
                run(model, sequence[None])
            caches.watch(None)
        return squares
