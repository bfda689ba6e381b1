"""Small random problems for the tests of nouns, solvers and searches; torch-free."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfront import formats
from bitfront.costs import COSTS
from bitfront.problem import Problem
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial

MENU = tuple(
    formats.named(name)
    for name in ("int4_channel", "int2_g64", "int3_g64", "int8_channel", "int5_g64", "int6_g64")
)


def random_space(rng, n_groups, n_formats, misfits=True):
    """Groups of one to three layers of random shapes; some columns fit only per-row formats."""
    layers = []
    for group in range(n_groups):
        shape = (int(rng.integers(1, 9)) * 16, int(rng.integers(1, 5)) * 64)
        if misfits and rng.random() < 0.2:
            shape = (shape[0], shape[1] + 16)
        layers += [
            Layer(f"model.layers.{group}.part{part}", shape, f"group{group}", group, f"part{part}")
            for part in range(int(rng.integers(1, 4)))
        ]
    return SearchSpace(tuple(layers), MENU[:n_formats])


def realistic_tables(rng, space):
    """Exact bytes, code bits, and a loss that falls fourfold a bit, with noise."""
    bits = np.array([f.num_bits for f in space.formats])
    n_weights = np.array([layer.n_weights for layer in space.layers], dtype=float)
    nbytes = np.array([[f.nbytes(x.shape) for f in space.formats] for x in space.layers], float)
    scale = rng.lognormal(0, 1.5, (len(space.layers), 1))
    loss = scale * 4.0**-bits * rng.lognormal(0, 0.3, nbytes.shape)
    return (
        LayerTable(space, loss, "kl"),
        (
            LayerTable(space, nbytes, "bytes"),
            LayerTable(space, np.outer(n_weights, bits), "code_bits"),
        ),
    )


def wild_tables(rng, space):
    """Losses of any sign that need not fall, costs that tie and need not rise with bits."""
    shape = (len(space.layers), len(space.formats))
    loss = rng.normal(size=shape).round(int(rng.integers(1, 6)))
    costs = [rng.integers(0, 12, shape).astype(float) for _ in range(2)]
    return (
        LayerTable(space, loss, "kl"),
        (LayerTable(space, costs[0], "bytes"), LayerTable(space, costs[1], "code_bits")),
    )


def random_problem(rng, n_groups=5, n_formats=4, tables=realistic_tables, fraction=None):
    """One limit on bytes, `fraction` of the way from the smallest to the largest sum."""
    loss, costs = tables(rng, random_space(rng, n_groups, n_formats))
    grouped = costs[0].grouped
    smallest = grouped.min(axis=1).sum()
    largest = np.where(np.isfinite(grouped), grouped, 0.0).max(axis=1).sum()
    share = rng.random() if fraction is None else fraction
    return Problem(loss, costs, {"bytes": float(np.floor(smallest + share * (largest - smallest)))})


def many_limits(rng, n_groups=5, n_formats=4, n_limits=3, tables=realistic_tables):
    """Limits on bytes, code bits and a time that has nothing to do with either."""
    loss, costs = tables(rng, random_space(rng, n_groups, n_formats))
    space = loss.space
    times = rng.integers(1, 50, (len(space.layers), len(space.formats))).astype(float)
    costs = (*costs, LayerTable(space, times, "latency_ns", outside=100.0))
    limits = {}
    for table in costs[-n_limits:]:
        grouped = table.grouped
        smallest = grouped.min(axis=1).sum()
        largest = np.where(np.isfinite(grouped), grouped, 0.0).max(axis=1).sum()
        share = rng.uniform(0.2, 0.9)
        limits[table.quantity] = float(np.floor(smallest + share * (largest - smallest)))
    return Problem(loss, costs, limits)


def with_time(problem):
    """A study's problem bounded in bits and in a time by which 3 bits are the slowest format."""
    space = problem.space
    times = np.ceil(np.outer([x.n_weights for x in space.layers], (1.0, 1.6, 1.1, 1.5)) / 100)
    time = LayerTable(space, times, "latency_ns", outside=500.0)
    least = time.grouped.min(axis=1).sum()
    limits = {**problem.limits, "latency_ns": float(np.floor(1.2 * least))}
    limits["code_bits"] = 4.0 * space.n_weights
    return replace(problem, costs=(*problem.costs, time), limits=limits)


