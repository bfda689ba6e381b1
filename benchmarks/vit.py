"""A ViT in pairs of formats, at budgets between uniform W4A4 and W8A8, against uniform pairs.

    python benchmarks/cifar_vit.py DIRECTORY
    python benchmarks/vit.py DIRECTORY --out RESULTS [--quantizers rtn,gptq] [--seeds 0,1,2]
        [--ratios 0.798,0.623,0.445,0.271] [--sizes 0.869,0.776,0.653] [--n-trials 16]
        [--formats int4_channel_aint4_asym,int4_channel_aint8_asym,int8_channel_aint8_asym]

Ratios are of bit operations (`--ratios`) and of the checkpoint's bytes (`--sizes`) to uniform W8A8,
the last of `--formats`: those of HAWQ-V3's rows for ResNet-50 (197, 154, 110 and 67 G of 247, and
21.3, 19 and 16 MB of 24.5). Nothing is trained again. The layers of the blocks and the patch
embedding are searched, the classifier is held at 8 bits.

The search estimates on training images and measures on others of them, picks among its finalists on
`evaluation/`, and everything is judged on `held_out/`: `kl` in nats per image and `top1_error` (the
first class is another one) against the unquantized model, `label_error` against the labels.
`uniform_kl` is that of uniform pairs at the same operations or bytes, interpolated in log KL
between the two next to it. The seed chooses all images. Appends to `benchmarks/results/vit.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from record import Record
from vision import judged

from bitfront import Budget, Choice, Study, TextSource
from bitfront.costs.bops import Bops
from bitfront.costs.memory import Memory
from bitfront.inputs import load_searched

RATIOS = {"0.798": "high BOPS", "0.623": "medium BOPS", "0.445": "low BOPS", "0.271": "W4A4"}
SIZES = {"0.869": "high size", "0.776": "medium size", "0.653": "low size"}
MENU = ("int4_channel_aint4_asym", "int4_channel_aint8_asym", "int8_channel_aint8_asym")
COLUMNS = (
    *("model", "quantizer", "budget", "hawq_v3", "allocation", "seed", "bits", "gbops", "mib"),
    *("kl", "kl_stderr", "top1_error", "label_error", "uniform_kl", "over_uniform"),
    *("n_images", "n_trials"),
)


def main() -> None:
    """Search at every budget with every quantizer and seed, judge and record."""
    arguments = parse()
    record = Record("vit", COLUMNS)
    budgets = budgets_of(arguments)
    sets = {"held_out": (arguments.directory / "held_out", arguments.n_held_out)}
    for quantizer in Choice.parse_list(arguments.quantizers):
        for seed in map(int, arguments.seeds.split(",")):
            folder = arguments.out / str(quantizer).replace(":", "-") / str(seed)
            studies = {
                study_of(arguments, budget, quantizer=quantizer, seed=seed): name
                for budget, name in budgets.items()
            }
            shared = {"model": "cifar_vit", "quantizer": str(quantizer), "seed": seed}
            for row in judged(studies, folder, sets):
                record.add(**shared, **columns(arguments, row))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quantizers", default="rtn")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ratios", default=",".join(RATIOS))
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--formats", default=",".join(MENU))
    parser.add_argument("--n-trials", type=int, default=16)
    parser.add_argument("--n-calibration", type=int, default=128)
    parser.add_argument("--n-search", type=int, default=128)
    parser.add_argument("--n-evaluation", type=int, default=256)
    parser.add_argument("--n-held-out", type=int, default=2000)
    return parser.parse_args()


def study_of(arguments: argparse.Namespace, budget: Budget, **choices) -> Study:
    """The study of one budget."""
    root = arguments.directory
    return Study(
        model=str(root / "vit"),
        budget=budget,
        calibration=TextSource(str(root / "calibration"), arguments.n_calibration),
        evaluation=TextSource(str(root / "evaluation"), arguments.n_evaluation),
        formats=tuple(arguments.formats.split(",")),
        costs=Choice.parse_list("memory,bops"),
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
        n_finalists=3,
        pinned="int8_channel",
        dtype="float32",
        **choices,
    )


def budgets_of(arguments: argparse.Namespace) -> dict[Budget, str]:
    """Budgets, and HAWQ-V3's names of their ratios."""
    study = study_of(arguments, Budget(1, "Gbops"))
    _, space = load_searched(study)
    alike = replace(space, formats=space.formats[-1:])
    (bops,), (nbytes, *_) = Bops().cost(alike), Memory().cost(alike)
    gbops, size = bops.values.sum() / 1e9, nbytes.values.sum() + space.outside_bytes
    listed = [(x, float(x) * gbops, "Gbops", RATIOS) for x in arguments.ratios.split(",") if x]
    listed += [(x, float(x) * size / 1e3, "KB", SIZES) for x in arguments.sizes.split(",") if x]
    return {Budget(float(f"{v:.4g}"), unit): names.get(x, "") for x, v, unit, names in listed}


def columns(arguments: argparse.Namespace, values: Mapping[str, object]) -> dict[str, object]:
    """What a row says of an allocation that was judged."""
    n_images = arguments.n_held_out
    return {name: value for name, value in values.items() if name in COLUMNS} | {
        "kl": values["held_out_kl"],
        "kl_stderr": values["held_out_kl_stderr"],
        "top1_error": f"{1 - float(values['held_out_agreement']):.4f}",
        "label_error": f"{1 - values['hits'] / n_images:.4f}",
        "uniform_kl": values.get("held_out_uniform_kl", ""),
        "over_uniform": values.get("held_out_over_uniform", ""),
        "n_images": n_images,
    }


if __name__ == "__main__":
    main()
