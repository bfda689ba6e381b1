"""Image classifiers, ResNet-50 at HAWQ-V3's budgets: KL of our allocation and of uniform ones.

    python benchmarks/photos.py PHOTOS
    python benchmarks/resnet50.py DIRECTORY
    python benchmarks/vision.py DIRECTORY/resnet50 PHOTOS --out RESULTS
        [--quantizer rtn] [--budgets 197Gbops,154Gbops,16MiB] [--n-trials 16] [--seed 0]
        [--formats int4_channel_aint4_asym,int8_channel_aint8_asym]

EfficientNet-Lite0 of `benchmarks/efficientnet_lite.py` is measured in the same way, at budgets
between its uniform widths.

Budgets are those of the rows for ResNet-50 in the model zoo of HAWQ-V3 (Yao et al. 2021,
arXiv:2011.10680; https://github.com/Zhen-Dong/HAWQ, model_zoo.md): its uniform 8 and 4 bits and its
mixed ones, by bit operations and by size. There weights and activations are 4 or 8 bits and the
network was trained again; here nothing is trained. With formats of weights alone bit operations
count activations of 8 bits, which is a constant of the cost: rows with fewer (110G, 67G) ask for
that many bit operations with activations of 8 bits. Pairs round activations too, each image with
one scale. Sizes are in units of 2^20 bytes, the whole checkpoint counted.

`kl` in nats per image and `agreement` (the same first class) are against the unquantized model, on
20 images of ImageNet (`imagenet`) and on test images of CIFAR-10 (`cifar`), neither seen by the
search, which calibrates on photographs of scikit-image and training images of CIFAR-10. `hits` of
the 20 labelled images are a sanity check, no accuracy. `uniform_kl` is what uniform widths have at
the same bit operations or bytes, interpolated in log KL between the two next to it. Appends to
`benchmarks/results/vision.csv`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from record import Record

from bitfront import Allocation, Budget, Choice, Study, TextSource, Trial
from bitfront.job import Job
from bitfront.models.load import LoadedModel
from bitfront.models.samples import samples_of
from bitfront.models.tasks import run
from bitfront.pareto import ParetoFront
from bitfront.run import estimated, measure_finalists, prepared
from bitfront.searching import search_trials

HAWQ_V3 = {
    "247Gbops": "W8A8",
    "197Gbops": "high BOPS",
    "154Gbops": "medium BOPS",
    "110Gbops": "low BOPS",
    "24.5MiB": "W8A8",
    "21.3MiB": "high size",
    "19MiB": "medium size",
    "16MiB": "low size",
    "13.1MiB": "W4A4",
}
MENU = ("int2_channel", "int3_channel", "int4_channel", "int5_channel", "int6_channel")
PIXELS = 8 * 3 * 224**2
"""At a time."""
COLUMNS = (
    *("model", "quantizer", "budget", "hawq_v3", "allocation", "seed", "bits", "gbops", "mib"),
    *("imagenet_kl", "imagenet_kl_stderr", "imagenet_agreement", "imagenet_uniform_kl"),
    *("imagenet_over_uniform", "hits", "cifar_kl", "cifar_kl_stderr", "cifar_agreement"),
    *("cifar_uniform_kl", "cifar_over_uniform", "n_trials", "seconds"),
)


def main() -> None:
    """Search at every budget, judge and record."""
    arguments = parse()
    record = Record("vision", COLUMNS)
    quantizer = Choice.parse(arguments.quantizer)
    sets = sets_of(arguments)
    studies = {
        study_of(arguments, budget, quantizer, sets["imagenet"]): HAWQ_V3.get(budget, "")
        for budget in arguments.budgets.split(",")
    }
    model = Path(arguments.model).name
    for row in judged(studies, arguments.out / str(quantizer), sets):
        record.add(model=model, quantizer=str(quantizer), seed=arguments.seed, **row)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", default=",".join(HAWQ_V3))
    parser.add_argument("--quantizer", default="rtn")
    parser.add_argument("--formats", default=",".join((*MENU, "int8_channel")))
    parser.add_argument("--n-trials", type=int, default=16)
    parser.add_argument("--n-calibration", type=int, default=32)
    parser.add_argument("--n-search", type=int, default=16)
    parser.add_argument("--n-cifar", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def study_of(
    arguments: argparse.Namespace, budget: str, quantizer: Choice, labelled: tuple[Path, int]
) -> Study:
    """The study of one budget, which is measured on labelled images."""
    folder, n_images = labelled
    return Study(
        model=arguments.model,
        budget=Budget.parse(budget),
        calibration=TextSource(str(arguments.photos / "calibration"), arguments.n_calibration),
        evaluation=TextSource(str(folder), n_images),
        formats=tuple(arguments.formats.split(",")),
        quantizer=quantizer,
        costs=Choice.parse_list("memory,bops:activation_bits=8"),
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
        n_finalists=2,
        pinned="int8_channel",
        seed=arguments.seed,
        dtype="float32",
    )


def sets_of(arguments: argparse.Namespace) -> dict[str, tuple[Path, int]]:
    """Folders to judge on, and how many of their images."""
    n_imagenet = len(json.loads((arguments.photos / "imagenet" / "labels.json").read_text()))
    n_images = {"imagenet": n_imagenet, "cifar": arguments.n_cifar}
    return {name: (arguments.photos / name, n) for name, n in n_images.items()}


def judged(
    studies: Mapping[Study, str], folder: Path, sets: Mapping[str, tuple[Path, int]]
) -> Iterator[dict[str, object]]:
    """Search, pick on the evaluation images, and judge on others: a row of each allocation.

    Args:
        studies: that differ in their budgets alone, each in bit operations or bytes, with HAWQ-V3's
            names of these.
        folder: of all their results.
        sets: to judge on: by name, the folder and the number of images.

    Yields:
        The uniform baselines once, then the best point within each budget.
    """
    uniforms: list[dict[str, object]] = []
    for study, hawq_v3 in studies.items():
        begun = time.perf_counter()
        with prepared(study, folder) as made, estimated(made) as job:
            search_trials(job)
            measure_finalists(job)
            seconds = round(time.perf_counter() - begun, 1)
            judge = Judge(made.inputs.model, job, sets)
            if not uniforms:
                uniforms = [
                    {"allocation": f"uniform {format}", **judge.row(trial)}
                    for format, trial in uniforms_of(job).items()
                ]
                yield from uniforms
            ours = [t for t in job.results.trials("evaluation") if t.origin != "judged"]
            front = ParetoFront(tuple(ours), ("kl", study.budget.quantity))
            row = judge.row(front.best("kl", **study.budget.bounds()))
        row |= against(uniforms, row, sets, "gbops" if study.budget.quantity == "bops" else "mib")
        stated = {"allocation": "bitfront", "budget": str(study.budget), "hawq_v3": hawq_v3}
        yield stated | row | {"n_trials": study.n_trials, "seconds": seconds}


class Judge:
    """Runs allocations on sets of images.

    Args:
        model: with its image processor.
        job: whose patched model takes the allocations.
        sets: by name, the folder and the number of images.
    """

    def __init__(self, model: LoadedModel, job: Job, sets: Mapping[str, tuple[Path, int]]) -> None:
        self.job, self.pixels, self.labels = job, {}, {}
        for name, (folder, n) in sets.items():
            samples = samples_of(TextSource(str(folder)), model, job.study.seed, n)
            self.pixels[name], self.labels[name] = samples.inputs, samples.labels
        self.expected = {name: self.answers(name, {}) for name in sets}

    def answers(self, name: str, formats: Mapping[str, str]) -> torch.Tensor:
        """Log-probabilities of a set, float64 `[n_images, n_classes]`."""
        patched = self.job.measurement.patched
        patched.apply(Allocation(formats))
        pixels = self.pixels[name]
        with torch.no_grad():
            batches = pixels.split(max(1, PIXELS // pixels[0].numel()))
            parts = [run(patched.model, x)[:, 0] for x in batches]
        return torch.cat(parts).double().log_softmax(dim=-1)

    def row(self, trial: Trial) -> dict[str, object]:
        """Values of a trial, and what it does on the sets."""
        values: dict[str, object] = {
            "bits": round(trial.values["bits"], 3),
            "gbops": round(trial.values["bops"] / 1e9, 4),
            "mib": round(trial.values["bytes"] / 2**20, 3),
        }
        for name in self.expected:
            found, truth = self.answers(name, trial.allocation.formats), self.expected[name]
            kl = (truth.exp() * (truth - found)).sum(dim=-1)
            same = found.argmax(dim=-1) == truth.argmax(dim=-1)
            values[f"{name}_kl"] = f"{kl.mean():.4g}"
            values[f"{name}_kl_stderr"] = f"{kl.std() / len(kl) ** 0.5:.2g}"
            values[f"{name}_agreement"] = f"{same.double().mean():.4g}"
            if self.labels[name] is not None:
                values["hits"] = int((found.argmax(dim=-1) == self.labels[name]).sum())
        return values


def uniforms_of(job: Job) -> dict[str, Trial]:
    """Uniform baselines on the evaluation images by format."""
    found = [t for t in job.results.trials("evaluation") if t.origin == "uniform"]
    layer = job.problem.space.layers[-1].name
    return {t.allocation.formats[layer]: t for t in found}


def against(
    uniforms: Iterable[Mapping[str, object]],
    row: Mapping[str, object],
    sets: Iterable[str],
    quantity: str,
) -> dict[str, object]:
    """KL of uniform widths at the cost of a row, and the row's over it.

    Args:
        uniforms: their rows.
        row: of an allocation.
        sets: their names.
        quantity: of the budget.
    """
    made: dict[str, object] = {}
    for name in sets:
        lowest: dict[float, float] = {}  # pairs with the same weights have the same size
        for each in uniforms:
            cost, kl = float(each[quantity]), float(each[f"{name}_kl"])
            lowest[cost] = min(kl, lowest.get(cost, kl))
        known = sorted(lowest.items())
        at = float(row[quantity])
        below = max((x for x in known if x[0] <= at), default=None)
        above = min((x for x in known if x[0] >= at), default=None)
        if below and above and min(below[1], above[1]) > 0:
            share = (at - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0
            logs = math.log(below[1]), math.log(above[1])
            uniform = math.exp(logs[0] + share * (logs[1] - logs[0]))
            made[f"{name}_uniform_kl"] = f"{uniform:.4g}"
            made[f"{name}_over_uniform"] = f"{float(row[f'{name}_kl']) / uniform:.3f}"
    return made


if __name__ == "__main__":
    main()
