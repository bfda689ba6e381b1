"""What a study starts from: model, search space, texts, and the digests that identify them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from bitfront import formats
from bitfront.budget import Budget
from bitfront.costs import COSTS
from bitfront.costs.base import Cost
from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.experts import Grouping
from bitfront.formats.base import Format
from bitfront.models.bank import format_digest
from bitfront.models.cache_layers import with_caches
from bitfront.models.data import check_source, digest
from bitfront.models.experts import separate_experts
from bitfront.models.layers import search_space, stacked_weights
from bitfront.models.load import LoadedModel, load_model, local_path
from bitfront.models.offset import base_bytes, with_base
from bitfront.models.samples import Samples, check_apart, samples_of
from bitfront.models.tasks import CausalText, ImageClassification, SentenceEmbedding, task_of
from bitfront.plugins import Choice, parameters
from bitfront.problem import Problem
from bitfront.progress import Event, Progress, silent
from bitfront.quantizers import QUANTIZERS
from bitfront.results import text_digest
from bitfront.search import SEARCHES
from bitfront.sensitivity import ESTIMATORS
from bitfront.solvers import SOLVERS
from bitfront.space import SearchSpace
from bitfront.study import Study, TextSource
from bitfront.table import LayerTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Inputs:
    """A loaded model with its search space and texts.

    Args:
        model: the unquantized model.
        space: its layers and the menu.
        costs: bytes and code bits of every layer in every format.
        estimation: calibration blocks for estimators and quantizers, int64 `[n, length]`, or other
            samples of the model's task.
        calibration: calibration blocks that guide the search; disjoint from `estimation`.
        evaluation: blocks of the reported values.
        labels: of the samples of a text by its name, int64 `[n]`; `None` where the samples hold
            their own, or have none.
    """

    model: LoadedModel
    space: SearchSpace
    costs: tuple[LayerTable, ...]
    estimation: torch.Tensor
    calibration: torch.Tensor
    evaluation: torch.Tensor
    labels: Mapping[str, torch.Tensor | None] = field(default_factory=dict)

    @property
    def tokens(self) -> dict[str, torch.Tensor]:
        """Blocks by text: those of `TEXTS`, which trials are measured on, and `"estimation"`."""
        return {
            "estimation": self.estimation,
            "calibration": self.calibration,
            "evaluation": self.evaluation,
        }

    @property
    def model_identity(self) -> str:
        """What predictions depend on besides the tokens: the weights, and the dtype they run in."""
        return f"{self.model.digest} {self.model.module.dtype}"

    def identity(self, study: Study) -> dict[str, str]:
        """Digests and definitions that every measurement of a study depends on."""
        estimator = ESTIMATORS.build(study.estimator.name, study.estimator.params)
        return weights_identity(study, self.model, self.space) | {
            "estimator": f"{estimator!r} version {estimator.version}",
            **{f"{text} tokens": digest(tokens) for text, tokens in self.tokens.items()},
            "seed": str(study.seed),
        }


def weights_identity(study: Study, model: LoadedModel, space: SearchSpace) -> dict[str, str]:
    """The part of the identity that is known without any text."""
    quantizer = QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    bars = {"runtime": text_digest(repr(space.barred))} if space.barred else {}
    cache = {"KV cache": repr(space.kv_cache)} if space.kv_cache else {}
    base = (
        {"base": model.base.digest, "base bytes": str(base_bytes(model.base))} if model.base else {}
    )
    task = task_of(model.module)
    asked = {} if isinstance(task, CausalText) else {"task": repr(task)}
    return (
        bars
        | cache
        | asked
        | base
        | {
            "model": model.digest,
            "layers": text_digest(repr(space.layers)),
            "formats": ", ".join(map(_defined, space.formats)),
            "pinned": ", ".join(f"{x.name}={_defined(f)}" for x, f in space.pinned),
            "quantizer": f"{quantizer!r} version {quantizer.version}",
            "dtype": str(model.module.dtype).removeprefix("torch."),
        }
    )


def check_names(study: Study) -> None:
    """Refuse what can be seen at once to be wrong; it must not cost the minutes that loading takes.

    Raises:
        UnknownPlugin, InvalidArgument: a plug-in's name or a parameter.
        InvalidModel, InvalidText: a path where nothing is.
    """
    QUANTIZERS.build(study.quantizer.name, study.quantizer.params)
    estimator = ESTIMATORS.build(study.estimator.name, study.estimator.params)
    if study.kv_cache is not None:
        estimator.check_caches()
    _built_costs(study)
    searches = [SEARCHES.build(choice.name, choice.params) for choice in study.searches]
    with_pairs = any(getattr(search, "solver", "") == "quadratic" for search in searches)
    if study.n_pairs and not with_pairs:
        logger.warning(
            "%d pairs are measured, but no search uses them: name one with solver=quadratic.",
            study.n_pairs,
        )
    if with_pairs and not study.n_pairs:
        logger.warning("quadratic without measured pairs is cp_sat: give n_pairs.")
    local_path(study.model)
    if study.base is not None:
        local_path(study.base)
    for text in (study.calibration, study.evaluation):
        check_source(text.source)


def prepare(study: Study, progress: Progress = silent) -> Inputs:
    """Load the model, find its layers, and cut the texts into blocks.

    Raises:
        InvalidModel: the model cannot be used.
        InvalidText: a text is too short or has tokens that the model lacks, or the two texts
            overlap (`check_disjoint`).
        InvalidArgument: the menu does not fit the model, or the budget is too large.
        InfeasibleBudget: the budget is too small.
    """
    model, space = load_searched(study, progress)
    _warn_of_stacks(model.module)
    costs = cost_tables(study, space)
    check_budget(study.budget, space, costs)
    _check_task(model, study)
    progress(Event("text", 0, 2))
    both = calibration_samples(study, model)
    progress(Event("text", 1, 2))
    evaluation = measured_samples(study, model, "evaluation")
    progress(Event("text", 2, 2))
    check_apart(both, evaluation, (study.calibration.source, study.evaluation.source), model)
    n = study.calibration.n_sequences
    first, rest = both[:n], both[n:]
    parts = {"estimation": first, "calibration": rest, "evaluation": evaluation}
    labels = {name: part.labels for name, part in parts.items()}
    return Inputs(model, space, costs, first.inputs, rest.inputs, evaluation.inputs, labels)


def _warn_of_stacks(model: nn.Module) -> None:
    """Say what the search leaves out: nobody expects most of a model to stay as it is."""
    n_stacked = stacked_weights(model)
    if n_stacked:
        n_weights = sum(p.numel() for p in model.parameters())
        logger.warning(
            "%s of %s weights (%s) are matrices stacked in 3-D, such as experts, and stay at "
            "16 bits: a budget in bpw or bits does not count them, one in MB does.",
            *(f"{n_stacked:,}", f"{n_weights:,}", f"{n_stacked / n_weights:.0%}"),
        )


def load_searched(study: Study, progress: Progress = silent) -> tuple[LoadedModel, SearchSpace]:
    """The model and its search space.

    Raises:
        InvalidModel: the model cannot be used.
        InvalidArgument: the menu does not fit the model.
    """
    progress(Event("load", 0, 1))
    # A difference can be smaller than a step of bfloat16.
    dtype = "float32" if study.base is not None and study.dtype == "auto" else study.dtype
    model = load_model(study.model, study.revision, dtype, study.device, study.task)
    if study.base is not None:
        model = with_base(model, study.base, dtype, study.device)
    progress(Event("load", 1, 1))
    pinned = formats.named(study.pinned) if study.pinned else None
    menu = tuple(formats.named(name) for name in study.formats)
    grouping = Grouping.parse(study.experts)
    if grouping.kind != "none":
        separate_experts(model.module)
        if model.base_module is not None:
            separate_experts(model.base_module)
    space = search_space(
        model.module,
        menu,
        pinned,
        study.tied,
        study.deployment,
        experts=grouping,
        base=model.base_module,
    )
    return model, with_caches(space, model.module, study.kv_cache) if study.kv_cache else space


def cost_tables(study: Study, space: SearchSpace) -> tuple[LayerTable, ...]:
    """The cost tables of a study, those of its time budget at the batch and context of that.

    Raises:
        InvalidArgument: a cost that cannot be made, or two that give one quantity.
    """
    tables = tuple(table for cost in _built_costs(study) for table in cost.cost(space))
    given = [table.quantity for table in tables]
    for quantity in given:
        if given.count(quantity) > 1:
            raise InvalidArgument(f"Two costs give {quantity}: name one of them.")
    return tables


def time_point(study: Study) -> tuple[int, int]:
    """Batch and context at which a study predicts latency; a context of 1 where it knows none.

    Raises:
        InvalidArgument: it predicts none.
    """
    for cost in _built_costs(study):
        if (batch := getattr(cost, "batch", None)) is not None:
            return int(batch), int(getattr(cost, "context", 1))
    raise InvalidArgument(
        "The study predicts no latency: search with --costs memory,latency:table=FILE."
    )


def _built_costs(study: Study) -> list[Cost]:
    time = study.budget.time
    point = {"batch": time.batch, "context": time.context} if time else {}
    stated = {name: value for name, value in point.items() if value is not None}
    built = []
    for choice in study.costs:
        known = parameters(COSTS.load(choice.name))
        if "batch" not in known or not stated:
            built.append(COSTS.build(choice.name, choice.params))
            continue
        for name, value in stated.items():
            if name not in known:
                raise InvalidArgument(
                    f"Budget {time} states a {name}, which cost {choice.name!r} knows nothing of: "
                    "leave it out, or give latency:table=FILE of `bitfront profile`."
                )
            if choice.params.get(name, value) != value:
                raise InvalidArgument(
                    f"Budget {time} and cost {choice} differ in {name}: give it once."
                )
        built.append(COSTS.build(choice.name, {**choice.params, **stated}))
    return built


def check_budget(budget: Budget, space: SearchSpace, costs: tuple[LayerTable, ...]) -> None:
    """Refuse a budget that nothing meets, before anything is measured.

    Raises:
        InfeasibleBudget: with the smallest budget that works, in the unit that was given.
        InvalidArgument: the budget holds the unquantized model.
    """
    for quantity, (each, limit) in budget.tightest(space, costs).items():
        table = next(t for t in costs if t.quantity == quantity)
        smallest = float(table.grouped.min(axis=1).sum())
        if smallest > limit:
            message = (
                f"No allocation fits {each}: the smallest reachable budget is "
                f"{each.holding(space, table, smallest)}. Raise the budget or add smaller formats."
            )
            raise InfeasibleBudget(quantity, limit, smallest, message)
    if len(limits := budget.limits(space, costs)) > 1:
        _check_together(budget, Problem(costs[0], costs, limits))


def _check_together(budget: Budget, problem: Problem) -> None:
    """Refuse limits that can be met one by one only: the smallest format may be a slow one.

    Raises:
        InfeasibleBudget: with the smallest budget of one unit that works beside the others.
    """
    try:
        SOLVERS.build("lagrangian").solve(problem)
    except InfeasibleBudget as error:
        each, _ = budget.tightest(problem.space, problem.costs)[error.quantity]
        least = each.holding(problem.space, problem.cost(error.quantity), error.smallest)
        message = (
            f"No allocation fits {budget}: beside the others, {each} would have to be {least}. "
            "Raise one of them or add formats."
        )
        raise InfeasibleBudget(error.quantity, error.limit, error.smallest, message) from error


def _check_task(model: LoadedModel, study: Study) -> None:
    """Refuse what does not go with the task of the model."""
    task = task_of(model.module)
    timed = {"latency", "roofline"} & {cost.name for cost in study.costs}
    if timed and not isinstance(task, CausalText):
        raise InvalidArgument(
            f"Cost {timed.pop()!r} is the time of a decoding step, and {study.model} is no "
            "language model: leave it out, with any budget in time."
        )
    if isinstance(task, ImageClassification):
        return
    least = min(study.n_search_sequences, study.evaluation.n_sequences)
    if isinstance(task, SentenceEmbedding) and least < 3:
        raise InvalidArgument(
            f"{least} sentences have no rank correlation of similarities: give at least 3, with "
            "--n-search-sequences and --n-evaluation-sequences."
        )
    length = max(study.calibration.sequence_length, study.evaluation.sequence_length)
    longest = getattr(model.module.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise InvalidArgument(
            f"Sequences of {length} tokens are longer than the {longest} positions of the model: "
            f"give --sequence-length {longest} or less."
        )


def _defined(format: Format) -> str:
    return f"{format.name} {format_digest(format)[:16]}"


def calibration_samples(study: Study, model: LoadedModel) -> Samples:
    """Samples of estimators and quantizers, then those that guide the search.

    Raises:
        InvalidText: too few, or with tokens or labels that the model lacks.
    """
    text = study.calibration
    return samples_of(text, model, study.seed, text.n_sequences + study.n_search_sequences)


def measured_samples(study: Study, model: LoadedModel, text: str) -> Samples:
    """Samples that a trial is measured on.

    Args:
        study: names the texts.
        model: whose tokens they are.
        text: one of `TEXTS`.

    Raises:
        InvalidText: too few, or with tokens or labels that the model lacks.
    """
    if text == "calibration":
        return calibration_samples(study, model)[study.calibration.n_sequences :]
    return samples_of(study.evaluation, model, study.seed, study.evaluation.n_sequences)


def located(study: Study) -> Study:
    """The study with whole paths of local files, so that any directory finds them.

    Those are the model, the texts, and the tables of costs.
    """
    return replace(
        study,
        model=_whole(study.model),
        base=_whole(study.base) if study.base is not None else None,
        calibration=_placed(study.calibration),
        evaluation=_placed(study.evaluation),
        costs=tuple(map(_with_whole_path, study.costs)),
    )


def _whole(source: str) -> str:
    path = local_path(source)
    return str(path.resolve()) if path else source


def _placed(text: TextSource) -> TextSource:
    path = Path(text.source)
    return replace(text, source=str(path.resolve())) if path.exists() else text


def _with_whole_path(cost: Choice) -> Choice:
    table = cost.params.get("table")
    if not table:
        return cost
    return replace(cost, params={**cost.params, "table": str(Path(str(table)).resolve())})
