"""Output gradients of linear layers, a few sequences at a time, without weight gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import NonFinite
from bitfront.models.bank import WeightBank
from bitfront.models.experts import expert_modules
from bitfront.models.matrices import input_rows, output_rows
from bitfront.models.tasks import TEXT, Task, run, task_of
from bitfront.space import SearchSpace

TOKENS_PER_PASS = 1024
"""Positions of one forward and backward pass: what is kept for the backward grows with it."""

LogitGradient = Callable[[Tensor, slice, int], Tensor]
"""`(outputs [n, n_outputs, size], rows of the samples, draw)` -> gradient of the same shape."""

Visit = Callable[[int, Tensor, Tensor], None]
"""`(layer index, inputs [n, length, in_features], gradients [n, length, out_features])`.

Of a convolution a position of the output is one of the length, its input the patch that it reads;
where groups of channels read patches of their own, inputs are `[n, length, n_groups, in_features]`.
"""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; every flag is as before on exit."""
    gradients = [(p, p.requires_grad) for p in model.parameters()]
    training = [(m, m.training) for m in model.modules()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


def passes(tokens: Tensor, alone: bool = False, task: Task = TEXT) -> list[slice]:
    """Rows of samples, `tokens [n_sequences, length]` of a text, that go through it together.

    Args:
        tokens: the samples.
        task: theirs.
        alone: whether each goes by itself: a routed expert sees tokens, not sequences, and what it
            sees could not be told apart.

    Raises:
        InvalidText: nothing to predict.
    """
    task.check(tokens)
    step = 1 if alone or task.alone else max(1, TOKENS_PER_PASS // task.n_positions(tokens))
    return [slice(i, min(i + step, len(tokens))) for i in range(0, len(tokens), step)]


def visit_gradients(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    logit_gradient: LogitGradient,
    visit: Visit,
    n_draws: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Hand every searched layer's inputs and output gradients to `visit`, last layer first.

    No weight needs a gradient: the gradient of a weight is `gradients^T @ inputs`, and the first
    searched layers are where the graph begins, which saves a third of the work.

    Args:
        model: left as it was.
        tokens: samples of its task, such as token ids int64 `[n_sequences, length]`.
        space: its layers are the ones visited, by index.
        logit_gradient: gradient of the loss, summed over tokens, with respect to the logits.
        visit: called once per pass, draw and layer; keeps what it needs.
        n_draws: backward passes per forward pass, for losses with random labels.
        progress: called with `(passes done, passes in all)`.

    Raises:
        NonFinite: outputs or gradients overflow; names the layer.
        InvalidText: too few tokens.
    """
    chunks = passes(tokens, bool(expert_modules(model)), task_of(model))
    for done, rows in enumerate(chunks, start=1):
        batch = tokens[rows]
        with frozen(model), torch.enable_grad(), _watched(model, space, len(batch), visit):
            logits = run(model, batch)
        for draw in range(n_draws):
            gradient = logit_gradient(logits.detach(), rows, draw)
            torch.autograd.backward(
                logits, gradient.to(logits.dtype), retain_graph=draw + 1 < n_draws
            )
        if progress is not None:
            progress(done, len(chunks))


@contextmanager
def _watched(model: nn.Module, space: SearchSpace, n_samples: int, visit: Visit) -> Iterator[None]:
    handles = [
        model.get_submodule(layer.name).register_forward_hook(
            _forward_hook(row, layer.name, n_samples, visit)
        )
        for row, layer in enumerate(space.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward_hook(
    row: int, name: str, n_samples: int, visit: Visit
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def keep_inputs(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        require_finite(output, "output", name)
        inputs = args[0].detach()
        if not output.requires_grad:
            output.requires_grad_()

        def hand_over(gradient: Tensor) -> None:
            require_finite(gradient, "gradient", name)
            rows = input_rows(module, inputs), output_rows(module, gradient)
            visit(row, *(by_sequence(values, n_samples) for values in rows))

        output.register_hook(hand_over)  # type: ignore[no-untyped-call]

    return keep_inputs


def by_sequence(rows: Tensor, n_samples: int) -> Tensor:
    """`[n, length, features]`; some models flatten positions, some layers see a part of them.

    Where rows do not come to as many of each sample (routed experts) all count as of one.

    Args:
        rows: `[..., features]`, or in groups `[n, length, n_groups, features]`.
        n_samples: of the batch.
    """
    features = rows.shape[2:] if rows.ndim == 4 else rows.shape[-1:]
    n_rows = rows.numel() // features.numel()
    n = n_samples if n_rows % n_samples == 0 else 1
    return rows.reshape(n, -1, *features)


def require_finite(values: Tensor, what: str, layer: str) -> None:
    """Raise `NonFinite` naming the layer unless every value is finite."""
    # One sum passes NaN and infinity on, at a fifth of the time of a test of each value.
    if not bool(values.sum(dtype=torch.float32).isfinite()):
        raise NonFinite(
            f"The {what} of layer {layer!r} is not finite in {values.dtype}: "
            "check the weights and the calibration data, or load the model in float32."
        )


def weight_gradients(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Gradient of the weight for each sequence, float32 `[n, out_features, in_features]`.

    Args:
        inputs: `[n, length, in_features]`, or in groups `[n, length, n_groups, in_features]`.
        gradients: at the layer's output, `[n, length, out_features]`.
    """
    if inputs.ndim == 3:
        return torch.bmm(gradients.float().mT, inputs.float())
    by_group = gradients.float().reshape(*inputs.shape[:3], -1)
    return torch.einsum("nlgr,nlgc->ngrc", by_group, inputs.float()).flatten(1, 2)


def whole_gradient(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Gradient of the weight for all sequences, float32 `[out_features, in_features]`.

    Arguments as of `weight_gradients`.
    """
    if inputs.ndim == 3:  # one product, and no gradient for each sequence in memory
        return gradients.flatten(0, 1).float().mT @ inputs.flatten(0, 1).float()
    return weight_gradients(inputs, gradients).sum(dim=0)


def sequence_groups(inputs: Tensor, gradients: Tensor, limit: int = 2**26) -> Iterator[Tensor]:
    """`weight_gradients` of as many sequences at a time as stay below `limit` numbers."""
    size = inputs.shape[-1] * gradients.shape[-1]  # of a weight, in groups too
    step = max(1, limit // size)
    for start in range(0, len(inputs), step):
        yield weight_gradients(inputs[start : start + step], gradients[start : start + step])


def errors(
    weight: Tensor, space: SearchSpace, bank: WeightBank, row: int
) -> Iterator[tuple[int, Tensor]]:
    """`(format index, Q(W) - W)` for every format that fits the layer, float32 `[out, in]`."""
    for column, format in enumerate(space.formats):
        if space.allowed[row, column]:
            quantized = bank.weight(space.layers[row].name, format.name, weight.device)
            yield column, quantized - weight.float()