def interacting_study(seed=0, n_groups=6):
    """A small problem whose true loss is not the sum of its table, and a way to measure it.

    The true loss multiplies up: neighbouring groups that are both coarse hurt more than the sum,
    and the table is what each group alone would show, off by a random factor.

    Returns:
        The problem, and a function from allocation to measured values.
    """
    rng = np.random.default_rng(seed)
    kinds = ("a_proj", "b_proj", "c_proj")
    layers = tuple(
        Layer(
            f"model.layers.{block}.{kinds[i]}", (64, 64 * (1 + i)), f"{block}.{i}", block, kinds[i]
        )
        for block, i in (divmod(index, 3) for index in range(n_groups))
    )
    menu = tuple(formats.named(f"int{bits}_g64") for bits in (2, 3, 4, 8))
    space = SearchSpace(layers, menu)
    bits = np.array([f.num_bits for f in menu])
    alone = rng.lognormal(-1, 1, (n_groups, 1)) * 4.0 ** (2 - bits)
    table = alone * rng.lognormal(0, 0.4, alone.shape)
    costs = COSTS.build("memory").cost(space)
    nbytes = costs[0]
    limit = float(0.5 * (nbytes.total(space.uniform(1)) + nbytes.total(space.uniform(2))))
    problem = Problem(LayerTable(space, table, "kl"), costs, {"bytes": np.floor(limit)})

    def measure(allocation):
        choice = space.encode(allocation)
        parts = alone[np.arange(n_groups), choice]
        total = {table.quantity: table.total(choice) for table in costs}
        return {
            "kl": float(parts.sum() + 3 * (parts[1:] * parts[:-1]).sum()),
            "kl_stderr": 0.001,
            "bytes": total["bytes"],
            "bits": total["code_bits"] / space.n_weights,
            "bits_per_weight": 8 * total["bytes"] / space.n_weights,
        }

    def slopes(allocation):
        """First-order change when one group leaves an allocation, errors of formats independent."""
        choice = space.encode(allocation)
        held = alone[np.arange(n_groups), choice]
        padded = np.pad(held, 1)
        slope = -2 * held * (1 + 3 * (padded[:-2] + padded[2:]))
        values = np.repeat(slope[:, None], len(menu), axis=1)
        values[np.arange(n_groups), choice] = 0.0
        return LayerTable(space, values, "kl")

    measure.slopes = slopes
    return problem, measure


def run_search(search, problem, measure, n_trials, batch=1, seed=0, history=()):
    """The loop of a study: uniform baselines first, then what the search proposes.

    Slopes are served where `measure` has them.
    """
    trials = list(history)
    space = problem.space
    baselines = [space.decode(space.uniform(column)) for column in range(len(space.formats))]
    for allocation in dict.fromkeys(baselines):
        if allocation not in {t.allocation for t in trials}:
            trials.append(
                Trial(len(trials), allocation, "calibration", "uniform", values=measure(allocation))
            )
    while len(trials) < n_trials:
        wanted = search.slope_at(problem, tuple(trials))
        if wanted is not None and hasattr(measure, "slopes"):
            problem = replace(problem, slopes={**problem.slopes, wanted: measure.slopes(wanted)})
        rng = np.random.default_rng([seed, len(trials)])
        asked = search.ask(problem, tuple(trials), min(batch, n_trials - len(trials)), rng)
        if not asked:
            break
        for allocation in asked:
            trials.append(
                Trial(len(trials), allocation, "calibration", "search", values=measure(allocation))
            )
    return trials
