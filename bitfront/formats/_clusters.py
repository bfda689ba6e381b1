"""Weighted k-means of numbers on a line, for many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_N_ITERATIONS = 200
_N_BINS = 96
_CHUNK_NUMBERS = 1 << 20
_LEAST = 1e-9
"""Of a row's mean weight: numbers that weigh nothing still have a nearest centre."""


def centres(values: torch.Tensor, weights: torch.Tensor, n_centres: int) -> torch.Tensor:
    """Rising centres of each row that its numbers are near to, float32 `[n_rows, n_centres]`.

    Lowers `sum weights * (values - nearest centre)^2`. Sorted numbers are gathered in 96 bins, the
    best cut of the bins is found by dynamic programming (Wang and Song 2011, "Ckmeans.1d.dp"), and
    Lloyd's steps (1982) go on from there until no number changes its centre; on running sums a step
    costs n_centres binary searches, whatever the length of a row. The best of all centres where a
    row has no more than 96 numbers. Deterministic.

    Args:
        values: float32 `[n_rows, n]`.
        weights: of each number, not negative, `[n_rows, n]`, or `[n]` for all rows.
        n_centres: at least 2.
    """
    import torch

    weights = weights.expand(values.shape)
    step = max(1, _CHUNK_NUMBERS // max(values.shape[1], _N_BINS**2 // 8))
    found = [
        _of_rows(values[first : first + step], weights[first : first + step], n_centres)
        for first in range(0, len(values), step)
    ]
    return torch.cat(found).float()


def _of_rows(values: torch.Tensor, weights: torch.Tensor, n_centres: int) -> torch.Tensor:
    import torch

    ordered, order = values.double().sort(dim=1)
    weights = weights.double().gather(1, order)
    mean = weights.mean(dim=1, keepdim=True)
    weights = torch.where(mean > 0, weights.clamp(min=_LEAST * mean), 1.0)
    sums = torch.stack([weights, weights * ordered, weights * ordered.square()])
    sums = torch.nn.functional.pad(sums.cumsum(dim=2), (1, 0))
    start = _best_cut(ordered, sums, _bins(ordered, weights), n_centres)
    return _descended(ordered, sums, start)


def _bins(ordered: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Where the bins begin and end, int64 `[n_rows, n_bins + 1]`.

    At equal steps of the integral of the cube root of the weighted density, which is the density
    of the best centres where they are very many (Panter and Dite 1951).
    """
    import torch

    n = ordered.shape[1]
    if n <= _N_BINS:
        return torch.arange(n + 1, device=ordered.device).expand(len(ordered), -1)
    gaps = ordered.diff(dim=1, append=ordered[:, -1:])
    mass = (weights * gaps.square()).pow(1 / 3).cumsum(dim=1)
    wanted = torch.arange(1, _N_BINS, device=mass.device) / _N_BINS * mass[:, -1:]
    inner = torch.searchsorted(mass, wanted).clamp_(max=n)
    return torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=n)


def _best_cut(
    ordered: torch.Tensor, sums: torch.Tensor, bins: torch.Tensor, n_centres: int
) -> torch.Tensor:
    """Means of the clusters of whole bins that have the least error, float64, rising."""
    import torch

    mass, first, second = sums.gather(2, bins.expand(3, -1, -1))
    tiny = torch.finfo(mass.dtype).tiny

    def between(ends: torch.Tensor) -> torch.Tensor:
        return ends[:, :, None] - ends[:, None, :]  # of the bins from i up to j, [n_rows, j, i]

    cost = between(second) - between(first).square() / between(mass).clamp(min=tiny)
    cost = cost.clamp(min=0) + torch.full_like(cost[0], torch.inf).triu(1)
    best, cuts = cost[:, :, 0], []
    for _ in range(n_centres - 1):
        best, cut = (best[:, None, :] + cost).min(dim=2)
        cuts.append(cut)
    ends = [torch.full_like(bins[:, :1], bins.shape[1] - 1)]
    for cut in reversed(cuts):
        ends.append(cut.gather(1, ends[-1]))
    edges = bins.gather(1, torch.cat([torch.zeros_like(ends[0]), *reversed(ends)], dim=1))
    return _means(ordered, sums, edges, ordered[:, :1].expand(-1, n_centres)).cummax(dim=1).values


def _means(
    ordered: torch.Tensor, sums: torch.Tensor, ends: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    """Weighted means of the numbers between ends; those of `empty` where there are none."""
    import torch

    n = ordered.shape[1]
    mass, first, _ = sums.gather(2, ends.expand(3, -1, -1)).diff(dim=2)
    # Differences of sums lose what a huge number far away drowns: stay within the cluster.
    low = ordered.gather(1, ends[:, :-1].clamp(max=n - 1))
    high = ordered.gather(1, (ends[:, 1:] - 1).clamp(min=0))
    mean = (first / mass.clamp(min=torch.finfo(mass.dtype).tiny)).clamp(low, high)
    return torch.where(ends[:, 1:] > ends[:, :-1], mean, empty)


def _descended(ordered: torch.Tensor, sums: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Centres where Lloyd's steps end, `[n_rows, n_centres]`.

    Args:
        ordered: rising, float64 `[n_rows, n]`.
        sums: running sums of weights, and of weights times first and second powers, from 0.
        start: rising centres.
    """
    import torch

    n = ordered.shape[1]
    found, ends = start, None
    for _ in range(_N_ITERATIONS):
        inner = torch.searchsorted(ordered, (found[:, 1:] + found[:, :-1]) / 2)
        before = ends
        ends = torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0)), (0, 1), value=n)
        if before is not None and torch.equal(before, ends):
            break
        found = _means(ordered, sums, ends, found)
    return found
