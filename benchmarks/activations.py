"""What rounding the inputs of layers costs, and what choosing them layer by layer brings.

    python benchmarks/activations.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--weights int8_channel_sym,int4_g32] [--inputs int8,int4] [--pairs mxfp4_amxfp4]
        [--points int4_g32_had_aint8] [--n-trials 24]

First every layer of the blocks has one pair: each of the weights with each of the inputs, with and
without a rotation before, and the pairs named; embedding and head are left as they are. Then, at
the bit operations a token of each point, a study may choose among all pairs of `--menu`, once with
no other limit and once with no more bytes than the point has. Reported is KL on the evaluation
text. Pairs that do not fit all layers are left out. Rows go to `results/activations.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record
from studies import SIZES, parser, untied_study

from bitfront import Budget, Choice, Study, run_study
from bitfront.allocation import Allocation
from bitfront.costs.bops import Bops
from bitfront.costs.memory import Memory
from bitfront.evaluation import METRICS
from bitfront.evaluation.base import evaluate
from bitfront.formats import named
from bitfront.formats._activations import ACTIVATIONS
from bitfront.formats.base import Format
from bitfront.inputs import Inputs, load_searched, prepare
from bitfront.models.bank import WeightBank
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.statistics import InputGrams
from bitfront.quantizers import QUANTIZERS
from bitfront.space import SearchSpace

COLUMNS = (
    *("model", "kind", "point", "pair", "quantizer", "weight_bits", "input_bits"),
    *("gbops", "bits_per_weight", "bytes", "kl", "kl_stderr"),
    *("n_formats_used", "n_trials", "seed", "n_tokens"),
)
PAIRS = (
    "fp8_e4m3_afp8,mxfp8_e4m3_amxfp8,mxfp6_e2m3_amxfp6,mxfp4_amxfp8,mxfp4_amxfp4,mxfp4_had_amxfp4,"
    "nvfp4_anvfp4,nvfp4_had_anvfp4"
)
MENU = (
    "int2_g32_had_aint4_g32,int2_g32_had_aint8,int3_g32_had_aint4_g32,int3_g32_had_aint8,"
    "int4_g32_had_aint4_g32,int4_g32_had_aint8,int8_channel_sym_had_aint4_g32,"
    "int8_channel_sym_had_aint8"
)


def main() -> None:
    """Measure uniform pairs, then search at their bit operations."""
    arguments = parse()
    record = Record("activations", COLUMNS)
    study = untied_study(
        arguments,
        arguments.n_sequences,
        arguments.n_evaluation,
        budget=Budget(1e9, "Gbops"),
        costs=(Choice("memory"), Choice("bops")),
        n_search_sequences=arguments.n_search,
        formats=tuple(uniform_names(arguments)),
        pinned=None,
        n_trials=arguments.n_trials,
        n_finalists=4,
        seed=arguments.seed,
        quantizer=Choice.parse(arguments.quantizer),
    )
    measure_uniform(arguments, record, study)
    for point in filter(None, arguments.points.split(",")):
        search(arguments, record, study, point)


def uniform_names(arguments: argparse.Namespace) -> list[str]:
    """Weights with and without a rotation, each with inputs at 16 bits and in every format."""
    names = []
    for weight in arguments.weights.split(","):
        for turned in (weight, f"{weight}_had"):
            names += [turned, *(f"{turned}_a{x}" for x in arguments.inputs.split(",") if x)]
    return [*names, *filter(None, arguments.pairs.split(","))]


def measure_uniform(arguments: argparse.Namespace, record: Record, study: Study) -> None:
    """A row for each pair that fits all layers."""
    _, whole = load_searched(replace(study, formats=("bf16",)))
    fitting = [f for f in map(named, study.formats) if all(f.fits(x.shape) for x in whole.layers)]
    inputs = prepare(replace(study, formats=tuple(f.name for f in fitting)))
    space, model = inputs.space, inputs.model.module
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    bank = WeightBank.build(arguments.out / "bank", model, space, quantizer, grams(inputs, study))
    reference = Reference.of(model, inputs.evaluation)
    metrics = {"kl_divergence": METRICS.build("kl_divergence")}
    with PatchedModel(model, bank) as patched:
        for format in fitting:
            patched.apply(Allocation({x.name: format.name for x in space.layers}))
            found = evaluate(model, reference, metrics)
            record.add(
                **described(arguments, study, format, space),
                kind="uniform",
                kl=float(f"{found['kl']:.4g}"),
                kl_stderr=float(f"{found['kl_stderr']:.2g}"),
                n_formats_used=1,
                n_trials=0,
            )


def grams(inputs: Inputs, study: Study) -> InputGrams | None:
    """Gram matrices for a quantizer that needs them."""
    if not QUANTIZERS.build(study.quantizer.name, study.quantizer.params).needs_hessian:
        return None
    columns = {x.name: x.shape[1] for x in inputs.space.layers}
    return InputGrams(inputs.model.module, inputs.estimation, columns)


def described(
    arguments: argparse.Namespace, study: Study, format: Format, space: SearchSpace
) -> dict[str, object]:
    """What a row says of a uniform pair."""
    bops, nbytes = costs_of(space, format)
    inputs = format.input_format
    return {
        "model": Path(arguments.model).name,
        "point": format.name,
        "pair": format.name,
        "quantizer": str(study.quantizer),
        "weight_bits": format.code_bits,
        "input_bits": inputs.num_bits if inputs else 16,
        "gbops": round(bops / 1e9, 4),
        "bits_per_weight": round(8 * nbytes / space.n_weights, 4),
        "bytes": nbytes + space.outside_bytes,
        "seed": arguments.seed,
        "n_tokens": arguments.n_evaluation * arguments.length,
    }


def costs_of(space: SearchSpace, format: Format) -> tuple[int, int]:
    """Bit operations and bytes of the searched layers, all in one format."""
    alike = replace(space, formats=(format,))
    (bops,), (nbytes, *_) = Bops().cost(alike), Memory().cost(alike)
    return int(bops.values.sum()), int(nbytes.values.sum())


def search(arguments: argparse.Namespace, record: Record, study: Study, point: str) -> None:
    """Rows of the best that pairs layer by layer do at the bit operations of a uniform pair."""
    menu = tuple(dict.fromkeys((*arguments.menu.split(","), point)))
    _, space = load_searched(replace(study, formats=menu))
    bops, nbytes = costs_of(space, named(point))
    limit = Budget(bops / 1e9, "Gbops")
    bytes_too = replace(limit, others=(Budget(nbytes + space.outside_bytes, "B"),))
    for kind, budget in (("searched", limit), ("searched, bytes too", bytes_too)):
        chosen = replace(study, formats=menu, budget=budget)
        front = run_study(chosen, arguments.out / f"{point}{len(budget.others)}")
        best = front.best("kl", **budget.bounds())
        formats = [best.allocation.formats[x.name] for x in space.layers]
        weights = np.array([x.n_weights for x in space.layers], dtype=float)
        pairs = [named(name) for name in formats]
        record.add(
            **described(arguments, study, named(point), space)
            | {
                "pair": "",
                "weight_bits": mean([f.code_bits for f in pairs], weights),
                "input_bits": mean([f.input_format.num_bits for f in pairs], weights),
                "gbops": round(best.values["bops"] / 1e9, 4),
                "bits_per_weight": round(best.values["bits_per_weight"], 4),
                "bytes": int(best.values["bytes"]),
            },
            kind=kind,
            kl=float(f"{best.values['kl']:.4g}"),
            kl_stderr=float(f"{best.values['kl_stderr']:.2g}"),
            n_formats_used=len(set(formats)),
            n_trials=arguments.n_trials,
        )


def mean(bits: list[float], weights: np.ndarray) -> float:
    """Over the weights."""
    return round(float(np.average(bits, weights=weights)), 3)


def parse() -> argparse.Namespace:
    """Command line."""
    return parser(
        __doc__,
        weights="int8_channel_sym,int4_channel_sym,int4_g32",
        inputs=",".join(ACTIVATIONS),
        pairs=PAIRS,
        menu=MENU,
        points="int4_g32_had_aint4_g32,int4_g32_had_aint8",
        quantizer="rtn",
        n_trials=28,
        **SIZES,
    ).parse_args()


if __name__ == "__main__":
    main()
