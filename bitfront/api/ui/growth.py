"""How a search came on: the hypervolume of what was measured, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bitfront.pareto import hypervolume
from bitfront.store.records import TrialRow
from bitfront.trial import loss_of


def growth(rows: Sequence[TrialRow]) -> tuple[list[int], list[float]]:
    """Numbers of trials, and the hypervolume over (log KL, bytes) after each: 1 after the last.

    The corner is the worst of all of them. Only trials after which it grew are in it, and the last.

    Args:
        rows: measured on one text, by number.
    """
    measured = [row for row in rows if loss_of(row.values) > 0 and "bytes" in row.values]
    if not measured:
        return [], []
    points = np.array([(math.log(loss_of(r.values)), r.values["bytes"]) for r in measured])
    worst = points.max(axis=0)
    corner = worst + 1e-9 * (1 + np.abs(worst))
    front, numbers, volumes = points[:0], [], []
    for row, point in zip(measured, points, strict=True):
        if len(front) and (front <= point).all(axis=1).any():
            continue
        front = np.vstack([front[~(point <= front).all(axis=1)], point])
        numbers.append(row.number)
        volumes.append(hypervolume(front, corner))
    if numbers[-1] != measured[-1].number:
        numbers.append(measured[-1].number)
        volumes.append(volumes[-1])
    return numbers, [volume / volumes[-1] if volumes[-1] else 1.0 for volume in volumes]
