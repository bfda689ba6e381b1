"""How far a block turns its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from bitfront.models.accumulators import Accumulator
from bitfront.models.layers import blocks
from bitfront.sensitivity._block_scores import BlockScores
from bitfront.sensitivity.base import PassEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class LayerInfluence(PassEstimator):
    """One minus the cosine of a block's input and output, times each layer's relative error.

        entry = (1 - mean over tokens of cos(block input, block output)) ||D||^2 / ||W||^2

    with D = Q(W) - W. A block that leaves the hidden state as it was is taken to matter little. The
    paper ranks whole blocks; the relative error makes formats and layers of a block differ. Layers
    outside the blocks get the mean score. It sees how much a block does, not how much the loss
    cares: see benchmarks/results/estimators.csv for how it ranks. Blocks that put out states of
    another shape than they read (stages of convolutional models) have the cosine of unlike states,
    0, and rank alike.

    Cost: one forward pass.

    Prefer it where gradients are out of reach.

    Source: Layer Input Modification of Dumitru et al., Layer-Wise Quantization (2024), section 3.
    """

    needs: ClassVar[str] = "activations"

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Turns(space, len(blocks(model)))


class _Turns(BlockScores):
    def block(self, index: int, inputs: Tensor, outputs: Tensor) -> None:
        if inputs.shape == outputs.shape:
            cosines = cosine_similarity(inputs.double(), outputs.double(), dim=-1)
        else:
            cosines = outputs.new_zeros(outputs.shape[:2])
        self.sums[index] += float((1 - cosines).sum())
        self.counts[index] += cosines.numel()
