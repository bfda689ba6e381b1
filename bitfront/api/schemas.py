"""Bodies of requests; with `answers`, the only pydantic besides settings."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from bitfront import formats, runtimes
from bitfront.api import kinds
from bitfront.api.fed import Fed, check_samples
from bitfront.api.sources import MAX_LENGTH, Sources
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument
from bitfront.formats._activations import ACTIVATIONS
from bitfront.formats.weight_activation import SEPARATOR
from bitfront.kv_cache import KVCache
from bitfront.plugins import Choice, Param
from bitfront.seeing import IMAGES
from bitfront.study import SETTLED_QUANTIZERS, SecondText, Study, TextSource, default_menu

MAX_INT = 2**31 - 1
"""Largest whole number that every database stores."""
_UNITS = "bits|bpw|B|KB|MB|GB|KiB|MiB|GiB|Gbops|Tbops"
_TIMES = "us|ms|s"

_LISTED = sorted(formats.catalogue())
_PAIRED = "|".join(x for x in _LISTED if formats.named(x).scaled and SEPARATOR not in x)
_PAIR = f"^({_PAIRED}){SEPARATOR}({'|'.join(ACTIVATIONS)})$"
FormatName = Annotated[
    str,
    Field(max_length=48),
    WithJsonSchema({"type": "string", "anyOf": [{"enum": _LISTED}, {"pattern": _PAIR}]}),
]
RuntimeName = Annotated[
    str,
    Field(max_length=64),
    WithJsonSchema({"type": "string", "enum": list(runtimes.names())}),
]
_NUMBER = r"[0-9]{1,12}(\.[0-9]{1,9})?"
_LIMIT = rf"{_NUMBER}(({_UNITS})|({_TIMES})(@b[0-9]{{1,6}}(c[0-9]{{1,9}})?)?)"
_BUDGET = rf"^{_LIMIT}(,{_LIMIT}){{0,4}}$"


def _readable(text: str) -> str:
    """The text of a budget, if it is one, written as the document has it."""
    budget = Budget.parse(text)
    if not re.search(_BUDGET, text):
        raise InvalidArgument(f"Cannot read budget {text!r}: write it {budget}.")
    return text


BudgetText = Annotated[
    str,
    Field(max_length=120),
    AfterValidator(_readable),
    WithJsonSchema({"type": "string", "maxLength": 120, "pattern": _BUDGET}),
]
Minutes = Annotated[float, Field(gt=0, le=500_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ParamName = Annotated[str, Field(max_length=64)]
ParamValue = (
    bool
    | Annotated[int, Field(ge=-(2**53), le=2**53)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=2_000)]
    | None
)


class Body(BaseModel):
    """A request: unknown keys and numbers in quotes are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ChoiceBody(Body):
    """A plug-in with its parameters."""

    name: Annotated[str, Field(max_length=64)]
    """Of the plug-in."""
    params: Annotated[dict[ParamName, ParamValue], Field(max_length=64)] = {}
    """Those that differ from their defaults; `/v1/plugins` has them all."""


def _choice_schema(kind: str) -> Any:
    names = [name for name in kinds.names(kind) if name not in SETTLED_QUANTIZERS]
    named = {"type": "string", "enum": names, "maxLength": 64}
    text = {
        "type": "string",
        "maxLength": 2_000,
        "pattern": f"^({'|'.join(names)})(:.+)?$",
        "description": "`name` or `name:key=value,key=value`.",
    }
    params = {
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": ["boolean", "integer", "number", "string", "null"]},
    }
    whole = {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {"name": named, "params": params},
    }
    return WithJsonSchema({"anyOf": [text, whole]})


_Given = Annotated[str, Field(min_length=1, max_length=2_000)] | ChoiceBody
QuantizerChoice = Annotated[_Given, _choice_schema("quantizers")]
EstimatorChoice = Annotated[_Given, _choice_schema("estimators")]
SearchChoice = Annotated[_Given, _choice_schema("searches")]
CostChoice = Annotated[_Given, _choice_schema("costs")]
ExporterChoice = Annotated[_Given, _choice_schema("exporters")]
_MAX_EXPORTER = 64


