"""The whole job in one process: prepare, estimate, search, measure the front, export."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bitfront.allocation import Allocation
from bitfront.banks import build_bank, stored_bank
from bitfront.environment import environment, versions
from bitfront.errors import InvalidArgument, InvalidModel, StorageError
from bitfront.estimates import expert_tokens, loss_table
from bitfront.experts import TokensSeen
from bitfront.export import EXPORTERS
from bitfront.export.base import Exporter, check_target, replacing_folder
from bitfront.inputs import (
    Inputs,
    check_names,
    load_searched,
    prepare,
    weights_identity,
)
from bitfront.job import Job, measured
from bitfront.manifest import Manifest, digests
from bitfront.measurement import Measurement
from bitfront.models.bank import WeightBank
from bitfront.models.exported import holds_weights
from bitfront.models.load import LoadedModel
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Answers
from bitfront.notes import MANIFEST, unmeasured
from bitfront.pairs import measured_pairs
from bitfront.pareto import ParetoFront, objectives
from bitfront.places import located
from bitfront.plugins import Choice
from bitfront.problem import Problem
from bitfront.progress import Event, Progress, silent
from bitfront.references import reference_of
from bitfront.requantizing import requantized, settled
from bitfront.results import Results
from bitfront.searching import search_trials
from bitfront.second import SecondLoss
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState


def run_study(
    study: Study, directory: Path | str | None = None, progress: Progress = silent
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
        The front on the evaluation text; its answer is
        `front.best(front.goal, **study.budget.bounds())`.

    Raises:
        BitfrontError: bad input, an infeasible budget, or a folder of another study.
    """
    with opened(study, directory, progress) as job:
        search_trials(job)
        measure_finalists(job)
        job.results.finish(located(study), environment())
        return job.results.front()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study that is loaded and quantized, before any estimate.

    Args:
        study: what was asked.
        results: its folder, held by this process.
        inputs: model, search space, costs and token blocks.
        references: predictions of the unquantized model by text, those of `Inputs.measured`.
        bank: quantized weights of every layer in every format.
    """

    study: Study
    results: Results
    inputs: Inputs
    references: Mapping[str, Answers]
    bank: WeightBank


@contextmanager
def prepared(
    study: Study,
    directory: Path | str | None = None,
    progress: Progress = silent,
    max_layers: int | None = None,
) -> Iterator[Prepared]:
    """Load and quantize, or find that done in the folder, which is then this study's.

    Args:
        study: what to search.
        directory: results folder.
        progress: called as the work goes on.
        max_layers: a model of more is refused before it is quantized; `None` for no bound.

    Raises:
        BitfrontError: as `run_study`.
    """
    check_names(study)  # before a folder is made
    results = Results(Path(directory) if directory else default_directory(study))
    with results.locked():
        inputs = prepare(study, progress)
        n_layers = len(inputs.space.layers)
        if max_layers is not None and n_layers > max_layers:
            raise InvalidModel(
                f"{study.model} has {n_layers:,} layers, of at most {max_layers:,}: "
                "take a smaller model or raise BITFRONT_MAX_LAYERS."
            )
        identity = inputs.identity(study)
        results.admit(identity)
        # All that can refuse a text comes before the folder is claimed.
        references = {
            text: reference_of(study, results, inputs, text, progress) for text in inputs.measured
        }
        bank = build_bank(study, inputs, results.directory / "bank", progress)
        results.claim(inputs.space, identity | {"quantized weights": bank.digest})
        results.save_bank_entries(bank.entries)
        yield Prepared(study, results, inputs, references, bank)


@contextmanager
def opened(
    study: Study, directory: Path | str | None = None, progress: Progress = silent
) -> Iterator[Job]:
    """Prepare and estimate, or find that done in the folder; restores the model.

    Raises:
        BitfrontError: as `run_study`.
    """
    with prepared(study, directory, progress) as made, estimated(made, progress) as job:
        yield job


@contextmanager
def estimated(made: Prepared, progress: Progress = silent) -> Iterator[Job]:
    """Estimate, or find that done in the folder; restores the model.

    Args:
        made: the study, which stays prepared.
        progress: called as the work goes on.

    Raises:
        BitfrontError: as `run_study`.
    """
    study, results, inputs, references = made.study, made.results, made.inputs, made.references
    estimation = partial(_estimation, study, results, inputs, progress)
    seen = expert_tokens(inputs, results)
    table = loss_table(study, inputs, made.bank, results, seen, progress)
    limits = study.budget.limits(inputs.space, inputs.costs)
    n_sequences = len(references["calibration"].tokens)
    second = _second_loss(made, table, seen, progress)
    problem = Problem(table, inputs.costs, limits, n_sequences=n_sequences, second=second)
    with PatchedModel(inputs.model.module, made.bank, as_stored=True) as patched:
        measurement = Measurement(
            patched, inputs.costs, references, estimation, questions=inputs.questions
        )
        if study.n_pairs:
            path = results.directory / "pairs.json"
            pairs = measured_pairs(measurement, problem, study.n_pairs, path, progress)
            problem = replace(problem, pairs=pairs)
        results.save_prices(inputs.costs)
        stored = list(results.trials())
        yield Job(study, results, problem, measurement, inputs.tokens, stored, progress)


def _second_loss(
    made: Prepared, first: LayerTable, seen: TokensSeen, progress: Progress
) -> SecondLoss | None:
    """The second metric of a study that has one, estimated as the first is."""
    study, inputs = made.study, made.inputs
    if study.second is None:
        return None
    there = replace(inputs, estimation=inputs.second["second_estimation"])
    table = loss_table(study, there, made.bank, made.results, seen, progress, "-second")
    return SecondLoss.of(first, table, study.second.layers)


def export_checkpoint(
    study: Study,
    trial: Trial,
    directory: Path | str,
    exporter: str = "packed",
    results: Path | str | None = None,
    progress: Progress = silent,
    asked: Study | None = None,
    requantize: str | None = None,
) -> Trial:
    """Write the checkpoint of a measured point; needs the model and the results folder, no text.

    Its `manifest.json` says what it was made of, for `bitfront verify` and `bitfront check`.

    Args:
        study: the study that the point belongs to.
        trial: the point.
        directory: folder of the checkpoint.
        exporter: name of an exporter, with parameters such as `"packed:max_shard_size=2GB"`.
        results: results folder of the study, whose quantized weights are used again.
        progress: called as the work goes on.
        asked: the study as the manifest is to have it, if not as it is here (with paths of this
            machine).
        requantize: quantizer that needs settled formats, such as `"gptaq:share=0.5"`: the weights
            are made anew for this allocation and measured again, better or worse, and that is
            what the checkpoint and its manifest hold. Needs both texts. `None` for the weights
            that were measured.

    Returns:
        The point as the manifest has it: `trial`, or with the values of the new weights.

    Raises:
        InvalidArgument: `results` is not a results folder; the exporter cannot write such a point;
            or the point cannot be quantized again (`requantizing.settled`), or the exporter would
            write other weights.
        MismatchedArtifact: the model is no longer the one that was measured, or the quantized
            weights are damaged and only a search can make them anew.
        StorageError: the checkpoint could not be written.
        UnknownPlugin: no exporter of that name.
    """
    folder = Results(Path(results) if results else default_directory(study))
    choice = Choice.parse(exporter)
    chosen = EXPORTERS.build(choice.name, choice.params)
    for source in (study.model, study.base):
        if source is not None:
            check_target(Path(directory), source)
    chosen.check_base((asked or study).base)
    chosen.writable(trial.allocation, folder.space)
    # "auto" may mean another dtype here than on the machine that measured.
    known = replace(study, dtype=folder.identity.get("dtype", study.dtype))
    made = Manifest(
        asked or located(study),
        trial,
        exporter,
        folder.identity,
        folder.environment,
        versions(),
        {},
    )
    if requantize is None:
        model, bank = _as_measured(known, trial, folder, asked, progress)
    else:
        quantizer = settled(requantize, study)
        new = requantized(known, trial, quantizer, folder, progress)
        model, bank, trial = new.model, new.bank, new.trial
        made = replace(made, trial=trial, identity=new.identity, requantized=quantizer)
        made = replace(made, measured_with=environment())
    write_checkpoint(chosen, model, bank, made, Path(directory))
    return trial


def _as_measured(
    study: Study, trial: Trial, results: Results, asked: Study | None, progress: Progress
) -> tuple[LoadedModel, WeightBank]:
    """The unquantized model, and the weights that were measured."""
    model, space = load_searched(study, progress)
    with results.locked():
        results.check(weights_identity(study, model, space))
        if model.base is not None and asked is not None and asked.base is not None:
            # Where it was fetched to is no place that a reader of the checkpoint has.
            model = replace(model, base=replace(model.base, source=asked.base))
        return model, stored_bank(study, model, space, trial.allocation, results, progress)


def write_checkpoint(
    exporter: Exporter, model: LoadedModel, bank: WeightBank, made: Manifest, directory: Path
) -> None:
    """Write a checkpoint with its manifest, all of it or nothing.

    Args:
        exporter: writes the folder.
        model: the unquantized model.
        bank: its quantized weights.
        made: says the rest; digests of the files are added.
        directory: of the checkpoint.

    Raises:
        InvalidArgument: caches have formats of their own, or differences from a base were
            quantized, and the exporter cannot write that; or the point was quantized again, and
            the exporter writes other weights.
        StorageError: it could not be written.
    """
    exporter.check_base(model.base.source if model.base else None)
    allocation = exporter.writable(made.trial.allocation, bank.space)
    with replacing_folder(directory) as folder:
        try:
            exporter.write(model, allocation, bank, folder)
        except StorageError as error:
            raise StorageError(str(error).replace(str(folder), str(directory))) from error
        if made.requantized:
            _check_written(made.exporter, made.requantized.name, folder)
        whole = replace(made, files=digests(folder))
        (folder / MANIFEST).write_text(whole.to_json() + "\n", encoding="utf-8")


def _check_written(exporter: str, quantizer: str, folder: Path) -> None:
    """Refuse a folder without the weights that a point was quantized again to."""
    instead = unmeasured(folder) if holds_weights(folder) else "it writes a recipe"
    if instead:
        raise InvalidArgument(
            f"Exporter {exporter!r} does not write the weights that {quantizer} made ({instead}): "
            "leave out requantize, or take packed or fake_quant."
        )


def default_directory(study: Study) -> Path:
    """Results folder of a study that was given none."""
    home = Path(os.environ.get("BITFRONT_HOME", Path.home() / ".cache" / "bitfront"))
    return home / "studies" / study.digest[:16]


def _estimation(
    study: Study, results: Results, inputs: Inputs, progress: Progress, patched: PatchedModel
) -> Answers:
    """On the estimation blocks, of the unquantized model: it is restored."""
    patched.apply(Allocation({}))
    return reference_of(study, results, inputs, "estimation", progress)


def measure_finalists(job: Job) -> None:
    """Measure on the evaluation text what did best on the calibration text, and the baselines."""
    seen = {trial.allocation for trial in job.trials("evaluation")}
    wanted = finalists(job.trials("calibration"), job.problem, job.study.n_finalists)
    for index, trial in enumerate(wanted):
        new = None
        if trial.allocation not in seen:
            job.progress(Event("evaluate", index, len(wanted)))
            new = measured(job, trial.allocation, "evaluation", trial.origin)
        job.progress(Event("evaluate", index + 1, len(wanted), new))


def finalists(trials: Sequence[Trial], problem: Problem, n: int) -> list[Trial]:
    """Uniform baselines, the best few within the budget, and the front around it.

    Half of the `n` places go to the smallest measured loss within the limits, the rest to the
    points of the calibration front nearest to the budget.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    searched = [t for t in complete if t.origin != "uniform"]
    within = [t for t in searched if problem.is_feasible(problem.space.encode(t.allocation))]
    best = sorted(within, key=lambda t: t.goal)[: (n + 1) // 2]
    anchor = best[0].values["bytes"] if best else 0.0
    bounded = ["bits" if q == "code_bits" else q for q in problem.limits]
    front = ParetoFront(tuple(complete), objectives(complete, bounded)).trials
    others = [t for t in front if t in searched and t not in best]
    others.sort(key=lambda t: abs(t.values["bytes"] - anchor))
    return [t for t in complete if t.origin == "uniform"] + best + others[: n - len(best)]
