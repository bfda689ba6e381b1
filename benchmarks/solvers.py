"""How long does a whole front take, how close is it to the optimum, and in how much memory?

    python benchmarks/solvers.py            every row; about five minutes
    python benchmarks/solvers.py --only llama_8b --solver lagrangian

Layers have the shapes of real models, six formats (int2 to int6 and int8, groups of 64) and exact
bytes. Sensitivities are synthetic, because no estimator reaches the larger models: log-normal per
layer with deviation 1.5, a loss that falls fourfold a bit, log-normal noise of 0.3 on every entry.
Budgets are spread evenly over all reachable ones. Every row is measured in a process of its own.

The peer is the integer programme of NVIDIA ModelOpt's `auto_quantize` as it calls PuLP and CBC:
one binary variable per (layer, format), one format per layer, the weight size at most the budget,
no time limit. `gap` is the distance from a proven lower bound as a share of the loss: each solver's
own bound, for `greedy` and `pulp_cbc` (which prove nothing here) that of the linear relaxation.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from record import Record

from bitfront import formats
from bitfront.costs import COSTS
from bitfront.problem import Problem
from bitfront.solvers import SOLVERS
from bitfront.solvers.lagrangian import Lagrangian
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable

MENU = tuple(formats.named(f"int{bits}_g64") for bits in (2, 3, 4, 5, 6, 8))
COLUMNS = (
    "model", "n_layers", "n_formats", "solver", "n_budgets", "seconds", "cpu_seconds",
    "seconds_per_budget", "worst_gap", "mean_gap", "n_proven_optimal", "peak_mb", "extra_mb",
    "load", "note",
)  # fmt: skip
# solver: budgets measured for llama_8b, llama_405b and moe
N_BUDGETS = {
    "lagrangian": (200, 200, 200),
    "greedy": (200, 200, 200),
    "dynamic_programming": (200, 200, 4),
    "cp_sat": (3, 3, 2),
    "pulp_cbc": (3, 3, 1),
}
MODELS = ("llama_8b", "llama_405b", "moe")


def blocks(prefix, n_blocks, shapes):
    """One layer per shape in each block; the name is the position."""
    return [
        Layer(f"{prefix}.{block}.part{part}", shape, f"{prefix}.{block}.{part}")
        for block in range(n_blocks)
        for part, shape in enumerate(shapes)
    ]


def llama(hidden, intermediate, key_value):
    """Shapes of q, k, v, o, gate, up, down."""
    square, narrow = (hidden, hidden), (key_value, hidden)
    wide = (intermediate, hidden)
    return [square, narrow, narrow, square, wide, wide, (hidden, intermediate)]


def layers_of(model):
    """Layers of Llama-3-8B; of Llama-3.1-405B repeated to 286 blocks; of DeepSeek-V3."""
    if model == "llama_8b":
        return blocks("llama", 32, llama(4096, 14336, 1024))
    if model == "llama_405b":
        return blocks("llama", 286, llama(16384, 53248, 1024))
    attention = [(1536, 7168), (24576, 1536), (576, 7168), (32768, 512), (7168, 16384)]
    expert = [(2048, 7168), (2048, 7168), (7168, 2048)]
    dense = [(18432, 7168), (18432, 7168), (7168, 18432)]
    return blocks("dense", 3, attention + dense) + blocks("moe", 58, attention + 257 * expert)


def problem_of(model, seed=0):
    """The problem without a limit."""
    space = SearchSpace(tuple(layers_of(model)), MENU)
    rng = np.random.default_rng(seed)
    bits = np.array([f.num_bits for f in MENU])
    sizes = np.array([x.n_weights for x in space.layers], dtype=float)[:, None]
    loss = rng.lognormal(0, 1.5, sizes.shape) * sizes / sizes.max() * 4.0**-bits
    loss = loss * rng.lognormal(0, 0.3, loss.shape)
    return Problem(LayerTable(space, loss, "kl"), COSTS.build("memory").cost(space), {})


def budgets(problem, n):
    """Limits spread over what is reachable, both ends left out."""
    costs = problem.cost("bytes").grouped
    ends = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    return [{"bytes": float(x)} for x in np.floor(np.linspace(*ends, n + 2)[1:-1])]


def pulp_cbc(problem, limits):
    """Losses, one budget after the other, by the model that ModelOpt builds."""
    import pulp

    loss, costs = problem.group_loss, problem.cost("bytes").grouped
    for limit in limits:
        names = [[f"z{g}_{f}" for f in range(loss.shape[1])] for g in range(len(loss))]
        chosen = [
            [pulp.LpVariable(n, lowBound=0, upBound=1, cat=pulp.LpBinary) for n in row]
            for row in names
        ]
        flat = [z for row in chosen for z in row]
        program = pulp.LpProblem("AutoQuantize", pulp.LpMinimize)
        program += pulp.LpAffineExpression(zip(flat, loss.ravel(), strict=True))
        for row in chosen:
            program += pulp.lpSum(row) == 1
        size = pulp.LpAffineExpression(zip(flat, costs.ravel(), strict=True))
        program += size <= limit["bytes"]
        program.solve(pulp.PULP_CBC_CMD(msg=False))
        choice = np.array([np.argmax([z.varValue for z in row]) for row in chosen])
        assert problem.with_limits(limit).is_feasible(choice), "CBC broke the budget"
        yield problem.loss.total(choice), 0.0, pulp.LpStatus[program.status] == "Optimal"


def solved(name, problem, limits):
    """Per budget `(loss, gap, optimal)`; a whole front where the solver shares work."""
    if name == "pulp_cbc":
        yield from pulp_cbc(problem, limits)
        return
    solver = SOLVERS.build(name, {"time_limit": 20.0} if name == "cp_sat" else {})
    whole = len(limits) >= 100
    for part in [limits] if whole else [[limit] for limit in limits]:
        for limit, solution in zip(part, solver.front(problem, part), strict=True):
            assert problem.with_limits(limit).is_feasible(solution.choice)
            yield solution.loss, solution.gap, solution.optimal


def measure(model, name, n_budgets, cap):
    """One row as a dict; printed again after every budget, so that a cut-off row still counts."""
    problem = problem_of(model)
    limits = budgets(problem, n_budgets)
    _ = problem.group_loss, problem.cost("bytes").grouped
    importlib.import_module("pulp" if name == "pulp_cbc" else f"bitfront.solvers.{name}")
    before = peak_mb()
    start, cpu, load = time.perf_counter(), cpu_seconds(), os.getloadavg()[0]
    results, row = [], {}
    for result in solved(name, problem, limits):
        results.append(result)
        seconds = time.perf_counter() - start
        row = {
            "n_layers": len(problem.space.layers),
            "n_formats": len(MENU),
            "n_budgets": len(results),
            "seconds": round(seconds, 3),
            "cpu_seconds": round(cpu_seconds() - cpu, 3),
            "seconds_per_budget": round(seconds / len(results), 4),
            "n_proven_optimal": sum(optimal for _, _, optimal in results),
            "load": round(load, 1),
            "peak_mb": round(peak_mb()),
            "extra_mb": round(peak_mb() - before),
        }
        if n_budgets < 100:
            print(json.dumps(row | gaps(name, problem, limits, results)), flush=True)
            if seconds > cap:
                return
    print(json.dumps(row | gaps(name, problem, limits, results)), flush=True)


def gaps(name, problem, limits, results):
    """Worst and mean gap; against the linear relaxation where the solver has no bound."""
    found = [gap for _, gap, _ in results]
    if name in {"greedy", "pulp_cbc"}:
        relaxed = Lagrangian().front(problem, limits[: len(results)])
        found = [(r[0] - s.lower_bound) / r[0] for r, s in zip(results, relaxed, strict=True)]
    return {"worst_gap": f"{max(found):.3g}", "mean_gap": f"{np.mean(found):.3g}"}


def peak_mb():
    """Largest resident memory of this process or a child, in MB."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(each).ru_maxrss for each in who) / 1024