class TextBody(Body):
    """Where samples come from and how many are used."""

    source: Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]
    """`org/name@revision:config:split` of the hub, or a text below a data folder; for a model that
    sees, a folder of images or a .safetensors file of image-text samples there."""
    n_sequences: Annotated[int, Field(ge=1, le=65_536)] = TextSource.n_sequences
    """Token blocks, sentences, images, or samples."""
    sequence_length: Annotated[int, Field(ge=8, le=131_072)] = TextSource.sequence_length
    """Tokens of a block; of no effect for models that see."""


TextGiven = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)] | TextBody


class SecondTextBody(Body):
    """Another text, KL on which is a second metric."""

    calibration: TextGiven
    """What the search sees of it."""
    evaluation: TextGiven
    """What its reported values are of."""
    layers: Annotated[str, Field(min_length=1, max_length=2_000)] = SecondText.layers
    """Layers that it judges in the search `decoupled`: auto, or patterns of names."""


class KVCacheBody(Body):
    """Formats that keys and values of each block may take in the cache."""

    formats: Annotated[list[FormatName], Field(min_length=1, max_length=64)]
    """Menu of caches, each once: grouped formats, and `bf16`."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = KVCache.batch
    """Sequences that its bytes are counted for."""
    context: Annotated[int, Field(ge=1, le=16_777_216)] = KVCache.context
    """Tokens of each."""
    window: Annotated[int, Field(ge=1, le=16_777_216)] = KVCache.window
    """Most recent tokens that stay at 16 bits."""
    sinks: Annotated[int, Field(ge=0, le=65_536)] = KVCache.sinks
    """First tokens that stay at 16 bits."""
    pre_rope: bool = KVCache.pre_rope
    """Quantize keys as they were before the rotary embedding."""

    def cache(self) -> KVCache:
        """The cache that is asked for."""
        return KVCache.from_fields(self.model_dump())


class StudyBody(Body):
    """A search to run: a model, a budget, and choices that all have defaults."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]
    """`org/name@revision` of the hub, or a path below a model folder."""
    budget: BudgetText
    """Average `bits` of codes, `bpw` as stored, bytes, or time as in `12ms@b1c2048`; several with
    commas between."""
    calibration: TextGiven = Study.calibration.source
    """Text that estimators, quantizers and the search see; images for models that see them."""
    evaluation: TextGiven = Study.evaluation.source
    """Text, or images, of the reported values."""
    formats: Annotated[list[FormatName], Field(min_length=1, max_length=64)] = list(Study.formats)
    """Menu of formats, each once; of a runtime its own menu where none is given."""
    quantizer: QuantizerChoice = Study.quantizer.name
    """How codes are chosen."""
    estimator: EstimatorChoice = Study.estimator.name
    """Where the loss table comes from."""
    searches: Annotated[list[SearchChoice], Field(min_length=1, max_length=16)] = [
        choice.name for choice in Study.searches
    ]
    """They propose in turn and share one history."""
    costs: Annotated[list[CostChoice], Field(min_length=1, max_length=8)] = ["memory"]
    """Quantities that a trial states; `memory` is one of them."""
    n_pairs: Annotated[int, Field(ge=0, le=1_000_000)] = Study.n_pairs
    """Pairs of neighbouring groups whose interaction is measured."""
    n_trials: Count = Study.n_trials
    """Measurements on the calibration text, uniform baselines included."""
    max_minutes: Minutes | None = Study.max_minutes
    """Stop when measuring has taken that long; null for never."""
    patience: Count | None = Study.patience
    """Stop when so many proposals do not help; null for never."""
    n_parallel: Annotated[int, Field(ge=1, le=1_024)] = Study.n_parallel
    """Proposals in flight at once."""
    n_search_sequences: Annotated[int, Field(ge=1, le=65_536)] = Study.n_search_sequences
    """Further samples of calibration that each of these measures: blocks, images."""
    n_finalists: Annotated[int, Field(ge=1, le=10_000)] = Study.n_finalists
    """Allocations that are measured on the evaluation text."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Study.seed
    """Of every random choice."""
    tied: bool = Study.tied
    """Whether fused layers (q/k/v, gate/up) share a format."""
    experts: Annotated[str, Field(max_length=20)] = Study.experts
    """What of the experts of a block shares a format: matrix, expert, cluster:4, block, none."""
    pinned: FormatName | None = Study.pinned
    """Format of embedding and head; null leaves them as they are. A runtime has its own default."""
    revision: Annotated[str, Field(max_length=100)] | None = None
    """Of a hub model, where its name has none."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What a worker computes in."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a worker measures."""
    runtime: RuntimeName | None = Study.runtime
    """Engine that must load every point: what it cannot is not allowed."""
    tensor_parallel: Annotated[int, Field(ge=1, le=1_024)] = Study.tensor_parallel
    """Ranks that this engine spreads the weights over."""
    task: Literal["auto", "text", "images", "sentences", "image-text"] = "auto"
    """What the model is fed and judged by: next tokens, classes of images, embeddings, next tokens
    about an image; auto looks at its folder."""
    kv_cache: KVCacheBody | None = None
    """Search the KV cache beside the weights, under one budget in bytes; null for not."""
    second: SecondTextBody | None = None
    """Another text, whose KL every trial states too; null for none."""
    items: Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)] | None = None
    """JSON lines of multiple-choice items below a data folder, which finalists answer."""
    base: Annotated[str, Field(max_length=MAX_LENGTH)] | None = None
    """What the model was fine-tuned from, named like it: formats are then those of the difference;
    null to quantize the weights themselves."""

    def study(self, sources: Sources) -> Study:
        """The study that is asked for.

        Raises:
            BitfrontError: a place, a name or a value that is not allowed; says which.
        """
        if self.n_trials > sources.settings.max_trials:
            raise InvalidArgument(
                f"n_trials is {self.n_trials:,}: this installation takes at most "
                f"{sources.settings.max_trials:,}."
            )
        if len(set(self.formats)) < len(self.formats):
            raise InvalidArgument(f"A format is named twice in {', '.join(self.formats)}.")
        model, revision = sources.model(self._model)
        calibration, evaluation = self._samples(Fed.of(model, self.task, sources))
        same = {name: getattr(self, name) for name in _SAME}
        menu, pinned = default_menu(self.runtime, self.base)
        is_given = self.model_fields_set
        study = Study(
            model=model,
            budget=Budget.parse(self.budget),
            calibration=calibration,
            evaluation=evaluation,
            formats=tuple(self.formats) if "formats" in is_given else menu,
            pinned=self.pinned if "pinned" in is_given else pinned,
            quantizer=_choice("quantizers", self.quantizer),
            estimator=_choice("estimators", self.estimator),
            searches=tuple(_choice("searches", each) for each in self.searches),
            costs=tuple(_cost(each, sources) for each in self.costs),
            revision=revision,
            kv_cache=self.kv_cache.cache() if self.kv_cache else None,
            base=sources.base(self.base) if self.base is not None else None,
            second=_second(self.second, sources) if self.second else None,
            items=sources.items(self.items) if self.items is not None else None,
            **same,
        )
        study.check_texts()
        check_samples(study)
        return study

    def _samples(self, fed: Fed) -> tuple[TextSource, TextSource]:
        """Calibration and evaluation.

        Raises:
            BitfrontError: a place that is not allowed, or nothing for this model.
        """
        if fed.is_seeing and (self.second or self.items):
            raise InvalidArgument(
                f"Model {self.model[:80]!r} sees, and a second text and items are for language "
                "models: leave them out."
            )
        if fed.task == IMAGES and self.kv_cache:
            raise InvalidArgument(
                f"Model {self.model[:80]!r} is for images, and has no KV cache: leave out kv_cache."
            )
        first, second = map(_source, (self.calibration, self.evaluation))
        n_seen = first.n_sequences + self.n_search_sequences
        places = fed.pair(first.source, n_seen, second.source, second.n_sequences)
        return replace(first, source=places[0]), replace(second, source=places[1])

    @property
    def _model(self) -> str:
        if self.revision is None:
            return self.model
        if "@" in self.model:
            raise InvalidArgument(
                f"Given model {self.model[:80]!r} and a revision as well: give it once."
            )
        return f"{self.model}@{self.revision}"


_SAME = (
    "n_pairs", "n_trials", "max_minutes", "patience", "n_parallel", "n_search_sequences",
    "n_finalists", "seed", "tied", "experts", "dtype", "device", "task",
    "runtime", "tensor_parallel",
)  # fmt: skip
"""Fields that a request and a study have alike."""


def _source(given: str | TextBody) -> TextSource:
    return TextSource(given) if isinstance(given, str) else TextSource(**given.model_dump())


def _text(given: str | TextBody, sources: Sources) -> TextSource:
    source = _source(given)
    return replace(source, source=sources.text(source.source))


def _second(given: SecondTextBody, sources: Sources) -> SecondText:
    texts = _text(given.calibration, sources), _text(given.evaluation, sources)
    return SecondText(*texts, given.layers)


def _choice(kind: str, given: str | ChoiceBody) -> Choice:
    if isinstance(given, str):
        choice = Choice.parse(given)
    else:
        params: dict[str, Param] = dict(given.params)
        choice = Choice(given.name, params)
    kinds.check(kind, choice)
    return choice


def _cost(given: str | ChoiceBody, sources: Sources) -> Choice:
    """A cost; one that reads a file reads it below a data folder."""
    choice = _choice("costs", given)
    table = choice.params.get("table")
    if not isinstance(table, str) or not table:
        return choice
    return Choice(choice.name, {**choice.params, "table": sources.table(table)})


class ExtendBody(Body):
    """More measurements or more time for a study."""

    n_trials: Count | None = None
    """Measurements in all, more than it had."""
    max_minutes: Minutes | None = None
    """Minutes in all, more than it had."""


class CheckpointBody(Body):
    """A point to write as a checkpoint: a trial, or the best within a budget."""

    trial: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    """Number of a measured trial."""
    at: BudgetText | None = None
    """The point of the front with the smallest loss within this size."""
    exporter: ExporterChoice = "packed"
    """Plug-in that writes it."""

    def exporter_text(self) -> str:
        """The exporter as it is stored, such as `packed:max_shard_size=2GB`.

        Raises:
            UnknownPlugin: no such exporter.
            InvalidArgument: a parameter that it lacks, a value of another type, or too long.
        """
        text = str(_choice("exporters", self.exporter))
        if len(text) > _MAX_EXPORTER:
            raise InvalidArgument(
                f"The exporter has {len(text)} characters: give at most {_MAX_EXPORTER}."
            )
        return text


EXAMPLE: dict[str, Any] = {
    "model": "HuggingFaceTB/SmolLM2-135M@main",
    "budget": "4.25bpw",
    "formats": ["int3_g64", "int4_g64", "int8_g64"],
    "estimator": "fisher_directional",
    "searches": ["trust_region", "posterior_ilp"],
    "n_trials": 64,
}
"""A request that every page of the documentation shows."""
EXAMPLE_IMAGES: dict[str, Any] = {
    "model": "google/vit-base-patch16-224@main",
    "budget": "4bpw",
    "calibration": {"source": "images/train", "n_sequences": 64},
    "evaluation": {"source": "images/val", "n_sequences": 512},
    "n_search_sequences": 128,
}
"""One of an image classifier."""
