"""Gradients of a loss with respect to the rounded keys and values of each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.models.caches import RoundedCaches
from bitfront.models.gradients import LogitGradient, frozen, passes, require_finite
from bitfront.models.losses import KlLoss, LabelLoss
from bitfront.models.reference import Reference
from bitfront.models.tasks import run, task_of
from bitfront.space import SearchSpace

_NOTHING: Mapping[str, str] = MappingProxyType({})


def cache_fisher(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    labels: tuple[str, int, int] = ("model", 1, 0),
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """KL in nats a token that rounding each cache alone adds, `[n_layers, n_formats]`.

        1/2 sum over numbers of g^2 (Q(x) - x)^2 / number of tokens

    with g the gradient of a sequence's summed negative log-likelihood through those queries that
    see the number x quantized: the diagonal of the Fisher information of what is cached. Rows of
    weights are 0. One forward and backward pass for each group size of the menu.

    Args:
        model: unquantized; left as it was.
        tokens: samples of its task, such as token ids int64 `[n_sequences, length]`.
        space: its caches are looked at.
        labels: whose next tokens the loss is of, draws and seed, as in `LabelEstimator`.
        progress: called with `(passes done, passes in all)`.

    Raises:
        NonFinite: outputs or gradients overflow; names the cache.
    """
    task = task_of(model)
    loss = LabelLoss.of(tokens, *labels, task)
    values = np.zeros(space.allowed.shape)
    n_scored = len(tokens) * task.n_scored(tokens) * labels[1]

    for caches, row, columns, exact, _, gradient in _passes(
        model, tokens, space, loss, _NOTHING, labels[1], progress
    ):
        for column in columns:
            error = _rounded(caches, space, row, column, exact) - exact
            values[row, column] += float((gradient * error).square().sum()) / (2 * n_scored)
    return values


def cache_slopes(
    model: nn.Module, reference: Reference, space: SearchSpace, held: Mapping[str, str]
) -> NDArray[np.float64]:
    """First-order change of KL in nats a token when one cache leaves its format; rows as `slopes`.

    Args:
        model: holding the weights of an allocation; left as it was.
        reference: predictions of the unquantized model, with the tokens.
        space: its caches are looked at.
        held: format of each cache.
    """
    tokens = reference.tokens
    values = np.zeros(space.allowed.shape)
    n_scored = len(tokens) * reference.n_scored
    for caches, row, columns, exact, seen, gradient in _passes(
        model, tokens, space, KlLoss(reference), held, 1, None
    ):
        for column in columns:
            switched = _rounded(caches, space, row, column, exact) - seen
            values[row, column] += float((gradient * switched).sum()) / n_scored
    return values


def _rounded(
    caches: RoundedCaches, space: SearchSpace, row: int, column: int, exact: Tensor
) -> Tensor:
    format = space.formats[column]
    if not format.scaled:
        return exact.bfloat16().float()
    return caches.rounded(exact, space.layers[row].cache, format)


def _passes(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    loss: LogitGradient,
    held: Mapping[str, str],
    n_draws: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[RoundedCaches, int, list[int], Tensor, Tensor, Tensor]]:
    """`(caches, row, columns of formats that this pass is of, exact, held, gradient)`, float32."""
    rows = {x.name: row for row, x in enumerate(space.layers) if x.cache}
    first = next(iter(rows.values()))
    groups = [f.group_columns or 0 for f in space.formats]
    # Keys leave the window group by group: each size of a group has a pass of its own.
    sizes = sorted({groups[c] for c in np.flatnonzero(space.allowed[first])} - {0}) or [1]
    chunks = passes(tokens, task=task_of(model))
    for index, size in enumerate(sizes):
        wanted = {size} if index else {0, size}
        of_pass = [column for column, group in enumerate(groups) if group in wanted]
        for done, part in enumerate(chunks, start=1):
            with RoundedCaches(model, space) as caches:
                caches.apply(held)
                shown = _shown(caches, model, tokens[part], part, loss, size, n_draws)
                for name, exact, seen, gradient in shown:
                    row = rows[name]
                    columns = [c for c in of_pass if space.allowed[row, c]]
                    yield caches, row, columns, exact, seen, gradient
            if progress is not None:
                progress(index * len(chunks) + done, len(sizes) * len(chunks))


def _shown(
    caches: RoundedCaches,
    model: nn.Module,
    tokens: Tensor,
    part: slice,
    loss: LogitGradient,
    size: int,
    n_draws: int,
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """`(name, exact, held, gradient)` of each cache after each backward pass."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    caches.watch(lambda name, exact, low: seen.update({name: (exact.detach(), low)}), size)
    try:
        with frozen(model), torch.enable_grad():
            logits = run(model, tokens)
        leaves = [low for _, low in seen.values()]
        for draw in range(n_draws):
            gradient = loss(logits.detach(), part, draw).to(logits.dtype)
            found = torch.autograd.grad(
                logits, leaves, gradient, retain_graph=draw + 1 < n_draws, materialize_grads=True,
                allow_unused=True,
            )  # fmt: skip
            for (name, (exact, low)), g in zip(seen.items(), found, strict=True):
                require_finite(g, "gradient", name)
                yield name, exact.float(), low.detach().float(), g.float()
    finally:
        caches.watch(None)
