"""How well something agrees with something measured: prediction and uniform baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitfront.pareto import ParetoFront
from bitfront.space import SearchSpace
from bitfront.trial import Trial, loss_name


def tau(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    """Kendall's tau-b; `None` where no order exists (fewer than two values, or all equal).

    >>> round(tau([1, 2, 3, 4], [10, 20, 40, 30]), 3)
    0.667
    """
    if len(predicted) < 2 or len(set(predicted)) < 2 or len(set(measured)) < 2:
        return None
    # A second to import, which the start of a server would wait for.
    from scipy.stats import kendalltau

    return float(kendalltau(predicted, measured).statistic)


@dataclass(frozen=True)
class Baseline:
    """What uniform formats reach at a number of bytes.

    Args:
        kl: interpolated geometrically between the neighbours, that is on a straight line between
            them when the loss axis is logarithmic.
        below, above: the uniform trials on either side; the same trial where one has exactly the
            bytes.
    """

    kl: float
    below: Trial
    above: Trial


def uniform_at(uniforms: Sequence[Trial], n_bytes: float) -> Baseline | None:
    """Uniform quantization at `n_bytes`; `None` outside the range of the measured baselines.

    Args:
        uniforms: measured baselines; those of no loss (bf16) are passed over, and those that
            another one beats.
        n_bytes: size of the whole checkpoint.
    """
    # The best baseline of each size: a menu may have several formats of equal bytes.
    lossy = tuple(t for t in uniforms if t.loss > 0)
    if not lossy:
        return None
    uniforms = ParetoFront(lossy, (loss_name(lossy[0].values), "bytes")).trials
    for trial in uniforms:
        if trial.values["bytes"] == n_bytes:
            return Baseline(trial.loss, trial, trial)
    for below, above in pairwise(uniforms):
        low, high = below.values["bytes"], above.values["bytes"]
        if low < n_bytes < high:
            share = (n_bytes - low) / (high - low)
            logs = math.log(below.loss), math.log(above.loss)
            return Baseline(math.exp((1 - share) * logs[0] + share * logs[1]), below, above)
    return None


def main_format(trial: Trial, space: SearchSpace) -> str:
    """The format that most searched weights have: the name of a uniform baseline."""
    weights: Counter[str] = Counter()
    for layer in space.layers:
        weights[trial.allocation.formats[layer.name]] += layer.n_weights
    return weights.most_common(1)[0][0]