def cpu_seconds():
    """Processor seconds of this process and its children."""
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def row_of(model, name, n_budgets, cap):
    """Measure in a process of its own; what is missing is said in the note."""
    command = [sys.executable, __file__, "--measure", model, name, str(n_budgets), str(cap)]
    note, error, load = "", "", round(os.getloadavg()[0], 1)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            text, error = process.communicate(timeout=2 * cap)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            text, _ = process.communicate()
            note = f"cut off after {2 * cap:.0f} s"
    lines = text.splitlines()
    if process.returncode > 0:
        note = error.strip().splitlines()[-1]
    row = json.loads(lines[-1]) if lines else {"n_budgets": 0, "load": load}
    if not note and row["n_budgets"] < n_budgets:
        note = f"stopped after {cap:.0f} s"
    return {"model": model, "solver": name, "note": note} | row


def main():
    """Measure every row, or those asked for, and append them to results/solvers.csv."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=MODELS, nargs="*", default=MODELS)
    parser.add_argument("--solver", choices=tuple(N_BUDGETS), nargs="*", default=tuple(N_BUDGETS))
    parser.add_argument(
        "--cap",
        type=float,
        default=60.0,
        help="seconds after which a row takes no further budget; it is cut off at twice that",
    )
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        model, name, n_budgets, cap = arguments.measure
        measure(model, name, int(n_budgets), float(cap))
        return
    record = Record("solvers", COLUMNS)
    for model in arguments.only:
        for name in arguments.solver:
            row = row_of(model, name, N_BUDGETS[name][MODELS.index(model)], arguments.cap)
            record.add(**row)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
