"""The whole job in one process: prepare, estimate, search, measure the front, export."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bitfront import formats
from bitfront.allocation import Allocation
from bitfront.costs import COSTS
from bitfront.errors import InvalidText
from bitfront.export import EXPORTERS
from bitfront.measurement import Measurement
from bitfront.models.bank import WeightBank
from bitfront.models.data import digest, token_blocks
from bitfront.models.layers import search_space
from bitfront.models.load import LoadedModel, load_model
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.statistics import InputGrams
from bitfront.pareto import ParetoFront
from bitfront.problem import Problem
from bitfront.quantizers import QUANTIZERS
from bitfront.results import Results, text_digest
from bitfront.search import SEARCHES
from bitfront.search.base import Search
from bitfront.sensitivity import ESTIMATORS
from bitfront.space import SearchSpace
from bitfront.study import Study, TextSource
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState
from bitfront.version import __version__


@dataclass(frozen=True)
class Event:
    """What a running study is doing.

    Args:
        stage: `load`, `text`, `quantize`, `reference`, `estimate`, `slopes`, `search`
            or `evaluate`.
        done: steps done of this stage.
        total: steps in all.
        trial: the measurement that was just finished.
    """

    stage: str
    done: int
    total: int
    trial: Trial | None = None


Progress = Callable[[Event], None]


def _silent(event: Event) -> None:
    """Report nothing."""


def run_study(
    study: Study, directory: Path | str | None = None, progress: Progress = _silent
) -> ParetoFront:
    """Run a study to its end, or continue it where an earlier run stopped.

    Measurements guide the search on the calibration text; the best of them, and the uniform
    baselines, are measured again on the evaluation text, and only those make the front.

    Args:
        study: what to search.
        directory: results folder; made if missing. Default: a folder of the cache named by the
            study (`BITFRONT_HOME`, else `~/.cache/bitfront`).
        progress: called as the work goes on.

    Returns:
        The front on the evaluation text; `front.best("kl", **study.budget.bounds())` is the answer.

    Raises:
        BitfrontError: bad input, an infeasible budget, or a folder of another study.
    """
    results = Results(Path(directory) if directory else default_directory(study))
    with results.locked():
        inputs = prepare(study, progress)
        results.claim(study, inputs.space, inputs.identity(study))
        costs = COSTS.build("memory").cost(inputs.space)
        limits = study.budget.limits(inputs.space)
        bank = build_bank(study, inputs, results.directory / "bank", progress)
        references = {
            text: _reference(results, inputs, text, progress)
            for text in ("estimation", "calibration", "evaluation")
        }
        problem = Problem(_loss_table(study, inputs, bank, results, progress), costs, limits)
        with PatchedModel(inputs.model.module, bank) as patched:
            measurement = Measurement(patched, costs, references)
            _search(study, problem, measurement, results, progress)
            _measure_finalists(study, problem, measurement, results, progress)
    return results.front()


def export_checkpoint(
    study: Study,
    trial: Trial,
    directory: Path | str,
    exporter: str = "packed",
    results: Path | str | None = None,
    progress: Progress = _silent,
) -> None:
    """Write the checkpoint of a measured point.

    Args:
        study: the study that the point belongs to.
        trial: the point.
        directory: folder of the checkpoint.
        exporter: `"packed"` or `"fake_quant"`.
        results: results folder of the study, whose quantized weights are used again.
        progress: called as the work goes on.

    Raises:
        MismatchedArtifact: the model or text is no longer the one that was measured.
        StorageError: the checkpoint could not be written.
    """
    folder = Results(Path(results) if results else default_directory(study))
    chosen = EXPORTERS.build(exporter)
    inputs = prepare(study, progress)
    folder.check(inputs.identity(study))
    bank = build_bank(study, inputs, folder.directory / "bank", progress)
    chosen.write(inputs.model, trial.allocation, bank, Path(directory))


def default_directory(study: Study) -> Path:
    """Results folder of a study that was given none."""
    home = Path(os.environ.get("BITFRONT_HOME", Path.home() / ".cache" / "bitfront"))
    return home / "studies" / study.digest[:16]


@dataclass(frozen=True, eq=False)
class Inputs:
    """A loaded model with its search space and texts.

    Args:
        model: the unquantized model.
        space: its layers and the menu.
        estimation: calibration blocks for estimators and quantizers, int64 `[n, length]`.
        calibration: calibration blocks that guide the search; disjoint from `estimation`.
        evaluation: blocks of the reported values.
    """

    model: LoadedModel
    space: SearchSpace
    estimation: torch.Tensor
    calibration: torch.Tensor
    evaluation: torch.Tensor

    def identity(self, study: Study) -> dict[str, str]:
        """Digests and definitions that every measurement of a study depends on."""
        quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
        estimator = ESTIMATORS.build(study.estimator.name, study.estimator.params)
        return {
            "model": self.model.digest,
            "layers": text_digest(repr(self.space.layers)),
            "formats": ", ".join(map(repr, self.space.formats)),
            "pinned": ", ".join(f"{x.name}={f.name}" for x, f in self.space.pinned),
            "quantizer": f"{quantizer!r} version {quantizer.version}",
            "estimator": f"{estimator!r} version {estimator.version}",
            "estimation tokens": digest(self.estimation),
            "calibration tokens": digest(self.calibration),
            "evaluation tokens": digest(self.evaluation),
            "dtype": str(self.model.module.dtype).removeprefix("torch."),
            "seed": str(study.seed),
        }


def prepare(study: Study, progress: Progress = _silent) -> Inputs:
    """Load the model, find its layers, and cut the texts into blocks.

    Raises:
        InvalidModel: the model cannot be used.
        InvalidText: a text is too short, or the two texts share a block.
        InvalidArgument: the menu does not fit the model.
    """
    # Wrong names and parameters must not cost the minutes that loading takes.
    QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    ESTIMATORS.build(study.estimator.name, study.estimator.params)
    SEARCHES.build(study.search.name, study.search.params)
    progress(Event("load", 0, 1))
    model = load_model(study.model, study.revision, study.dtype, study.device)
    progress(Event("load", 1, 1))
    pinned = formats.named(study.pinned) if study.pinned else None
    menu = tuple(formats.named(name) for name in study.formats)
    space = search_space(model.module, menu, pinned, study.tied)
    study.budget.limits(space)
    progress(Event("text", 0, 2))
    text = study.calibration
    both = _blocks(text, model, study.seed, text.n_sequences + study.n_search_sequences)
    progress(Event("text", 1, 2))
    evaluation = _blocks(study.evaluation, model, study.seed, study.evaluation.n_sequences)
    progress(Event("text", 2, 2))
    calibration = {tuple(row) for row in both.tolist()}
    if any(tuple(row) in calibration for row in evaluation.tolist()):
        raise InvalidText(
            f"Calibration text {study.calibration.source!r} and evaluation text "
            f"{study.evaluation.source!r} share a block of tokens: give two different texts."
        )
    n = text.n_sequences
    return Inputs(model, space, both[:n], both[n:], evaluation)


def _blocks(text: TextSource, model: LoadedModel, seed: int, n_sequences: int) -> torch.Tensor:
    return token_blocks(text.source, model.tokenizer, n_sequences, text.sequence_length, seed)


def build_bank(
    study: Study, inputs: Inputs, directory: Path, progress: Progress = _silent
) -> WeightBank:
    """Quantize every layer in every format, or find that done."""
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    grams = None
    if quantizer.needs_hessian:
        columns = {x.name: x.shape[1] for x in inputs.space.layers}
        grams = InputGrams(inputs.model.module, inputs.estimation, columns)
    return WeightBank.build(
        directory,
        inputs.model.module,
        inputs.space,
        quantizer,
        grams,
        _counted(progress, "quantize"),
    )


def _counted(progress: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(Event(stage, done, total))


def _reference(results: Results, inputs: Inputs, text: str, progress: Progress) -> Reference:
    tokens: torch.Tensor = getattr(inputs, text)
    path = results.directory / "references" / f"{text}.safetensors"
    if path.exists():
        return Reference.load(path, inputs.model.digest, tokens)
    made = Reference.of(inputs.model.module, tokens, progress=_counted(progress, "reference"))
    made.save(path, inputs.model.digest)
    return made


def _loss_table(
    study: Study, inputs: Inputs, bank: WeightBank, results: Results, progress: Progress
) -> LayerTable:
    name = study.estimator.name
    stored = results.load_table(name, inputs.space)
    if stored:
        return stored
    estimator = ESTIMATORS.build(name, study.estimator.params)
    table = estimator.estimate(
        inputs.model.module, inputs.estimation, inputs.space, bank, _counted(progress, "estimate")
    )
    results.save_table(name, table)
    return table


def _search(
    study: Study,
    problem: Problem,
    measurement: Measurement,
    results: Results,
    progress: Progress,
) -> None:
    """Measure the uniform baselines, then what the search proposes, one at a time."""
    search = SEARCHES.build(study.search.name, study.search.params)
    history = list(results.trials("calibration"))
    seen = {trial.allocation for trial in history}
    baselines = [a for a in _uniform(problem) if a not in seen]
    while len(history) < study.n_trials:
        origin, asked = "uniform", baselines[:1]
        if baselines:
            del baselines[0]
        else:
            problem = _with_slopes(search, problem, history, measurement, results, progress)
            # One generator per step: the n-th proposal does not depend on where a run was cut.
            rng = np.random.default_rng([study.seed, len(history)])
            origin, asked = study.search.name, search.ask(problem, history, 1, rng)
        if not asked:
            break
        progress(Event("search", len(history), study.n_trials))
        history.append(_measured(asked[0], "calibration", origin, measurement, results))
        progress(Event("search", len(history), study.n_trials, history[-1]))


def _with_slopes(
    search: Search,
    problem: Problem,
    history: Sequence[Trial],
    measurement: Measurement,
    results: Results,
    progress: Progress,
) -> Problem:
    """The problem with the slope that the search asks for, measured or found stored."""
    wanted = search.slope_at(problem, history)
    if wanted is None:
        return problem
    name = f"slopes-{wanted.digest[:16]}"
    table = results.load_table(name, problem.space)
    if table is None:
        table = measurement.slopes(wanted, _counted(progress, "slopes"))
        results.save_table(name, table)
    return replace(problem, slopes={**problem.slopes, wanted: table})


def _uniform(problem: Problem) -> list[Allocation]:
    space = problem.space
    made = [space.decode(space.uniform(column)) for column in range(len(space.formats))]
    return list(dict.fromkeys(made))


def _measured(
    allocation: Allocation, text: str, origin: str, measurement: Measurement, results: Results
) -> Trial:
    trial = measurement.trial(len(results.trials()), allocation, text, origin)
    results.append(trial)
    return trial


def _measure_finalists(
    study: Study,
    problem: Problem,
    measurement: Measurement,
    results: Results,
    progress: Progress,
) -> None:
    """Measure on the evaluation text what did best on the calibration text, and the baselines."""
    seen = {trial.allocation for trial in results.trials("evaluation")}
    wanted = finalists(results.trials("calibration"), problem, study.n_finalists)
    for index, trial in enumerate(wanted):
        measured = None
        if trial.allocation not in seen:
            progress(Event("evaluate", index, len(wanted)))
            measured = _measured(trial.allocation, "evaluation", trial.origin, measurement, results)
        progress(Event("evaluate", index + 1, len(wanted), measured))


def finalists(trials: tuple[Trial, ...], problem: Problem, n: int) -> list[Trial]:
    """Uniform baselines, the best few within the budget, and the front around it.

    Half of the `n` places go to the smallest measured KL within the limits, the rest to the
    points of the calibration front nearest to the budget.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    searched = [t for t in complete if t.origin != "uniform"]
    within = [t for t in searched if problem.is_feasible(problem.space.encode(t.allocation))]
    best = sorted(within, key=lambda t: t.values["kl"])[: (n + 1) // 2]
    anchor = best[0].values["bytes"] if best else 0.0
    front = [t for t in ParetoFront(tuple(complete)).trials if t in searched and t not in best]
    front.sort(key=lambda t: abs(t.values["bytes"] - anchor))
    return [t for t in complete if t.origin == "uniform"] + best + front[: n - len(best)]


def environment() -> dict[str, str]:
    """Versions and machine that a result was made with."""
    import transformers

    return {
        "bitfront": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
