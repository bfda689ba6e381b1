"""Measurement: an allocation in, a finished trial out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bitfront.allocation import Allocation
from bitfront.errors import NonFinite
from bitfront.evaluation import METRICS
from bitfront.evaluation.base import evaluate
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState


@dataclass(frozen=True, eq=False)
class Measurement:
    """Quantized models judged against the unquantized one.

    Args:
        patched: the model that takes allocations.
        costs: cost tables `bytes` and `code_bits`.
        references: predictions of the unquantized model by text, `"calibration"` and
            `"evaluation"`.
        estimation: makes those on the estimation blocks, or reads them; called with the model
            unquantized, when slopes are first asked for.
        metrics: names of the metrics.
    """

    patched: PatchedModel
    costs: tuple[LayerTable, ...]
    references: Mapping[str, Reference]
    estimation: Callable[[], Reference]
    metrics: tuple[str, ...] = ("kl_divergence", "perplexity", "top1_error")

    def trial(
        self, number: int, allocation: Allocation, text: str, origin: str, target: str = ""
    ) -> Trial:
        """Measure an allocation; one whose outputs overflow becomes a failed trial."""
        start = time.perf_counter()
        self.patched.apply(allocation)
        metrics = {name: METRICS.build(name) for name in self.metrics}
        sizes = sizes_of(allocation, self.costs)
        try:
            values = evaluate(self.patched.model, self.references[text], metrics)
        except NonFinite as error:
            failed = TrialState.FAIL
            return Trial(number, allocation, text, origin, failed, sizes, str(error), target)
        values |= sizes | {"seconds": round(time.perf_counter() - start, 3)}
        complete = TrialState.COMPLETE
        return Trial(number, allocation, text, origin, complete, values, None, target)

    def slopes(
        self, allocation: Allocation, progress: Callable[[int, int], None] | None = None
    ) -> LayerTable:
        """First-order change of KL around an allocation, on the estimation blocks."""
        reference = self._estimation
        self.patched.apply(allocation)
        model, bank = self.patched.model, self.patched.bank
        return slopes(model, reference, bank.space, bank, allocation, progress)

    @cached_property
    def _estimation(self) -> Reference:
        self.patched.apply(Allocation({}))
        return self.estimation()


def sizes_of(allocation: Allocation, costs: tuple[LayerTable, ...]) -> dict[str, float]:
    """`bits` and `bits_per_weight` over the searched layers, `bytes` of the whole checkpoint."""
    space = costs[0].space
    choice = space.encode(allocation)
    total = {table.quantity: table.total(choice) for table in costs}
    return {
        "bits": total["code_bits"] / space.n_weights,
        "bits_per_weight": 8 * total["bytes"] / space.n_weights,
        "bytes": total["bytes"] + space.outside_bytes,
    }
