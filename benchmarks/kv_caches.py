"""Weights and KV cache under one budget, against weights alone with one format for the cache.

    python benchmarks/kv_caches.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--points int3_g32+int4_g32,int4_g32+int4_g32] [--at b4c256] [--n-trials 24]

A budget is what uniform weights and a uniform cache take together: `int3_g32+int4_g32`. At each one
the cache is searched beside the weights, and then kept in each format of the menu while the weights
are searched with what is left. All see the same texts and as many measurements. Reported is the KL
on the evaluation text of the best within the budget; perplexity is not of image-text models, whose
texts are files of samples. Appends to `benchmarks/results/kv_caches.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record
from studies import SIZES, parser, searched_study

from bitfront import Budget, Study, run_study
from bitfront.costs.memory import Memory
from bitfront.errors import InfeasibleBudget
from bitfront.inputs import load_searched
from bitfront.kv_cache import KVCache
from bitfront.space import SearchSpace

_OF_CACHE = ("batch", "context", "window", "sinks", "pre_rope")
COLUMNS = (
    *("model", "point", "budget_bytes", "cache", "kl", "kl_stderr", "perplexity", "bytes"),
    *("bits_per_weight", "cache_bytes", *_OF_CACHE),
    *("n_trials", "seed", "n_judged_tokens", "sequence_length"),
)


def main() -> None:
    """Search under every budget with every cache and record a row for each."""
    arguments = parse()
    record = Record("kv_caches", COLUMNS)
    menu = tuple(arguments.kv_formats.split(","))
    batch, context = KVCache.parse_point(arguments.at)
    cache = KVCache(menu, batch, context, arguments.window, arguments.sinks, arguments.pre_rope)
    study = searched_study(arguments, budget=Budget(1, "B"), n_finalists=4, kv_cache=cache)
    _, space = load_searched(study)
    uniform = menu if arguments.uniform is None else tuple(arguments.uniform.split(","))
    for point in arguments.points.split(","):
        budget = Budget(bytes_of(space, *point.split("+")), "B")
        for name, formats in {"searched": menu, **{x: (x,) for x in uniform}}.items():
            chosen = replace(study, budget=budget, kv_cache=replace(cache, formats=formats))
            add_row(record, arguments, chosen, point, name)


def bytes_of(space: SearchSpace, weights: str, cached: str) -> int:
    """Bytes of the model with uniform weights and a uniform cache."""
    (table, *_) = Memory().cost(space)
    columns = [space.column(cached if x.cache else weights) for x in space.layers]
    return int(table.values[np.arange(len(columns)), columns].sum()) + space.outside_bytes


def add_row(
    record: Record, arguments: argparse.Namespace, study: Study, point: str, name: str
) -> None:
    """Run a study, or continue it from another budget, and record its answer if it has one."""
    try:
        front = run_study(study, arguments.out / name)
    except InfeasibleBudget as error:
        print(f"{point} with {name}: {error}")
        return
    best = front.best("kl", **study.budget.bounds())
    assert study.kv_cache is not None
    said = ("kl", "kl_stderr", "perplexity", "bytes", "bits_per_weight", "cache_bytes")
    record.add(
        model=Path(arguments.model).name,
        point=point,
        budget_bytes=int(study.budget.value),
        cache=name,
        n_trials=study.n_trials,
        seed=study.seed,
        n_judged_tokens=arguments.n_evaluation * arguments.length,
        sequence_length=arguments.length,
        **{quantity: best.values.get(quantity, "") for quantity in said},
        **{x: getattr(study.kv_cache, x) for x in _OF_CACHE},
    )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(
        __doc__,
        points="int3_g32+int4_g32,int4_g32+int4_g32",
        formats="int2_g32,int3_g32,int4_g32,int5_g32,int8_g32",
        pin="int8_g32",
        kv_formats="int2_g32,int3_g32,int4_g32,int8_g32,bf16",
        at="b4c256",
        window=16,
        sinks=4,
        n_trials=24,
        **SIZES,
    )
    made.add_argument("--uniform", help="uniform caches; default: every format of the menu")
    made.add_argument("--pre-rope", action="store_true")
    return made.parse_args()


if __name__ == "__main__":
    main()
