"""What a block adds: loss when it is skipped, and how it reshapes the hidden state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import accumulate
from bitfront.models.bank import WeightBank
from bitfront.models.gradients import frozen
from bitfront.models.layers import blocks
from bitfront.models.tasks import scored_outputs, task_of
from bitfront.sensitivity._block_scores import BlockScores
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerInformation(Estimator):
    """Three signs of what a block adds, times each layer's relative weight error.

        entry = (drop_b / mean drop + compactness_b / mean + gain_b / mean) / 3  ||D||^2 / ||W||^2

        drop:         rise of the loss when the block is skipped, at least 0
        compactness:  exp(-H) - 1 / width,  H = entropy of the singular values' shares of the
                      block's output: what its effective rank falls short of isotropic states
        gain:         E - top_k / width,  E = share of the `top_k` largest squared singular values

    with D = Q(W) - W. Singular values are those of the outputs of one sequence, each token scaled
    to length 1; compactness and gain are at least 0, their means are over sequences. Where a
    block's output is not all that the next one reads, or of another shape than its input (stages of
    convolutional models), leaving it out means nothing, and drops count alike.

    The inverse of the effective rank, isotropic states as the point of comparison, and the plain
    mean are our reading. Layers outside the blocks get the mean score. It ranks blocks, and layers
    within a block by their relative errors alone: see benchmarks/results/estimators.csv.

    Cost: a forward pass with singular values, and a forward pass per block over `max_sequences`.

    Prefer it where gradients are out of reach and whole blocks are what differs.

    Source: LieQ (2025), which gives whole blocks their bits by these three diagnostics.

    Args:
        top_k: singular values that count as leading.
        max_sequences: sequences on which blocks are skipped.
    """

    top_k: int = 8
    max_sequences: int = 2

    needs: ClassVar[str] = "activations"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.max_sequences < 1:
            raise InvalidArgument(
                f"top_k is {self.top_k}, max_sequences {self.max_sequences}: give at least 1 each."
            )

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        n_blocks = len(blocks(model))

        def passed(done: int, total: int) -> None:
            if progress is not None:
                progress(n_blocks * done // total, 2 * n_blocks)

        def skipped(done: int) -> None:
            if progress is not None:
                progress(n_blocks + done, 2 * n_blocks)

        shapes = _Shapes(space, n_blocks, self.top_k)
        accumulate(model, batches, space, bank, [shapes], None, passed)
        if shapes.chained:
            shapes.drops = drops(model, batches[: self.max_sequences], skipped)
        return self.table(space, shapes.values(0), batches, bank)


class _Shapes(BlockScores):
    """Compactness and gain of every block, means over sequences."""

    def __init__(self, space: SearchSpace, n_blocks: int, top_k: int) -> None:
        super().__init__(space, n_blocks)
        self.top_k = top_k
        self.gains = np.zeros(n_blocks)
        self.drops = np.zeros(n_blocks)
        self.chained = True
        """Whether every block read what the one before it returned, and can be left out."""
        self._outputs: Tensor | None = None

    def block(self, index: int, inputs: Tensor, outputs: Tensor) -> None:
        if index > 0 and self._outputs is not None:
            self.chained = self.chained and torch.equal(self._outputs, inputs)
        self.chained = self.chained and inputs.shape == outputs.shape
        self._outputs = outputs
        for states in outputs:
            compactness, gain = shape_of(states, self.top_k)
            self.sums[index] += compactness
            self.gains[index] += gain
            self.counts[index] += 1

    def scores(self) -> Floats:
        counts = np.maximum(self.counts, 1)
        parts = (self.drops, self.sums / counts, self.gains / counts)
        means = [part.mean() for part in parts]
        shares = [
            p / mean if mean > 0 else np.ones(len(p)) for p, mean in zip(parts, means, strict=True)
        ]
        return np.asarray(np.mean(shares, axis=0))


def shape_of(states: Tensor, top_k: int) -> tuple[float, float]:
    """Compactness and gain of hidden states `[n_tokens, width]`: 0 and 0 for isotropic ones.

    Fewer tokens than the width span less than it, and are above 0. States of zeros have no shape:
    0 and 0 too.
    """
    rows = normalize(states.double(), dim=1)
    width = rows.shape[1]
    gram = rows @ rows.T if rows.shape[0] < width else rows.T @ rows
    energy = torch.linalg.eigvalsh(gram).clamp(min=0)
    total, singular = energy.sum(), energy.sqrt()
    if not total > 0:
        return 0.0, 0.0
    shares = singular / singular.sum()
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum()
    compactness = float(torch.exp(-entropy)) - 1 / width
    gain = float(energy[-top_k:].sum() / total) - min(1.0, top_k / width)
    # Rounding can push isotropic states just below 0.
    return max(compactness, 0.0), max(gain, 0.0)


def drops(
    model: nn.Module, tokens: Tensor, progress: Callable[[int], None] | None = None
) -> Floats:
    """Rise of the mean loss, nats per token, when each block is skipped; at least 0, `[n_blocks]`.

    A loss that overflows counts as the largest of the others.

    Args:
        model: left as it was.
        tokens: samples of its task.
        progress: called with the blocks done.
    """
    task = task_of(model)
    targets: list[Tensor] = []

    def loss() -> float:
        total = 0.0
        for index, sample in enumerate(tokens):
            scored = scored_outputs(model, sample)
            if len(targets) == index:
                targets.append(task.targets(sample, scored))
            total += task.loss(scored, targets[index]).item() / len(tokens)
        return total

    def skip(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    with frozen(model), torch.no_grad():
        whole, found = loss(), []
        for index, block in enumerate(blocks(model)):
            hook = block.register_forward_hook(skip)
            try:
                found.append(loss() - whole)
            finally:
                hook.remove()
            if progress is not None:
                progress(index + 1)
    rises = np.array(found)
    finite = rises[np.isfinite(rises)]
    largest = finite.max() if finite.size else 1.0
    return np.asarray(np.maximum(np.where(np.isfinite(rises), rises, largest), 0.0))
