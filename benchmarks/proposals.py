"""How long does a search take for one proposal, with many layers and a long history?

    python benchmarks/proposals.py [--searches sweep,posterior_ilp] [--layers 224,2000,45000]
        [--n-trials 1000]

Made-up layers of seven kinds, a table that falls fourfold a bit with noise, and trials that differ
from the solved table in up to a fifth of the layers. `first_seconds` is what a resumed search needs
for its first proposal (it reads every allocation), `seconds` what the next one takes. Processor
seconds of one thread, without loading the libraries of a search, which a process does once: each
search proposes for seven layers before. Appends to `benchmarks/results/proposals.csv`.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from record import Record
from stopwatch import cpu_seconds

from bitfront import formats
from bitfront.costs import COSTS
from bitfront.problem import Problem
from bitfront.search import SEARCHES
from bitfront.solvers import SOLVERS
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial

COLUMNS = ("search", "n_layers", "n_trials", "first_seconds", "seconds")
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
BITS = (2, 3, 4, 5, 8)


def main() -> None:
    """One row per search and number of layers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--searches", default=",".join(SEARCHES.names()))
    parser.add_argument("--layers", default="224,2000,45000")
    parser.add_argument("--n-trials", type=int, default=1000)
    arguments = parser.parse_args()
    record = Record("proposals", COLUMNS)
    small = problem(len(KINDS))
    for name in arguments.searches.split(","):
        SEARCHES.build(name).ask(small, trials(small, 30), 1, np.random.default_rng(0))
    for n_layers in map(int, arguments.layers.split(",")):
        history = trials(problem(n_layers), arguments.n_trials)
        for name in arguments.searches.split(","):
            search, fresh = SEARCHES.build(name), problem(n_layers)  # nothing encoded yet
            taken = []
            for seed in range(2):
                start = cpu_seconds()
                search.ask(fresh, history, 1, np.random.default_rng(seed))
                taken.append(round(cpu_seconds() - start, 3))
            record.add(
                search=name,
                n_layers=n_layers,
                n_trials=arguments.n_trials,
                first_seconds=taken[0],
                seconds=taken[1],
            )
            sys.stdout.write(f"{n_layers} {name} {taken}\n")
            sys.stdout.flush()


def problem(n_layers: int) -> Problem:
    """At 3.5 code bits."""
    rng = np.random.default_rng(0)
    layers = tuple(
        Layer(
            f"model.layers.{index // 7}.{KINDS[index % 7]}",
            (4096 if index % 7 > 3 else 1024, 1024),
            f"group{index}",
            index // 7,
            KINDS[index % 7],
        )
        for index in range(n_layers)
    )
    space = SearchSpace(layers, tuple(formats.named(f"int{bits}_g64") for bits in BITS))
    loss = rng.lognormal(0, 1, (n_layers, 1)) * 4.0 ** -np.array(BITS)
    loss = loss * rng.lognormal(0, 0.2, loss.shape) / n_layers
    costs = COSTS.build("memory").cost(space)
    return Problem(LayerTable(space, loss, "kl"), costs, {"code_bits": 3.5 * space.n_weights})


def trials(problem: Problem, n: int) -> tuple[Trial, ...]:
    """A history around the solved table."""
    rng = np.random.default_rng(1)
    solved = SOLVERS.build("lagrangian").solve(problem).choice
    sizes = [problem.cost(name) for name in ("bytes", "code_bits")]
    made = []
    for number in range(n):
        choice = solved.copy()
        moved = rng.choice(len(choice), rng.integers(1, max(2, len(choice) // 5)), replace=False)
        steps = rng.choice([-1, 1], len(moved), p=[0.6, 0.4])
        choice[moved] = np.clip(choice[moved] + steps, 0, len(BITS) - 1)
        values = {"kl": problem.loss.total(choice) * float(np.exp(rng.normal(0, 0.02)))}
        values |= {table.quantity: table.total(choice) for table in sizes}
        allocation = problem.space.decode(choice)
        hash(allocation)  # as in a running search, which has stored it
        made.append(Trial(number, allocation, "calibration", "search", values=values))
    return tuple(made)


if __name__ == "__main__":
    main()
