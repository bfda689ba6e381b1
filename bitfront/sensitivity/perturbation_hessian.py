"""Output error weighted by how the gradient answers a small change of the hidden state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.embeddings import answers_of
from bitfront.models.gradients import errors, visit_gradients
from bitfront.models.layers import get_weight
from bitfront.models.losses import KlLoss
from bitfront.models.matrices import n_rows, products
from bitfront.sensitivity.base import Estimator, part_of
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

_ROUNDING = 1e-5
"""Changes of an output, relative to its size, that say nothing."""


@dataclass(frozen=True)
class PerturbationHessian(Estimator):
    """Squared output errors weighted by the gradients that a perturbation of the embeddings causes.

        entry = 1/2 sum_o h_o E[(D x)_o^2],   h_o = mean over tokens of |g+_o| + |g-_o|  /  2 |d_o|

    with D = Q(W) - W, g+ and g- the gradients of KL(unquantized || perturbed) at the layer's output
    when the embedding's output, or an image's pixels, are moved by +d and -d, random signs times
    `scale` of their root mean square, and |d_o| the mean change that this causes at the layer's
    output. KL has no gradient at the unquantized model, so what a small move leaves behind is
    curvature times the move, averaged over both signs. The paper perturbs the blocks of a vision
    model one by one; here one move at the bottom serves all layers. It takes the outputs of a layer
    for uncorrelated; a layer whose outputs the move does not change, or a routed expert, which sees
    other tokens after the move, gets the mean curvature of the others.

    Cost: two backward passes, and four bytes of memory for every token and output of every layer.

    Prefer it where `bitfront compare` says so: it is among the first on stories15M (tau 0.96) and
    below `weight_error` on SmolLM2-135M (0.82 against 0.86). It takes the curvature of KL without
    drawn labels; `fisher_output` sees the correlations that it drops.

    Source: the perturbation Hessian of APHQ-ViT (2025).

    Args:
        scale: size of the move, relative to the root mean square of the embeddings.
        max_sequences: how many of the sequences are used.
        top_k: tokens kept per position of the unquantized model's prediction.
        seed: of the signs.
    """

    scale: float = 0.05
    max_sequences: int = 4
    top_k: int = 512
    seed: int = 0

    needs: ClassVar[str] = "gradients"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not self.scale > 0 or self.top_k < 1 or self.max_sequences < 1:
            raise InvalidArgument(
                f"scale is {self.scale}, top_k {self.top_k}, max_sequences {self.max_sequences}: "
                "give scale > 0 and the others at least 1."
            )

    def looked_at(self, model: nn.Module, batches: Tensor) -> Tensor:
        """Some of the sequences."""
        return batches[: self.max_sequences]

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        tokens = self.looked_at(model, batches)
        reference = answers_of(model, tokens, self.top_k)
        seen = _Seen(model, space, bank)
        for part, sign in enumerate((1.0, -1.0)):
            seen.sign = part
            with _moved(model, tokens, sign * self.scale, self.seed) as samples:
                visit_gradients(
                    model,
                    samples,
                    space,
                    KlLoss(reference),
                    seen.visit,
                    progress=part_of(progress, part, 2),
                )
        return self.table(space, seen.values(), tokens, bank)


class _Seen:
    """Gradients, outputs and output errors of the layers, as means over tokens."""

    def __init__(self, model: nn.Module, space: SearchSpace, bank: WeightBank) -> None:
        self.model, self.space, self.bank, self.sign = model, space, bank, 0
        widths = [layer.shape[0] for layer in space.layers]
        self.gradients = [np.zeros(width) for width in widths]
        self.errors = [np.zeros((len(space.formats), width)) for width in widths]
        self.counts = np.zeros(len(widths))
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.changes = [np.zeros(width) for width in widths]
        self.sizes = np.zeros(len(widths))
        self._passes = np.zeros((2, len(widths)), dtype=int)

    def visit(self, row: int, inputs: Tensor, gradients: Tensor) -> None:
        weight = get_weight(self.model, self.space.layers[row].name)
        rows = inputs.float()
        self.gradients[row] += _sums(gradients.flatten(0, 1).float().abs())
        self.counts[row] += n_rows(rows)
        for column, error in errors(weight, self.space, self.bank, row):
            self.errors[row][column] += _sums(products(rows, error).flatten(0, 1).square())
        if self.space.layers[row].active < 1:
            return  # the moved text goes through other experts: nothing to hold outputs against
        outputs = products(rows, weight.float()).flatten(0, 1)
        key = (row, int(self._passes[self.sign, row]))
        self._passes[self.sign, row] += 1
        if self.sign == 0:
            self.kept[key] = outputs
            self.sizes[row] += float(outputs.abs().mean(dim=1).double().sum())
        else:
            self.changes[row] += _sums((self.kept.pop(key) - outputs).abs()) / 2

    def values(self) -> np.ndarray:
        table = np.zeros(self.space.allowed.shape)
        curvatures = {row: self._curvature(row) for row in np.flatnonzero(self.counts).tolist()}
        known = [curvature.mean() for curvature in curvatures.values() if curvature is not None]
        mean = float(np.mean(known)) if known else 0.0
        for row, found in curvatures.items():
            curvature = np.full(len(self.changes[row]), mean) if found is None else found
            table[row] = 0.5 * (self.errors[row] / self.counts[row]) @ curvature
        return table

    def _curvature(self, row: int) -> np.ndarray | None:
        """Of each output of a layer; `None` for experts, and where outputs changed by rounding."""
        count = self.counts[row]
        change, gradient = self.changes[row] / (count / 2), self.gradients[row] / count
        typical = change.mean()
        rounding = _ROUNDING * self.sizes[row] / (count / 2)
        if self.space.layers[row].active < 1 or typical <= rounding:
            return None
        # An output that hardly moved says nothing of its curvature: the layer's mean stands in.
        return np.asarray(gradient / np.maximum(change, 0.1 * typical))


def _sums(values: Tensor) -> np.ndarray:
    return np.asarray(values.sum(dim=0).double().cpu().numpy())


@contextmanager
def _moved(model: nn.Module, samples: Tensor, scale: float, seed: int) -> Iterator[Tensor]:
    """Samples whose embedding, or pixels, are moved by random signs while the block lasts."""

    def move(values: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        signs = 2 * torch.randint(2, values.shape, generator=generator) - 1
        size = values.detach().float().square().mean().sqrt()
        return values + (scale * size * signs.to(values.device)).to(values.dtype)

    if samples.is_floating_point():
        yield move(samples)
        return
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_hook(lambda _module, _args, output: move(output))
    try:
        yield samples
    finally:
        hook.remove()
