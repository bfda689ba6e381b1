"""Measurement: an allocation in, a finished trial out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, NonFinite
from bitfront.evaluation import METRICS
from bitfront.evaluation.base import Metric, evaluate
from bitfront.models.choices import Questions
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Answers, Reference
from bitfront.models.slopes import slopes
from bitfront.models.tasks import task_of
from bitfront.table import LayerTable
from bitfront.trial import BOTH, CACHE_BYTES, SECOND, Trial, TrialState


@dataclass(frozen=True, eq=False)
class Measurement:
    """Quantized models judged against the unquantized one.

    Args:
        patched: the model that takes allocations.
        costs: cost tables `bytes` and `code_bits`, and any others.
        references: predictions of the unquantized model by text, `"calibration"` and
            `"evaluation"`, and both with `second_` before them where there is a second text.
        make_estimation: restores the model, then makes those on the estimation blocks or reads
            them; called when they are first asked for. `None` where slopes are not wanted.
        metrics: names of the metrics; `None` for those of the model's task.
        questions: multiple-choice items, answered on the evaluation text; `None` for none.
    """

    patched: PatchedModel
    costs: tuple[LayerTable, ...]
    references: Mapping[str, Answers]
    make_estimation: Callable[[PatchedModel], Answers] | None = None
    metrics: tuple[str, ...] | None = None
    questions: Questions | None = None

    def trial(
        self,
        number: int,
        allocation: Allocation,
        text: str,
        origin: str,
        target: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> Trial:
        """Measure an allocation; one whose outputs overflow becomes a failed trial."""
        start = time.perf_counter()
        self.patched.apply(allocation)
        metrics = metrics_of(self.patched.model, self.references[text], self.metrics)
        sizes = sizes_of(allocation, self.costs)
        try:
            values = evaluate(self.patched.model, self.references[text], metrics, progress)
            values |= self._second(text, values)
            if self.questions is not None and text == "evaluation":
                values |= self.questions.asked(self.patched.model).values
        except NonFinite as error:
            failed = TrialState.FAIL
            return Trial(number, allocation, text, origin, failed, sizes, str(error), target)
        values |= sizes | {"seconds": round(time.perf_counter() - start, 3)}
        complete = TrialState.COMPLETE
        return Trial(number, allocation, text, origin, complete, values, None, target)

    def _second(self, text: str, values: Mapping[str, float]) -> dict[str, float]:
        """KL on the second text, and what it makes with that on the first; nothing without one."""
        reference = self.references.get(f"second_{text}")
        if reference is None:
            return {}
        metric = {"kl_divergence": METRICS.build("kl_divergence")}
        found = evaluate(self.patched.model, reference, metric)
        # Rounding may make of nothing a little less than nothing.
        both = math.sqrt(max(values["kl"], 0.0) * max(found["kl"], 0.0))
        return {SECOND: found["kl"], f"{SECOND}_stderr": found["kl_stderr"], BOTH: both}

    def screened(self, allocation: Allocation, n_sequences: int) -> float:
        """Mean KL over the first sequences of the calibration text; infinite on overflow.

        Of sentence encoders the mean cosine error.
        """
        self.patched.apply(allocation)
        reference = self.references["calibration"].first(n_sequences)
        task = task_of(self.patched.model)
        metric = {task.metrics[0]: METRICS.build(task.metrics[0])}
        try:
            return evaluate(self.patched.model, reference, metric)[task.loss_name]
        except NonFinite:
            return math.inf

    def slopes(
        self, allocation: Allocation, progress: Callable[[int, int], None] | None = None
    ) -> LayerTable:
        """First-order change of KL around an allocation, on the estimation blocks.

        Raises:
            InvalidArgument: there are none.
        """
        reference = self.estimation  # first, for it restores the model
        self.patched.apply(allocation)
        model, bank = self.patched.model, self.patched.bank
        return slopes(model, reference, bank.space, bank, allocation, progress)

    @cached_property
    def estimation(self) -> Answers:
        """What the unquantized model predicts on the estimation blocks, whatever it holds now.

        Raises:
            InvalidArgument: there are none.
        """
        if self.make_estimation is None:
            raise InvalidArgument(
                "This measurement has no estimation blocks, which slopes are taken on: "
                "give make_estimation, or use the measurement of an opened study."
            )
        return self.make_estimation(self.patched)


def metrics_of(
    model: nn.Module, reference: Answers, names: tuple[str, ...] | None = None
) -> dict[str, Metric]:
    """Metrics by name: the given ones, or those of a model's task that its samples allow."""
    if names is None:
        names = task_of(model).metrics
        if not (isinstance(reference, Reference) and reference.labels is not None):
            names = tuple(name for name in names if name != "label_error")
    return {name: METRICS.build(name) for name in names}


def sizes_of(allocation: Allocation, costs: tuple[LayerTable, ...]) -> dict[str, float]:
    """`bits` and `bits_per_weight` over the searched layers, `bytes` of the whole checkpoint.

    Where a KV cache is searched, `bytes` has its `cache_bytes` too, and bits are of weights alone.
    Other quantities are sums over the searched layers and what their table says is outside.
    """
    space = costs[0].space
    choice = space.encode(allocation)
    total = {table.quantity: table.total(choice) + table.outside for table in costs}
    code_bits, nbytes = total.pop("code_bits"), total.pop("bytes")
    of_weights = total.pop("weight_bytes", nbytes)
    if space.kv_cache is not None:
        total[CACHE_BYTES] = nbytes - of_weights
    return {
        "bits": code_bits / space.n_weights,
        "bits_per_weight": 8 * of_weights / space.n_weights,
        "bytes": nbytes + space.outside_bytes,
        **total,
    }
