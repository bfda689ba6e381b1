"""Measured KL with one layer quantized at a time: the truth the cheap estimators are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.embeddings import answers_of
from bitfront.models.own_text import check_text, chosen_text
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class LeaveOneIn(Estimator):
    """KL(unquantized || model with this layer alone in this format), nats per token, measured.

    Blocks before the layer's are skipped and their hidden state reused, which saves 37 % of the
    time on SmolLM2-135M; the head always runs. Errors of layers together are not the sum of errors
    alone; this table does not see that either.

    Cost: layers x formats x sequences forward passes, each from the layer's block on.

    Prefer it where so many passes are affordable, and to judge the cheap estimators.

    Source: the layer-wise sensitivity of ZeroQ (Cai et al. 2020, section 3.3), there on distilled
    images, here on real samples unless told otherwise.

    Args:
        max_sequences: how many of the sequences are measured; fewer is faster and noisier.
        text: `"calibration"`; without data `"random"` tokens or images, text `"sampled"` from a
            language model, or images `"distilled"` from an image classifier with batch norms.
        seed: of such text.
    """

    max_sequences: int = 8
    text: str = "calibration"
    seed: int = 0

    needs: ClassVar[str] = "forwards"
    in_nats: ClassVar[bool] = True
    by_block: ClassVar[bool] = True
    sees_caches: ClassVar[bool] = True
    sees_inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_text(self.text)
        if self.max_sequences < 1:
            raise InvalidArgument(f"max_sequences is {self.max_sequences}: give at least 1.")

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
        """The table; progress counts its entries."""
        tokens = self.looked_at(model, batches)
        values = np.zeros(space.allowed.shape)
        done, total = 0, int(space.allowed.sum())
        with BlockStart(model, answers_of(model, tokens)) as start:
            for row in start.visit([x.name for x in space.layers]):
                layer = space.layers[row].name
                with PatchedModel(model, bank) as patched:
                    for column in np.flatnonzero(space.allowed[row]):
                        patched.apply(Allocation({layer: space.formats[column].name}))
                        values[row, column] = start.kl()
                        done += 1
                        if progress:
                            progress(done, total)
        return self.table(space, values, tokens, bank)
