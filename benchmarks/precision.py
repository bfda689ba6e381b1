"""Does bfloat16 rank candidates as float32 does, and what does a measurement cost in each?

    python benchmarks/precision.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--n-allocations 24]

The same allocations (`bitfront.compare.allocations`) on the same blocks with the same quantized
weights, made from the float32 model. As in a study of either dtype, the reference has the dtype of
the model that is judged. Seconds are those of a measurement with the swap of its weights. A
processor without AMX or AVX512-BF16 emulates bfloat16. Appends to
`benchmarks/results/precision.csv`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from record import Record
from stopwatch import timed
from studies import parser, untied_study

from bitfront import Allocation, Budget, Choice, Study
from bitfront.compare import RANGES, allocations, taus, within
from bitfront.inputs import prepare
from bitfront.measurement import Measurement
from bitfront.models.bank import WeightBank
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.run import opened

COLUMNS = (
    *("model", "n_allocations", "tau", *(f"tau_{name}" for name in RANGES)),
    *(*(f"n_{name}" for name in RANGES), "largest_difference"),
    *("float32_seconds", "float32_cpu_seconds", "bfloat16_seconds", "bfloat16_cpu_seconds"),
    *("amx_bf16", "avx512_bf16", "n_tokens", "n_threads"),
)


def main() -> None:
    """Measure in both dtypes, compare, record."""
    arguments = parse()
    record = Record("precision", COLUMNS)
    study = study_of(arguments)
    timings: dict[str, dict] = {}
    with opened(study, arguments.out) as job:
        measurement, bank = job.measurement, job.measurement.patched.bank
        wanted = allocations(job.problem, arguments.n_allocations)
        with timed(timings, "float32"):
            exact = [trial(measurement, allocation) for allocation in wanted]
    rounded = in_bfloat16(study, bank, wanted, timings)
    bits = [values["bits"] for values in exact]
    first, second = ([values["kl"] for values in trials] for trials in (exact, rounded))
    flags = processor_flags()
    record.add(
        model=Path(arguments.model).name,
        n_allocations=len(wanted),
        largest_difference=round(float(np.abs(np.array(second) / np.array(first) - 1).max()), 5),
        amx_bf16="amx_bf16" in flags,
        avx512_bf16="avx512_bf16" in flags,
        n_tokens=arguments.n_judged * arguments.length,
        n_threads=torch.get_num_threads(),
        **{
            "tau" if name == "all" else f"tau_{name}": value
            for name, value in taus(first, second, bits).items()
        },
        **{f"n_{name}": int(inside.sum()) for name, inside in within(bits).items()},
        **{
            f"{dtype}_{key}": round(spent[key] / len(wanted), 3)
            for dtype, spent in timings.items()
            for key in ("seconds", "cpu_seconds")
        },
    )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--n-allocations", type=int, default=24)
    made.add_argument("--n-judged", type=int, default=4)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


def study_of(arguments: argparse.Namespace) -> Study:
    """The float32 study, whose folder keeps the quantized weights."""
    return untied_study(
        arguments,
        n_calibration=1,  # the weight-error table reads no text
        n_evaluation=1,
        budget=Budget(4, "bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=arguments.n_judged,
        dtype="float32",
        device="cpu",
    )


def trial(measurement: Measurement, allocation: Allocation) -> dict[str, float]:
    """Values of an allocation; infinite KL when its outputs overflow."""
    return {"kl": math.inf, **measurement.trial(0, allocation, "calibration", "judged").values}


def in_bfloat16(
    study: Study, bank: WeightBank, wanted: Sequence[Allocation], timings: dict[str, dict]
) -> list[dict[str, float]]:
    """The same allocations in bfloat16, on the same blocks."""
    inputs = prepare(replace(study, dtype="bfloat16"))
    references = {"calibration": Reference.of(inputs.model.module, inputs.calibration)}
    with PatchedModel(inputs.model.module, bank) as patched, timed(timings, "bfloat16"):
        measurement = Measurement(patched, inputs.costs, references)
        return [trial(measurement, allocation) for allocation in wanted]


def processor_flags() -> set[str]:
    """What the processor can do, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


if __name__ == "__main__":
    main()
