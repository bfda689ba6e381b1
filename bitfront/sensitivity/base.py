"""Estimator: how much each layer suffers in each format."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import Accumulator, Labels, accumulate
from bitfront.models.bank import WeightBank
from bitfront.models.cache_gradients import cache_fisher
from bitfront.models.data import digest
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight
from bitfront.models.losses import check_labels
from bitfront.models.rounded_inputs import has_pairs
from bitfront.models.statistics import InputGrams
from bitfront.sensitivity._inputs import input_fisher, of_pairs, of_weight_formats
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


class Estimator(ABC):
    """Makes the loss table. Subclasses are frozen dataclasses of hyperparameters."""

    needs: ClassVar[str]
    """`"weights"`, `"activations"`, `"gradients"` or `"forwards"`."""

    in_nats: ClassVar[bool] = False
    """Whether entries estimate KL in nats per token; otherwise they only rank."""

    non_negative: ClassVar[bool] = True
    """Whether no entry can be below zero, but for rounding."""

    sees_caches: ClassVar[bool] = False
    """Whether `estimate` makes the rows of caches too; `whole_table` adds those of others."""

    cache_source: ClassVar[str] = ", caches by cache_fisher"
    """What the source of a table says of `cache_rows`."""

    sees_inputs: ClassVar[bool] = False
    """Whether `estimate` judges what pairs round inputs to; `whole_table` adds that of others."""

    judges_inputs_by: ClassVar[str] = "input_fisher"
    """What `input_losses` adds, for the source of the table."""

    by_block: ClassVar[bool] = False
    """Whether a table takes so long that it is made and stored block by block.

    A layer's row must then not depend on which other layers are asked for.
    """

    version: ClassVar[int] = 1
    """Raised when the same hyperparameters begin to give other values; part of every cache key."""

    @abstractmethod
    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table of expected loss when one layer alone takes one format.

        Args:
            model: the unquantized causal language model, in evaluation mode; left as it was.
            batches: token ids, int64 `[n_sequences, sequence_length]`.
            space: rows and columns of the table.
            bank: the quantized weights, so that each format is judged by its own error.
            progress: called with `(steps done, steps in all)` as the work goes on.

        Raises:
            NonFinite: weights, activations or gradients are not finite; names the layer.
        """

    def whole_table(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """`estimate` of a space that may have caches and pairs with inputs.

        Where it sees no caches, their rows are `cache_rows`. Where it does not see what inputs
        are rounded to, a pair has the entry of its weight's format and `input_losses`. Arguments
        and errors as `estimate`.

        Raises:
            InvalidArgument: the estimator is not in nats, so that it could not be compared.
        """
        if self.sees_inputs or not has_pairs(space):
            return self._with_caches(model, batches, space, bank, progress)
        self.check_inputs()
        alone, columns = of_weight_formats(space)
        table = self._with_caches(model, batches, alone, bank, part_of(progress, 0, 2))
        added = np.zeros(space.allowed.shape)
        rows = [row for row, layer in enumerate(space.layers) if not layer.cache]
        if rows:
            show = part_of(progress, 1, 2)
            added[rows] = self.input_losses(model, batches, space.of_weights, bank, show)
        return of_pairs(table, space, columns, added, self.judges_inputs_by)

    def input_losses(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """What rounding inputs adds to each entry, `[n_layers, n_formats]`; see `input_fisher`."""
        return input_fisher(model, batches, space, bank, progress)

    def check_inputs(self) -> None:
        """Refuse to add what only ranks to the loss of rounded inputs, which is in nats.

        Raises:
            InvalidArgument: says which to take.
        """
        if not (self.in_nats or self.sees_inputs or self.judges_inputs_by != "input_fisher"):
            raise InvalidArgument(
                f"{type(self).__name__} only ranks weights, and does not judge what inputs are "
                "rounded to: take an estimator in nats, such as fisher_directional or "
                "leave_one_in, or output_error, or leave out formats of inputs."
            )

    def _with_caches(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None,
    ) -> LayerTable:
        if self.sees_caches or space.kv_cache is None:
            return self.estimate(model, batches, space, bank, progress)
        self.check_caches()
        of_weights = [row for row, layer in enumerate(space.layers) if not layer.cache]
        values = np.zeros(space.allowed.shape)
        if len(of_weights) < len(space.layers):
            values = self.cache_rows(model, batches, space, bank)
        if not of_weights:
            return self.table(space, values, batches, bank)
        table = self.estimate(model, batches, space.of_weights, bank, progress)
        values[of_weights] = table.values
        source = f"{table.source}{self.cache_source}"
        return replace(table, space=space, values=values, source=source)

    def cache_rows(
        self, model: nn.Module, batches: torch.Tensor, space: SearchSpace, bank: WeightBank
    ) -> NDArray[np.float64]:
        """KL in nats a token that each cache alone adds, `[n_layers, n_formats]`; of weights 0.

        Arguments as `estimate`.
        """
        return cache_fisher(model, batches, space)

    def looked_at(self, model: nn.Module, batches: torch.Tensor) -> torch.Tensor:
        """The tokens that layers are judged by: which experts saw too few is counted on them.

        Arguments as `estimate`.
        """
        return batches

    def check_caches(self) -> None:
        """Refuse to put rows that only rank beside those of caches, which are in nats.

        Raises:
            InvalidArgument: says which to take.
        """
        if not (self.in_nats or self.sees_caches):
            raise InvalidArgument(
                f"{type(self).__name__} only ranks weights, and cannot be weighed against a KV "
                "cache: take an estimator in nats, such as fisher_directional or leave_one_in, "
                "or leave out kv_cache."
            )

    @property
    def label(self) -> str:
        """Hyperparameters and version: what a table's source begins with."""
        return f"{self!r} version {self.version}"

    def table(
        self,
        space: SearchSpace,
        values: NDArray[np.float64],
        batches: torch.Tensor,
        bank: WeightBank,
        reduction: str = "sum",
        note: str = "",
    ) -> LayerTable:
        """`values [n_layers, n_formats]` as a table that names the digests of what made them."""
        source = f"{self.label}, tokens {digest(batches)[:16]}, bank {bank.digest[:16]}"
        quantity = "kl" if self.in_nats else "loss"
        return LayerTable(space, values, quantity, source, reduction, note)


class SharingEstimator(Estimator):
    """Estimators whose work on the text several of them share; see `estimate_together`."""

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        return estimate_together([self], model, batches, space, bank, progress)[0].table


class PassEstimator(SharingEstimator):
    """Estimators made of one pass over the text."""

    @property
    def labels_of_loss(self) -> Labels | None:
        """Of the loss whose gradients are needed; `None` where inputs are enough."""
        return None

    @abstractmethod
    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """What looks at the pass and makes the table's values."""


@dataclass(frozen=True)
class LabelEstimator(PassEstimator):
    """Estimators made of gradients of the negative log-likelihood of next tokens.

    Args:
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    labels: str = "model"
    n_draws: int = 1
    seed: int = 0

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_labels(self.labels, self.n_draws)

    @property
    def labels_of_loss(self) -> Labels | None:
        """See `PassEstimator.labels_of_loss`."""
        return Labels(self.labels, self.n_draws, self.seed)


class GramEstimator(SharingEstimator):
    """Estimators of each layer's weight and the Gram matrix of its inputs."""

    needs: ClassVar[str] = "activations"
    reduction: ClassVar[str] = "sum"
    max_gram_gib: float = 2.0

    @abstractmethod
    def entries(
        self, weight: torch.Tensor, gram: torch.Tensor, errors: Sequence[torch.Tensor]
    ) -> list[float]:
        """One entry per format.

        Args:
            weight: what is quantized, float32 `[out_features, in_features]`.
            gram: mean of x x^T, float32 `[in_features, in_features]`; one for each group of rows
                where groups read inputs of their own.
            errors: Q(W) - W by format, float32, shaped as the weight; not to change.
        """


@dataclass(frozen=True, eq=False)
class Estimated:
    """A table and its seconds: of the pass, in full where it shares it, and its own."""

    table: LayerTable
    seconds: float


def shared_passes(estimators: Sequence[Estimator]) -> list[list[Estimator]]:
    """Estimators by the pass they share; those that share with no other stand alone.

    Estimators of inputs share forward passes of their own, and are not charged for gradients.
    """
    groups: dict[object, list[Estimator]] = {}
    for index, estimator in enumerate(estimators):
        key: object = index
        if isinstance(estimator, PassEstimator):
            key = ("pass", estimator.labels_of_loss)
        elif isinstance(estimator, GramEstimator):
            key = ("grams", estimator.max_gram_gib)
        groups.setdefault(key, []).append(estimator)
    return list(groups.values())


def estimate_together(
    estimators: Sequence[Estimator],
    model: nn.Module,
    batches: torch.Tensor,
    space: SearchSpace,
    bank: WeightBank,
    progress: Callable[[int, int], None] | None = None,
) -> list[Estimated]:
    """Tables of one group of `shared_passes`, from one pass over the text.

    Estimators of inputs may stand beside those of one loss: the pass shows both what they need.

    Arguments and errors as `Estimator.estimate`.
    """
    given = (model, batches, space, bank)
    passing = [x for x in estimators if isinstance(x, PassEstimator)]
    if len(passing) == len(estimators):
        labels = next((x.labels_of_loss for x in passing if x.labels_of_loss), None)
        looking = [x.accumulator(model, space) for x in passing]
        values, seconds = accumulate(model, batches, space, bank, looking, labels, progress)
        made = [x.table(space, v, batches, bank) for x, v in zip(passing, values, strict=True)]
        return [Estimated(table, s) for table, s in zip(made, seconds, strict=True)]
    reading = [x for x in estimators if isinstance(x, GramEstimator)]
    if len(reading) == len(estimators):
        return _from_grams(reading, *given, progress)
    start = time.perf_counter()
    (alone,) = estimators
    return [Estimated(alone.estimate(*given, progress), time.perf_counter() - start)]


def _from_grams(
    estimators: Sequence[GramEstimator],
    model: nn.Module,
    batches: torch.Tensor,
    space: SearchSpace,
    bank: WeightBank,
    progress: Callable[[int, int], None] | None,
) -> list[Estimated]:
    columns = {layer.name: layer.shape[1] for layer in space.layers}
    grams = InputGrams(model, batches, columns, int(estimators[0].max_gram_gib * 2**30))
    values = np.zeros((len(estimators), *space.allowed.shape))
    own, start = [0.0] * len(estimators), time.perf_counter()
    for row, layer in enumerate(space.layers):
        weight, gram = get_weight(model, layer.name), grams[layer.name]
        differences = [error for _, error in errors(weight, space, bank, row)]
        quantized = bank.source(layer.name, weight)
        for index, estimator in enumerate(estimators):
            begun = time.perf_counter()
            found = estimator.entries(quantized, gram, differences)
            values[index, row, space.allowed[row]] = found
            own[index] += time.perf_counter() - begun
        if progress:
            progress(row + 1, len(space.layers))
    shared = time.perf_counter() - start - sum(own)
    return [
        Estimated(x.table(space, v, batches, bank, x.reduction), shared + seconds)
        for x, v, seconds in zip(estimators, values, own, strict=True)
    ]


def scaled_errors(
    model: nn.Module, space: SearchSpace, bank: WeightBank, scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`scale [n_layers]` times the squared norm of each weight error, `[n_layers, n_formats]`."""
    values = np.zeros(space.allowed.shape)
    for row, layer in enumerate(space.layers):
        for column, error in errors(get_weight(model, layer.name), space, bank, row):
            values[row, column] = scale[row] * float(error.square().sum())
    return values


def uncertainty(
    space: SearchSpace, mean: NDArray[np.float64], error: NDArray[np.float64], of: str
) -> str:
    """A note on standard errors `[n_layers]`, relative to the layers' own means."""
    relative = error / np.maximum(np.abs(mean), 1e-30)
    if np.isinf(relative).all():
        return f"standard error of {of}: unknown, one sample shows no spread"
    return (
        f"standard error of {of}: median {np.median(relative):.1%} of its size, "
        f"largest {relative.max():.1%} ({space.layers[int(relative.argmax())].name})"
    )


def part_of(
    progress: Callable[[int, int], None] | None, part: int, n_parts: int
) -> Callable[[int, int], None] | None:
    """Progress of one of several parts of equal length, as that of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, n_parts * total)
