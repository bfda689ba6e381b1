"""Measured interactions of pairs of neighbouring groups, for the `quadratic` solver."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.files import reading, replacing
from bitfront.measurement import Measurement
from bitfront.problem import Problem
from bitfront.progress import Event, Progress, silent

Pairs = Mapping[tuple[int, int], NDArray[np.float64]]


def measured_pairs(
    measurement: Measurement,
    problem: Problem,
    n_pairs: int,
    path: Path,
    progress: Progress = silent,
) -> Pairs:
    """Loss that pairs of groups add to the sum of their own, measured at the fewest bits.

        I = KL(both quantized) - KL(one) - KL(the other),   everything else unquantized

    Groups that follow each other in the model are neighbours; the `n_pairs` with the largest
    product of estimated losses are measured. Other formats of a pair keep 0: rounding errors of
    different formats are as good as independent, and on the tiny Llama of the tests an interaction
    at 2 bits, scaled down by the sizes of the errors, missed the one at 3 bits by twice as much as
    taking it for 0. Deng et al., CLADO (2023), section 3, measure all pairs in all formats. Costs
    at most `3 n_pairs` measurements, singles shared.

    Args:
        measurement: the model with its quantized weights and references.
        problem: loss table and groups.
        n_pairs: how many.
        path: JSON file of what was measured; read where it exists, extended where it lacks.
        progress: called as the work goes on.
    """
    wanted = neighbours(problem, n_pairs)
    lowest = _lowest(problem)
    known = _read(path)
    n_all = len(measurement.references["calibration"].tokens)

    def kl(*groups: int) -> float:
        key = "+".join(map(str, groups))
        if key not in known:
            space = problem.space
            formats = {
                space.layers[row].name: space.formats[lowest[group]].name
                for group in groups
                for row in space.groups[group]
            }
            found = measurement.screened(Allocation(formats), n_all)
            known[key] = found if math.isfinite(found) else None
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(known, indent=1))
        stored = known[key]
        return math.inf if stored is None else stored

    pairs = {}
    for index, (first, second) in enumerate(wanted):
        both, alone = kl(first, second), kl(first) + kl(second)
        progress(Event("pairs", index + 1, len(wanted)))
        if math.isfinite(both + alone):  # else the outputs overflow, which no number says
            values = np.zeros((len(problem.space.formats),) * 2)
            values[lowest[first], lowest[second]] = both - alone
            pairs[first, second] = values
    return pairs


def neighbours(problem: Problem, n_pairs: int) -> list[tuple[int, int]]:
    """The pairs of groups next to each other whose estimated losses have the largest product."""
    loss = problem.group_loss[np.arange(len(problem.space.groups)), _lowest(problem)]
    product = np.maximum(loss[:-1], 0) * np.maximum(loss[1:], 0)
    order = np.argsort(-product, kind="stable")[:n_pairs]
    return [(int(first), int(first) + 1) for first in sorted(order)]


def _lowest(problem: Problem) -> NDArray[np.int64]:
    """Column of the fewest bits that fit each group."""
    bits = np.array([f.code_bits for f in problem.space.formats], dtype=np.float64)
    return np.asarray(np.where(problem.space.group_allowed, bits, np.inf).argmin(axis=1))


def _read(path: Path) -> dict[str, float | None]:
    if not path.exists():
        return {}
    with reading(path):
        stored = json.loads(path.read_text()).items()
        return {str(key): None if value is None else float(value) for key, value in stored}
