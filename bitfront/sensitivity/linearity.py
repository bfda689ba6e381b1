"""Slope of the KL in the relative weight error, found by adding noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np
import torch
from torch import nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.embeddings import answers_of
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight, set_weight
from bitfront.models.own_text import check_text, chosen_text
from bitfront.models.prefix import BlockStart
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

TINY = 1e-30


@dataclass(frozen=True)
class Linearity(Estimator):
    """KL rise per unit of relative weight error, measured with noise, times each format's error.

        entry = alpha_u t_{u,f}^2,    t_{u,f}^2 = ||D||_F^2 / ||W||_F^2

    where alpha_u is the mean of KL(unquantized || W_u + noise) / t^2 over several noise levels t:
    the slope through the origin of least squared misfit relative to t^2, so that all levels count
    alike. Works without data too, see `text`. Noise is spread evenly, so where an error
    concentrates on few columns it is over- or under-rated.

    Cost: layers x n_levels x sequences forward passes, each from the layer's block on, whatever the
    number of formats; then any menu is free.

    Prefer it to `leave_one_in` where the menu is long.

    Source: the linearity theorem of HIGGS (Malinovskii et al. 2024, sections 3 and 5).

    Args:
        smallest: smallest noise, standard deviation relative to the weight's.
        largest: largest noise, near the error of the coarsest useful format.
        n_levels: noise levels, evenly spaced from smallest to largest.
        max_sequences: how many of the sequences are measured.
        seed: of the noise, of which each layer draws its own, and of the text.
        text: `"calibration"`; without data `"random"` tokens or images, text `"sampled"` from a
            language model, or images `"distilled"` from an image classifier with batch norms.
    """

    smallest: float = 0.1
    largest: float = 0.3
    n_levels: int = 2
    max_sequences: int = 4
    seed: int = 0
    text: str = "calibration"

    needs: ClassVar[str] = "forwards"
    in_nats: ClassVar[bool] = True
    by_block: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_text(self.text)
        if not 0 < self.smallest <= self.largest:
            raise InvalidArgument(
                f"Noise from {self.smallest} to {self.largest}: give 0 < smallest <= largest."
            )
        if self.n_levels < 1 or self.max_sequences < 1:
            raise InvalidArgument(
                f"n_levels is {self.n_levels} and max_sequences {self.max_sequences}: "
                "give at least 1 each."
            )

    def looked_at(self, model: nn.Module, batches: torch.Tensor) -> torch.Tensor:
        """Some of the sequences, or as many of its own text."""
        return chosen_text(self.text, model, batches[: self.max_sequences], self.seed)

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table; progress counts layers."""
        tokens = self.looked_at(model, batches)
        values = np.zeros(space.allowed.shape)
        with BlockStart(model, answers_of(model, tokens)) as start:
            for done, row in enumerate(start.visit([x.name for x in space.layers]), 1):
                layer = space.layers[row].name
                slope = self._slope(model, start, layer)
                weight = get_weight(model, layer)
                norm = weight.float().square().sum().item()
                for column, difference in errors(weight, space, bank, row):
                    # A dead layer (all zeros) quantizes exactly: 0 / tiny, not 0 / 0.
                    values[row, column] = slope * difference.square().sum().item() / max(norm, TINY)
                if progress:
                    progress(done, len(space.layers))
        return self.table(space, values, tokens, bank)

    def _slope(self, model: nn.Module, start: BlockStart, layer: str) -> float:
        """Alpha of one layer: mean over levels of KL / t^2."""
        original = get_weight(model, layer).clone()
        norm = original.float().norm()
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + crc32(layer.encode()))
        slopes = []
        try:
            for level in torch.linspace(self.smallest, self.largest, self.n_levels).tolist():
                # Fresh noise per level: one draw at several levels would repeat its own error.
                noise = torch.randn(original.shape, generator=generator).to(original.device)
                set_weight(model, layer, original.float() + level * norm / noise.norm() * noise)
                slopes.append(start.kl() / level**2)
        finally:
            set_weight(model, layer, original)
        return float(np.mean(slopes))
