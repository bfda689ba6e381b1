"""Entropy of the activations that a block puts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.models.accumulators import Accumulator
from bitfront.models.layers import blocks
from bitfront.sensitivity._block_scores import BlockScores
from bitfront.sensitivity.base import PassEstimator
from bitfront.space import SearchSpace

_OCTAVES = 40
_PER_OCTAVE = 8
_N_BINS = _OCTAVES * _PER_OCTAVE
_SMALLEST = 2.0**-20


@dataclass(frozen=True)
class ActivationEntropy(PassEstimator):
    """Exponential of the entropy of a block's output values, times each layer's relative error.

        entry = exp(h) ||D||^2 / ||W||^2,    h = - integral of p log p

    with p the density of the values that a block puts out and D = Q(W) - W. Blocks of low entropy
    are taken to bear fewer bits; exp(h) is the width that a uniform density of that entropy would
    have, so it is positive. The density is a histogram with bins of an eighth of an octave on both
    sides of zero, so no range has to be known and memory is fixed. Layers outside the blocks get
    the mean score. Entropy grows with the scale of the hidden state, which in residual models grows
    with depth whatever the loss: on the tiny Llama of the tests, the first of four blocks has the
    least entropy and loses most.

    Cost: one forward pass.

    Prefer it only to compare with: it ranks about as `weight_error` does, which reads nothing, see
    docs/measurements.md.

    Source: LUQ (2025), which ranks the layers of multimodal models by this entropy.
    """

    needs: ClassVar[str] = "activations"

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Histograms(space, len(blocks(model)))


class _Histograms(BlockScores):
    def __init__(self, space: SearchSpace, n_blocks: int) -> None:
        super().__init__(space, n_blocks)
        self.bins = np.zeros((n_blocks, 2 * _N_BINS), dtype=np.int64)

    def block(self, index: int, inputs: Tensor, outputs: Tensor) -> None:
        values = outputs.float().flatten()
        octave = torch.log2(values.abs().clamp(min=_SMALLEST) / _SMALLEST) * _PER_OCTAVE
        place = octave.long().clamp(max=_N_BINS - 1) + _N_BINS * (values < 0)
        self.bins[index] += torch.bincount(place, minlength=2 * _N_BINS).cpu().numpy()

    def scores(self) -> NDArray[np.float64]:
        edges = _SMALLEST * 2.0 ** (np.arange(_N_BINS + 1) / _PER_OCTAVE)
        edges[0] = 0.0
        return np.exp([entropy(counts, np.tile(np.diff(edges), 2)) for counts in self.bins])


def entropy(counts: NDArray[np.int64], widths: NDArray[np.float64]) -> float:
    """Differential entropy in nats of a histogram; minus infinity of an empty one."""
    filled = counts > 0
    if not filled.any():
        return -np.inf
    share = counts[filled] / counts.sum()
    return float(-(share * np.log(share / widths[filled])).sum())
