"""One pass over the text that many accumulators look at: layers, blocks, gradients."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.models.bank import WeightBank
from bitfront.models.experts import expert_modules
from bitfront.models.gradients import (
    by_sequence,
    errors,
    frozen,
    passes,
    require_finite,
    sequence_groups,
    visit_gradients,
)
from bitfront.models.layers import blocks, get_weight
from bitfront.models.losses import label_loss
from bitfront.models.matrices import input_rows
from bitfront.models.tasks import run, task_of
from bitfront.space import SearchSpace

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class LayerView:
    """What one pass shows of one layer; what is derived is made once for all that look.

    Args:
        row: index of the layer.
        weight: `[out_features, in_features]`, of the unquantized model.
        inputs: `[n, length, in_features]`, or in groups as of `Visit`.
        gradients: of the loss summed over tokens, at the layer's output, `[n, length,
            out_features]`; `None` in passes without a loss.
        space: rows and columns.
        bank: the quantized weights.
    """

    row: int
    weight: Tensor
    inputs: Tensor
    gradients: Tensor | None
    space: SearchSpace
    bank: WeightBank

    @cached_property
    def slopes(self) -> Tensor:
        """`gradients`, where the pass has a loss."""
        assert self.gradients is not None, "an accumulator of gradients in a pass without a loss"
        return self.gradients

    @cached_property
    def columns(self) -> list[int]:
        """Indices of the formats that fit."""
        return np.flatnonzero(self.space.allowed[self.row]).tolist()

    @cached_property
    def errors(self) -> Tensor:
        """Q(W) - W of the formats of `columns`, float32 `[n_columns, out, in]`; not to change."""
        found = [error for _, error in errors(self.weight, self.space, self.bank, self.row)]
        return torch.stack(found)

    @cached_property
    def squares(self) -> Tensor:
        """Sum over sequences of squared weight gradients, float32 `[out, in]`; not to change."""
        total = torch.zeros_like(self.weight, dtype=torch.float32)
        for group in sequence_groups(self.inputs, self.slopes):
            total += group.square_().sum(dim=0)
        return total


class Accumulator(ABC):
    """Sums of one estimator over the passes, and the values they come to; sees what it likes."""

    def layer(self, view: LayerView) -> None:  # noqa: B027
        """See one layer in one pass."""

    def block(self, index: int, inputs: Tensor, outputs: Tensor) -> None:  # noqa: B027
        """See one transformer block in one pass, both `[n, length, hidden_size]`."""

    @abstractmethod
    def values(self, n_scored: int) -> NDArray[np.float64]:
        """The table `[n_layers, n_formats]`; `n_scored` tokens had a loss, times their draws."""


@dataclass(frozen=True)
class Labels:
    """Whose next tokens a pass has its loss of; fields as in `LabelEstimator`."""

    kind: str = "model"
    n_draws: int = 1
    seed: int = 0


def accumulate(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    bank: WeightBank,
    accumulators: Sequence[Accumulator],
    labels: Labels | None,
    progress: Progress | None = None,
) -> tuple[list[NDArray[np.float64]], list[float]]:
    """Show one pass over the text to all accumulators.

    Args:
        model: the unquantized model; left as it was.
        tokens: samples of its task.
        space: rows and columns.
        bank: the quantized weights.
        accumulators: who looks.
        labels: of the loss; `None` for forward passes alone, without gradients.
        progress: called with `(passes done, passes in all)`.

    Returns:
        The values of each, and its seconds: those of the pass, which count in full for all, and
        its own. What several derive from a view counts for the one that came first.

    Raises:
        NonFinite: outputs or gradients overflow; names the layer.
    """
    seconds = [0.0] * len(accumulators)
    start = time.perf_counter()

    def timed(look: Callable[[Accumulator], None]) -> None:
        for index, accumulator in enumerate(accumulators):
            begun = time.perf_counter()
            look(accumulator)
            seconds[index] += time.perf_counter() - begun

    def show(row: int, inputs: Tensor, gradients: Tensor | None) -> None:
        weight = get_weight(model, space.layers[row].name)
        view = LayerView(row, weight, inputs, gradients, space, bank)
        timed(lambda accumulator: accumulator.layer(view))

    def show_block(index: int, inputs: Tensor, outputs: Tensor) -> None:
        timed(lambda accumulator: accumulator.block(index, inputs, outputs))

    task = task_of(model)
    with _watched_blocks(model, task.n_positions(tokens), show_block):
        if labels is None:
            _visit_inputs(model, tokens, space, show, progress)
        else:
            loss = label_loss(tokens, labels.kind, labels.n_draws, labels.seed, task)
            visit_gradients(model, tokens, space, loss, show, labels.n_draws, progress)
    n_scored = len(tokens) * task.n_scored(tokens) * (labels.n_draws if labels else 1)
    shared = time.perf_counter() - start - sum(seconds)
    values: list[NDArray[np.float64]] = []
    timed(lambda accumulator: values.append(accumulator.values(n_scored)))
    return values, [shared + own for own in seconds]


def _visit_inputs(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    visit: Callable[[int, Tensor, None], None],
    progress: Progress | None,
) -> None:
    """Hand the inputs of every searched layer to `visit`, in forward passes alone."""
    chunks = passes(tokens, bool(expert_modules(model)), task_of(model))
    for done, rows in enumerate(chunks, start=1):
        batch = tokens[rows]
        with frozen(model), torch.no_grad(), ExitStack() as stack:
            for row, layer in enumerate(space.layers):
                hook = _input_hook(row, layer.name, len(batch), visit)
                module = model.get_submodule(layer.name)
                stack.callback(module.register_forward_hook(hook).remove)
            run(model, batch)
        if progress is not None:
            progress(done, len(chunks))


def _input_hook(
    row: int, name: str, n_samples: int, visit: Callable[[int, Tensor, None], None]
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def hand_over(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        require_finite(output, "output", name)
        visit(row, by_sequence(input_rows(module, args[0].detach()), n_samples), None)

    return hand_over


def _by_position(states: Tensor, length: int) -> Tensor:
    """`[n, length, hidden_size]`, also where a model flattens the tokens of a text.

    States of four dimensions are those of a convolutional model, `[n, channels, height, width]`.
    """
    states = states.detach()
    if states.ndim == 4:
        return states.flatten(2).mT
    return states if states.ndim > 2 else states.reshape(-1, length, states.shape[-1])


@contextmanager
def _watched_blocks(
    model: nn.Module, length: int, show: Callable[[int, Tensor, Tensor], None]
) -> Iterator[None]:
    def hook(index: int) -> Callable[..., None]:
        def hand_over(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs = output[0] if isinstance(output, tuple) else output
            show(index, _by_position(args[0], length), _by_position(outputs, length))

        return hand_over

    with ExitStack() as stack:
        for index, block in enumerate(blocks(model)):
            stack.callback(block.register_forward_hook(hook(index)).remove)
        yield
