"""A formula over cheap statistics, evolved to rank as measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.sensitivity._expressions import Formula, evolved
from bitfront.sensitivity._measured import drawn, measured, sums
from bitfront.sensitivity.activation_aware import ActivationAware
from bitfront.sensitivity.base import Estimator, estimate_together
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.fisher_directional import FisherDirectional
from bitfront.sensitivity.fisher_output import FisherOutput
from bitfront.sensitivity.layer_influence import LayerInfluence
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

Floats = NDArray[np.float64]

_PARTS: dict[str, Estimator] = {
    "activation_aware": ActivationAware(),
    "fisher": Fisher(),
    "fisher_directional": FisherDirectional(),
    "fisher_output": FisherOutput(),
    "layer_influence": LayerInfluence(),
}
"""Statistics of entries, all from one pass."""

_NAMES = (*_PARTS, "bits", "weights")
_N_FOLDS = 3
_NO_ORDER = -2.0


@dataclass(frozen=True)
class Evolved(Estimator):
    """A sum of products of powers of cheap statistics, found by evolutionary search.

    Statistics of an entry: those of `fisher`, `fisher_directional`, `fisher_output`,
    `activation_aware` and `layer_influence`, the format's `bits` and the layer's number of
    `weights`. Fitness is Kendall's tau of the summed formula against measured KL over random
    allocations; the table's note states the formula and its tau cross-validated over three folds:
    an evolution of its own for each, judged on allocations it has not seen. Where nothing can be
    ranked, as when all allocations lose the same, it is `fisher_directional`.

    A formula found on one model can be given to others of its family, then nothing is measured. It
    only ranks. Few measurements cannot tell good statistics apart.

    Cost: one forward and backward pass, `n_measured` x `max_sequences` forward passes, seconds of
    evolution.

    Prefer it for a family of models that shares one formula; look at the cross-validated tau before
    trusting it.

    Source: Dong et al., EMQ (2023), sections 3.2 and 3.3, which evolves trees of operations over
    such statistics for the rank correlation with measured accuracy.

    Args:
        formula: such as `"fisher*bits^-1 + layer_influence^0.5"`; empty to evolve one.
        n_measured: allocations to measure.
        max_sequences: how many of the sequences they are measured on.
        population: formulas kept of each generation.
        n_generations: of the evolution.
        seed: of allocations and evolution.
    """

    formula: str = ""
    n_measured: int = 24
    max_sequences: int = 4
    population: int = 48
    n_generations: int = 12
    seed: int = 0

    needs: ClassVar[str] = "gradients"

    def __post_init__(self) -> None:
        least = min(self.max_sequences, self.population, self.n_generations)
        if self.n_measured < 2 * _N_FOLDS or least < 1:
            raise InvalidArgument(
                f"n_measured is {self.n_measured}, max_sequences {self.max_sequences}, population "
                f"{self.population}, n_generations {self.n_generations}: give n_measured >= "
                f"{2 * _N_FOLDS} and the others at least 1."
            )
        if self.formula and (unknown := Formula.parse(self.formula).names - set(_NAMES)):
            raise InvalidArgument(
                f"Unknown statistics in {self.formula!r}: {', '.join(sorted(unknown))}. "
                f"Available: {', '.join(_NAMES)}."
            )

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`; `found` says the formula."""
        n_steps = 100 + (0 if self.formula else self.n_measured)

        def show(done: int, total: int) -> None:
            if progress is not None:
                progress(100 * done // total, n_steps)

        def count(done: int) -> None:
            if progress is not None:
                progress(100 + done, n_steps)

        parts = estimate_together(list(_PARTS.values()), model, batches, space, bank, show)
        tables = [np.where(space.allowed, part.table.values, 0.0) for part in parts]
        logs = _logs(tables, space)
        formula, note = Formula.parse(self.formula) if self.formula else None, ""
        if formula is None:
            choices = drawn(space, self.n_measured, self.seed)
            tokens = batches[: self.max_sequences]
            kl = measured(model, tokens, space, bank, choices, count)
            formula, note = self.found(logs, choices, kl)
        # What quantizes exactly costs nothing, whatever the formula says.
        exact = np.all([table == 0 for table in tables], axis=0)
        values = np.where(exact, 0.0, formula.values(logs))
        return self.table(space, values, batches, bank, note=note)

    def found(
        self, logs: dict[str, Floats], choices: NDArray[np.int64], kl: Floats
    ) -> tuple[Formula, str]:
        """The formula evolved on all measurements, and a note with its cross-validated tau.

        Args:
            logs: logarithms of the statistics, each `[n_layers, n_formats]`.
            choices: `[n_measured, n_layers]`.
            kl: measured, `[n_measured]`.
        """
        rng = np.random.default_rng(self.seed)
        folds = rng.permutation(len(kl)) % _N_FOLDS
        unseen = []
        for fold in range(_N_FOLDS):
            held = folds == fold
            formula = self._evolved(logs, choices[~held], kl[~held])
            unseen.append(_tau(formula, logs, choices[held], kl[held]))
        formula = self._evolved(logs, choices, kl)
        within = _tau(formula, logs, choices, kl)
        if within == _NO_ORDER:
            formula = Formula.parse("fisher_directional")
            return formula, f"formula {formula}: no order to learn from in {len(kl)} allocations"
        return formula, (
            f"formula {formula}: Kendall's tau {within:.3f} over {len(kl)} allocations, "
            f"{_cross_validated(unseen)}"
        )

    def _evolved(self, logs: dict[str, Floats], choices: NDArray[np.int64], kl: Floats) -> Formula:
        rng = np.random.default_rng(self.seed + 1)
        sizes = self.population, self.n_generations
        return evolved(_NAMES, lambda formula: _tau(formula, logs, choices, kl), *sizes, rng)


def _cross_validated(taus: list[float]) -> str:
    """Mean tau of the folds whose allocations have an order, and how many these are."""
    known = [tau for tau in taus if tau != _NO_ORDER]
    if not known:
        return "not cross-validated: no fold has an order"
    some = "" if len(known) == len(taus) else f" over {len(known)} of {len(taus)} folds"
    return f"{np.mean(known):.3f} cross-validated{some}"


def _tau(
    formula: Formula, logs: dict[str, Floats], choices: NDArray[np.int64], kl: Floats
) -> float:
    """Kendall's tau of the summed formula and KL; `_NO_ORDER` where there is none."""
    tau = float(kendalltau(sums(formula.values(logs), choices), kl).statistic)
    return tau if np.isfinite(tau) else _NO_ORDER


def _logs(tables: list[Floats], space: SearchSpace) -> dict[str, Floats]:
    """Logarithms of the statistics by name, floored far below their medians."""
    shape = space.allowed.shape
    bits = np.array([max(f.code_bits, 1) for f in space.formats], dtype=np.float64)
    weights = np.array([layer.n_weights for layer in space.layers], dtype=np.float64)
    known = dict(zip(_PARTS, tables, strict=True)) | {
        "bits": np.broadcast_to(bits, shape),
        "weights": np.broadcast_to(weights[:, None], shape),
    }
    logs = {}
    for name, values in known.items():
        positive = values[values > 0]
        floor = 1e-9 * float(np.median(positive)) if positive.size else 1.0
        logs[name] = np.log(np.maximum(values, floor))
    return logs
