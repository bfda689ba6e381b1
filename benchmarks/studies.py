"""What the scripts that run a model take from the command line, and the studies they make of it."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from bitfront import Study, TextSource, Trial, run_study
from bitfront.report.agreement import tau, uniform_at
from bitfront.results import Results

SIZES = {"n_sequences": 8, "n_search": 4, "n_evaluation": 8, "length": 256, "seed": 0}
"""Options of `parser`, and their defaults, that `searched_study` reads."""
MENU = ("int2_g64", "int3_g64", "int4_g64", "int5_g64", "int8_g64")


def parser(description: str | None, **options: object) -> argparse.ArgumentParser:
    """A model, two texts and a folder; the first line of the description is kept.

    Args:
        description: of the script.
        options: others with their defaults, which they have the type of; `n_trials=24` is
            `--n-trials`.
    """
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name in ("model", "calibration", "evaluation"):
        made.add_argument(name)
    made.add_argument("--out", type=Path, required=True)
    for name, value in options.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return made


def untied_study(
    arguments: argparse.Namespace, n_calibration: int, n_evaluation: int, **choices
) -> Study:
    """A study without ties, on blocks of `arguments.length` tokens."""
    return Study(
        model=arguments.model,
        calibration=TextSource(arguments.calibration, n_calibration, arguments.length),
        evaluation=TextSource(arguments.evaluation, n_evaluation, arguments.length),
        tied=False,
        # What "auto" means depends on the machine, and KL a little on the dtype.
        **({"formats": MENU, "dtype": "float32"} | choices),
    )


def searched_study(arguments: argparse.Namespace, **choices) -> Study:
    """An untied study of the menu, the sizes and the seed that the command line gives."""
    given = {
        "formats": tuple(arguments.formats.split(",")),
        "pinned": arguments.pin,
        "n_trials": arguments.n_trials,
        "n_search_sequences": arguments.n_search,
        "seed": getattr(arguments, "seed", 0),
    }
    n_calibration, n_evaluation = arguments.n_sequences, arguments.n_evaluation
    return untied_study(arguments, n_calibration, n_evaluation, **(given | choices))


@dataclass(frozen=True)
class Answer:
    """What a study found within its budget.

    Args:
        best: the point.
        results: all there is of the study.
        uniform: loss of uniform formats interpolated at the bytes of the point; `None` outside the
            range of those measured.
        seconds: that it took.
    """

    best: Trial
    results: Results
    uniform: float | None
    seconds: float

    @classmethod
    def of(cls, study: Study, folder: Path) -> Answer:
        """Run a study, or go on with it."""
        begun = time.perf_counter()
        front = run_study(study, folder)
        seconds = round(time.perf_counter() - begun, 1)
        results = Results(folder)
        best = front.best(front.loss, **study.budget.bounds())
        baseline = uniform_at(uniforms(results), best.values["bytes"])
        return cls(best, results, baseline.kl if baseline else None, seconds)

    @property
    def over_uniform(self) -> str:
        """Its loss over that of uniform formats."""
        return f"{self.best.loss / self.uniform:.4f}" if self.uniform else ""


def uniforms(results: Results) -> list[Trial]:
    """Uniform baselines as measured on the evaluation text, smallest first."""
    found = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    return sorted(found, key=lambda t: t.values["bytes"])


def agreement(results: Results, study: Study) -> str:
    """Kendall's tau of the estimator's table and what was measured for the search."""
    table = results.load_table(study.estimator.name, results.space)
    searched = [t for t in results.trials("calibration") if t.origin != "uniform"]
    assert table is not None
    predicted = [table.total(results.space.encode(t.allocation)) for t in searched]
    found = tau(predicted, [t.loss for t in searched])
    return "" if found is None else f"{found:.3f}"
