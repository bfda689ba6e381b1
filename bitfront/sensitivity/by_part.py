"""An estimator for each part of a multimodal model, put on one scale by measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.image_text import LANGUAGE, PROJECTOR, VISION, parts_of
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.plugins import Plugins
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class ByPart(Estimator):
    """What quantizing a part was measured to cost, shared out by an estimator of its own.

        entry = KL(all layers of the part in f) * s_f / sum of s_f over the layers of the part

    with s of the part's own estimator. A vision tower and a language model see other inputs, are of
    other depth and width, and stand at other distances from the loss: entries that only rank, and
    even those in nats, cannot be compared across them. What is measured can.

    Cost: that of the estimators, and a pass over `max_sequences` for each part and format.

    Prefer it to try on one part alone an estimator that only ranks. With estimators in nats, one
    for all did better on two tiny models (docs/multimodal.md). Of a model without a vision tower,
    all is `language`.

    Source: LUQ (Bhatnagar et al. 2025, arXiv:2509.23729) ranks the blocks of the language model by
    the entropy of their activations (`language=activation_entropy`); parts with estimators of their
    own and the scaling are ours.

    Args:
        vision: estimator of the layers of the vision tower.
        projector: of those between tower and language model.
        language: of those of the language model.
        max_sequences: how many of the samples the parts are measured on.
    """

    vision: str = "fisher_directional"
    projector: str = "fisher_directional"
    language: str = "fisher_directional"
    max_sequences: int = 4

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_sequences < 1:
            raise InvalidArgument(f"max_sequences is {self.max_sequences}: give at least 1.")
        for part in (VISION, PROJECTOR, LANGUAGE):
            if (name := getattr(self, part)) == "by_part":
                raise InvalidArgument(f"The estimator of {part} is {name!r} itself: name another.")
            _named(name)

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        part_of = parts_of(model)
        parts = [part_of[layer.name] for layer in space.layers]
        values = np.zeros(space.allowed.shape)
        reference = Reference.of(model, batches[: self.max_sequences])
        for done, part in enumerate(dict.fromkeys(parts), start=1):
            rows = [row for row, found in enumerate(parts) if found == part]
            own = replace(space, layers=tuple(space.layers[row] for row in rows))
            table = _named(getattr(self, part)).estimate(model, batches, own, bank)
            shares = np.maximum(table.values, 0)
            for column in np.flatnonzero(own.allowed.any(axis=0)):
                fit = np.flatnonzero(own.allowed[:, column])
                name = space.formats[column].name
                chosen = Allocation({own.layers[row].name: name for row in fit})
                with PatchedModel(model, bank) as patched, BlockStart(model, reference) as start:
                    patched.apply(chosen)
                    total = float(shares[fit, column].sum())
                    parts_of_it = shares[fit, column] / total if total > 0 else 1 / len(fit)
                    shares[fit, column] = start.kl() * parts_of_it
            values[rows] = shares
            if progress:
                progress(done, len(set(parts)))
        return self.table(space, values, batches, bank)


def _named(name: str) -> Estimator:
    known: Plugins[Estimator] = Plugins("bitfront.sensitivity", "estimator")
    return known.build(name)
