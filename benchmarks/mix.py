"""Which bits does a search give each layer at each depth? For the stack of `gpu_kernels.py`.

    bitfront search MODEL --budget 3.25bits --no-ties --out RESULTS ...
    python benchmarks/mix.py RESULTS

Writes `benchmarks/searched_mix.json`: of the best point within the budget the bits of every linear
layer by its path in a block, one digit a block from first to last, with what was searched and how.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from products import PARTS, SEARCHED

from bitfront import formats
from bitfront.results import Results


def main() -> None:
    """Write the file."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("results", type=Path)
    SEARCHED.write_text(json.dumps(mix_of(made.parse_args().results), indent=1) + "\n")


def mix_of(directory: Path) -> dict[str, object]:
    """The file's content, of a finished study."""
    results = Results(directory)
    study = results.study
    best = results.front().best("kl", **study.budget.bounds())
    bits: dict[str, str] = defaultdict(str)
    for layer in sorted(results.space.layers, key=lambda layer: layer.block):
        bits[layer.kind] += str(formats.named(best.allocation.formats[layer.name]).num_bits)
    return {
        "model": Path(study.model).name,
        "budget": str(study.budget),
        "formats": list(study.formats),
        "quantizer": str(study.quantizer),
        "estimator": str(study.estimator),
        "searches": list(map(str, study.searches)),
        "n_trials": study.n_trials,
        "values": {name: round(value, 4) for name, value in best.values.items()},
        "bits": {part: bits[part] for parts in PARTS.values() for part in parts},
    }


if __name__ == "__main__":
    main()
