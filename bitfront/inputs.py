"""What a study starts from: model, search space, texts, and the digests that identify them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from bitfront import formats
from bitfront.errors import InvalidArgument, InvalidText
from bitfront.experts import Grouping
from bitfront.formats.base import Format
from bitfront.items import digest as items_digest
from bitfront.items import read_items
from bitfront.models.bank import format_digest
from bitfront.models.cache_layers import with_caches
from bitfront.models.choices import Questions
from bitfront.models.data import digest
from bitfront.models.experts import separate_experts
from bitfront.models.fixed import FixedTensors
from bitfront.models.layers import search_space, stacked_weights
from bitfront.models.load import LoadedModel, load_model, local_path
from bitfront.models.offset import base_bytes, with_base
from bitfront.models.samples import Samples, check_apart, samples_of
from bitfront.models.statistics import counts_relative
from bitfront.models.tasks import CausalText, ImageClassification, SentenceEmbedding, task_of
from bitfront.models.texts import check_source
from bitfront.plugins import Choice
from bitfront.pricing import built_costs, check_budget, cost_tables
from bitfront.progress import Event, Progress, silent
from bitfront.quantizers import QUANTIZERS
from bitfront.results import text_digest
from bitfront.search import SEARCHES
from bitfront.seeing import FED
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.study import SecondText, Study, TextSource
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
        second: the same three of the second text of a study that has one, by `"second_estimation"`,
            `"second_calibration"` and `"second_evaluation"`.
        questions: multiple-choice items that finalists answer; `None` for none.
    """

    model: LoadedModel
    space: SearchSpace
    costs: tuple[LayerTable, ...]
    estimation: torch.Tensor
    calibration: torch.Tensor
    evaluation: torch.Tensor
    labels: Mapping[str, torch.Tensor | None] = field(default_factory=dict)
    second: Mapping[str, torch.Tensor] = field(default_factory=dict)
    questions: Questions | None = None

    @property
    def tokens(self) -> dict[str, torch.Tensor]:
        """Blocks by text: those of `TEXTS`, which trials are measured on, and `"estimation"`."""
        return {
            "estimation": self.estimation,
            "calibration": self.calibration,
            "evaluation": self.evaluation,
            **self.second,
        }

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the texts that trials are measured on."""
        return tuple(text for text in self.tokens if not text.endswith("estimation"))

    @property
    def model_identity(self) -> str:
        """What predictions depend on besides the tokens: the weights, and the dtype they run in."""
        return f"{self.model.digest} {self.model.module.dtype}"

    def identity(self, study: Study) -> dict[str, str]:
        """Digests and definitions that every measurement of a study depends on."""
        estimator = ESTIMATORS.build(study.estimator.name, study.estimator.params)
        base = self.model.base.module if self.model.base else None
        rounded = FixedTensors(self.model.module, self.space, base)
        return weights_identity(study, self.model, self.space) | {
            **({"tensors without a format": "measured as stored"} if rounded else {}),
            "estimator": f"{estimator!r} version {estimator.version}",
            **{f"{text} tokens": digest(tokens) for text, tokens in self.tokens.items()},
            **({"items": items_digest(self.questions.items)} if self.questions else {}),
            "seed": str(study.seed),
        }


def weights_identity(
    study: Study, model: LoadedModel, space: SearchSpace, again: Choice | None = None
) -> dict[str, str]:
    """The part of the identity that is known without any text.

    Args:
        study: what was asked.
        model: the unquantized model.
        space: its layers and the menu.
        again: what a point was quantized again by; `None` for the quantizer of the study.
    """
    choice = again or study.quantizer
    quantizer = QUANTIZERS.build(choice.name, choice.params)
    bars = {"runtime": text_digest(repr(space.barred))} if space.barred else {}
    cache = {"KV cache": repr(space.kv_cache)} if space.kv_cache else {}
    base = (
        {"base": model.base.digest, "base bytes": str(base_bytes(model.base))} if model.base else {}
    )
    task = task_of(model.module)
    asked = {} if isinstance(task, CausalText) else {"task": repr(task)}
    if counts_relative(model.module, quantizer):
        asked["errors of positions"] = "relative to outputs"
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
    _check_pairs(study, estimator)
    study.check_texts()
    built_costs(study)
    searches = [SEARCHES.build(choice.name, choice.params) for choice in study.searches]
    with_pairs = any(getattr(search, "solver", "") == "quadratic" for search in searches)
    if study.n_pairs and with_pairs and not estimator.in_nats:
        raise InvalidArgument(
            f"{study.estimator} only ranks weights, and measured pairs are in nats: take an "
            "estimator in nats, such as fisher_directional or leave_one_in, or leave out n_pairs."
        )
    if study.n_pairs and not with_pairs:
        logger.warning(
            "%d pairs are measured, but no search uses them: name one with solver=quadratic.",
            study.n_pairs,
        )
    if with_pairs and not study.n_pairs:
        logger.warning("quadratic without measured pairs is cp_sat: give n_pairs.")
    if study.second is None and any(choice.name == "decoupled" for choice in study.searches):
        logger.warning("decoupled without a second text is sweep: give --second-calibration.")
    local_path(study.model)
    if study.base is not None:
        local_path(study.base)
    for text in _sources(study):
        check_source(text.source)
    if study.items is not None:
        read_items(Path(study.items))


def _sources(study: Study) -> list[TextSource]:
    second = [study.second.calibration, study.second.evaluation] if study.second else []
    return [study.calibration, study.evaluation, *second]


def _check_pairs(study: Study, estimator: Estimator) -> None:
    """Refuse or warn where formats of inputs could not be weighed against others."""
    menu = [formats.named(name) for name in study.formats]
    pairs = [f for f in menu if f.input_format is not None]
    if not pairs:
        return
    estimator.check_inputs()
    better = [f.name for f in pairs if f.weight_format in menu]
    if better and not {"bops", "latency_ns"} & study.budget.bounds().keys():
        logger.warning(
            "Budget %s does not count what inputs are rounded to, so that %s costs as much as %s: "
            "add a budget in Gbops with the cost bops, or a time with roofline.",
            *(study.budget, better[0], formats.named(better[0]).weight_format),
        )


def prepare(study: Study, progress: Progress = silent) -> Inputs:
    """Load the model, find its layers, and cut the texts into blocks.

    Raises:
        InvalidModel: the model cannot be used.
        InvalidText: a text is too short or has tokens that the model lacks, or the two texts
            overlap (`check_disjoint`) or have samples of different layouts.
        InvalidArgument: the menu does not fit the model, the budget is too large, or samples end
            before anything of a KV cache is quantized.
        InfeasibleBudget: the budget is too small.
    """
    model, space = load_searched(study, progress)
    _warn_of_stacks(model.module)
    costs = cost_tables(study, space)
    check_budget(study.budget, space, costs)
    _check_task(model, study)
    progress(Event("text", 0, 2))
    both = calibration_samples(study, model)
    task = task_of(model.module)
    progress(Event("text", 1, 2))
    evaluation = measured_samples(study, model, "evaluation")
    progress(Event("text", 2, 2))
    sources = study.calibration.source, study.evaluation.source
    if task != task_of(model.module):
        raise InvalidText(
            f"Samples of {sources[0]} and {sources[1]} differ in their layout: give two files with "
            "as many tokens a sample, and an image of the same size in the same place."
        )
    if study.kv_cache is not None:
        study.kv_cache.check_length(min(map(task.span, (both.inputs, evaluation.inputs))))
    check_apart(both, evaluation, sources, model)
    n = study.calibration.n_sequences
    first, rest = both[:n], both[n:]
    parts = {"estimation": first, "calibration": rest, "evaluation": evaluation}
    labels = {name: part.labels for name, part in parts.items()}
    inputs = Inputs(model, space, costs, first.inputs, rest.inputs, evaluation.inputs, labels)
    if study.items is not None:
        questions = Questions.of(read_items(Path(study.items)), model, study.items)
        inputs = replace(inputs, questions=questions)
    return inputs if study.second is None else _with_second(study, study.second, inputs, both)


def _with_second(study: Study, second: SecondText, inputs: Inputs, calibration: Samples) -> Inputs:
    """The inputs with the blocks of a second text; what searches see of either is in no other."""
    n, model = second.calibration.n_sequences, inputs.model
    both = samples_of(second.calibration, model, study.seed, n + study.n_search_sequences)
    evaluation = samples_of(second.evaluation, model, study.seed, second.evaluation.n_sequences)
    first = Samples(inputs.evaluation)
    for seen, source, other, measured in (
        (both, second.calibration, evaluation, second.evaluation),
        (calibration, study.calibration, evaluation, second.evaluation),
        (both, second.calibration, first, study.evaluation),
    ):
        check_apart(seen, other, (source.source, measured.source), model)
    parts = {"estimation": both[:n], "calibration": both[n:], "evaluation": evaluation}
    return replace(inputs, second={f"second_{text}": x.inputs for text, x in parts.items()})


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


def _check_task(model: LoadedModel, study: Study) -> None:
    """Refuse what does not go with the task of the model."""
    task = task_of(model.module)
    for name in ("calibration", "evaluation"):
        if task.name in FED and getattr(study, name).source == getattr(Study, name).source:
            raise InvalidArgument(
                f"{study.model} reads {FED[task.name]}, and the {name} that is taken where none is "
                f"given is a text: give --{name}."
            )
    timed = {"latency", "roofline"} & {cost.name for cost in study.costs}
    if timed and not isinstance(task, CausalText):
        raise InvalidArgument(
            f"Cost {timed.pop()!r} is the time of a decoding step of a model for text, and "
            f"{study.model} is for {task.fed}: leave it out, with any budget in time."
        )
    if not isinstance(task, CausalText) and (study.second or study.items):
        raise InvalidArgument(
            f"{study.model} is no language model, which a second text and multiple-choice items "
            "are for: leave them out."
        )
    if isinstance(task, ImageClassification):
        return
    least = min(study.n_search_sequences, study.evaluation.n_sequences)
    if isinstance(task, SentenceEmbedding) and least < 3:
        raise InvalidArgument(
            f"{least} sentences have no rank correlation of similarities: give at least 3, with "
            "--n-search-sequences and --n-evaluation-sequences."
        )
    length = max(text.sequence_length for text in _sources(study))
    longest = getattr(model.module.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise InvalidArgument(
            f"Sequences of {length} tokens are longer than the {longest} positions of the model: "
            f"give a sequence_length of {longest} or less."
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
