"""Whole allocations and their measured KL, which combined estimators are fitted to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.allocation import Allocation
from bitfront.models.bank import WeightBank
from bitfront.models.embeddings import answers_of
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.space import SearchSpace

Columns = NDArray[np.int64]


def drawn(space: SearchSpace, n: int, seed: int) -> Columns:
    """Random formats of every layer, each allocation around a width of its own; `[n, n_layers]`."""
    rng = np.random.default_rng(seed)
    n_layers, n_formats = space.allowed.shape
    centres = np.linspace(0, n_formats - 1, n)[:, None]
    columns = np.clip(np.rint(rng.normal(centres, 0.8, (n, n_layers))), 0, n_formats - 1)
    columns = columns.astype(np.int64)
    fits = space.allowed[np.arange(n_layers), columns]
    return np.where(fits, columns, space.allowed.argmax(axis=1))


def measured(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    bank: WeightBank,
    choices: Columns,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """KL of allocations `[n, n_layers]` against the unquantized model, nats per token, `[n]`.

    Raises:
        NonFinite: outputs overflow.
    """
    kl = np.zeros(len(choices))
    with (
        BlockStart(model, answers_of(model, tokens)) as start,
        PatchedModel(model, bank) as patched,
    ):
        for index, columns in enumerate(choices):
            formats = {
                layer.name: space.formats[column].name
                for layer, column in zip(space.layers, columns, strict=True)
            }
            patched.apply(Allocation(formats))
            kl[index] = start.kl()
            if progress is not None:
                progress(index + 1)
    return kl


def sums(values: NDArray[np.float64], choices: Columns) -> NDArray[np.float64]:
    """Sum of a table `[n_layers, n_formats]` at each of `choices [n, n_layers]`, `[n]`."""
    return np.asarray(values[np.arange(len(values)), choices].sum(axis=1))
