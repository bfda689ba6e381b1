"""Study: the request. A model, a budget and the choices; no torch, JSON in and out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bitfront import formats, runtimes
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument
from bitfront.experts import Grouping
from bitfront.kv_cache import KVCache
from bitfront.plugins import Choice
from bitfront.runtimes.base import Runtime
from bitfront.seeing import IMAGE_TEXT, SAMPLES

TASKS = ("auto", "text", "images", "sentences", "image-text")
"""What a model is for: `"auto"` looks at its configuration."""
SETTLED_QUANTIZERS = ("gptaq",)
"""Those that read what the layers before have made of the inputs, so that formats must be settled.

A search quantizes each layer once, whatever formats the layers before will have.
"""
_WIKITEXT = "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1"


OFFSET_FORMATS = ("zero", "sign_g64", "int2_g64", "int3_g64", "int4_g64")
OFFSET_PINNED = "int4_g64"
"""Menu of differences, which are smaller and closer to a Gaussian than weights."""


@dataclass(frozen=True)
class TextSource:
    """Where tokens come from and how many are used.

    Args:
        source: a text file, a JSON-lines file (key `text`), or a `datasets` name
            (`name`, `name:config` or `name:config:split`, where `name@revision` names a branch, tag
            or commit).
        n_sequences: how many token blocks.
        sequence_length: tokens of one block.
    """

    source: str
    n_sequences: int = 16
    sequence_length: int = 512

    def __post_init__(self) -> None:
        if self.n_sequences < 1 or self.sequence_length < 8:
            raise InvalidArgument(
                f"Cannot use {self.n_sequences} sequences of {self.sequence_length} tokens: "
                "at least 1 sequence of 8 tokens is needed."
            )

    @property
    def same_blocks(self) -> tuple[str, int]:
        """What decides, but for the number, which blocks are taken."""
        return self.source, self.sequence_length


@dataclass(frozen=True)
class SecondText:
    """Another text whose KL is a second metric, beside that of the texts of the study.

    Args:
        calibration: what the search sees of it.
        evaluation: what its reported values are of.
        layers: which layers it judges in the search `decoupled`: `"auto"` for those that hurt it
            more, or patterns of names, as `SecondLoss.of` has them.
    """

    calibration: TextSource
    evaluation: TextSource
    layers: str = "auto"

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> SecondText:
        """Of the plain fields of JSON."""
        texts = {key: TextSource(**fields[key]) for key in ("calibration", "evaluation")}
        return cls(**{**fields, **texts})


def default_menu(
    runtime: str | None, base: str | None = None
) -> tuple[tuple[str, ...], str | None]:
    """Formats, and that of embedding and head, of a study that names none.

    Args:
        runtime: its runtime.
        base: its base.

    Raises:
        UnknownPlugin: no such runtime.
    """
    if base is not None:
        return OFFSET_FORMATS, OFFSET_PINNED
    if runtime is None:
        return Study.formats, Study.pinned
    profile = runtimes.named(runtime)
    pinned = profile.pinned[0]
    return profile.menu, None if pinned == "bf16" else pinned


@dataclass(frozen=True)
class Study:
    """A search to run.

    Args:
        model: local folder, GGUF file, or hub id.
        budget: size of the result, time per token, or several of these.
        calibration: text that estimators, quantizers and the search itself see.
        evaluation: text of the reported values; no 32 tokens in a row are also in `calibration`.
        formats: names of the menu.
        quantizer, estimator: plug-ins by name with parameters.
        searches: plug-ins that propose in turn and share one history.
        costs: plug-ins whose quantities a trial states; `memory` is one of them. With `roofline`
            the front has latency as a third objective.
        n_pairs: pairs of neighbouring groups whose interaction is measured, for `quadratic`.
        n_trials: measurements on the calibration text for this budget and searches, uniform
            baselines included; all baselines and at least one proposal are always measured.
        max_minutes: stop when measuring proposals, screening them and slopes have taken that long,
            all runs of a results folder together; `None` for no bound. Loading, quantizing,
            estimating and the searches' own time do not count.
        patience: stop when the last so many proposals let the hypervolume over (log kl, cost)
            within 15 % of the budget grow by less than 0.1 %; `None` for never.
        n_parallel: proposals in flight at once: a proposal knows the results of all but the last
            `n_parallel - 1` proposals before it, whenever they end, so that the same seed gives
            the same front on any number of workers.
        n_search_sequences: blocks of calibration text that each of these measures; estimators and
            quantizers never see them.
        n_finalists: allocations of the calibration front that are measured on the evaluation text.
        seed: seed of every random choice.
        tied: whether fused layers (q/k/v, gate/up) share a format.
        experts: what of the routed experts of a block shares a format: `"matrix"` nothing,
            `"expert"` the matrices of an expert, `"cluster:4"` experts that are alike in so many
            clusters, `"block"` all; `"none"` leaves stacked experts at 16 bits.
        pinned: format of embedding and head; `None` leaves them as they are (bf16).
        revision: revision of a hub model.
        dtype: `"float32"`, `"bfloat16"`, or `"auto"` (bfloat16 where hardware is fast at it; with a
            base float32).
        device: `"cpu"`, `"cuda"`, or `"auto"`.
        runtime: profile of the engine that is to load every point: layers that it fuses share a
            format, and what it cannot load is not allowed; `None` for no such bounds.
        tensor_parallel: number of ranks that this engine spreads the weights over.
        kv_cache: formats that the keys and values of each block may take in the cache, searched
            beside the weights under one budget in bytes; `None` leaves the cache as it is.
        base: what `model` was fine-tuned from, named like it (a hub id may end in `@revision`), or
            a folder of packed offsets. Formats are then those of the difference of each layer from
            it, and sizes those of the offset alone. `None` to quantize the weights themselves.
        task: what the model is fed and judged by: `"text"` for next tokens, `"images"` for classes
            of images, `"sentences"` for embeddings of lines of a text, `"image-text"` for next
            tokens about an image; `"auto"` for what its folder says. Images come from folders,
            those with text from a file of samples; a sequence is one image, sentence or sample.
        second: another text, whose KL every trial states too; `None` for none.
        items: JSON lines of multiple-choice items that finalists answer; `None` for none.
    """

    model: str
    budget: Budget
    calibration: TextSource = TextSource(f"{_WIKITEXT}:train")
    evaluation: TextSource = TextSource(f"{_WIKITEXT}:test")
    formats: tuple[str, ...] = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")
    quantizer: Choice = Choice("rtn")
    estimator: Choice = Choice("fisher_directional")
    searches: tuple[Choice, ...] = (Choice("trust_region"), Choice("posterior_ilp"))
    costs: tuple[Choice, ...] = (Choice("memory"),)
    n_pairs: int = 0
    n_trials: int = 32
    max_minutes: float | None = None
    patience: int | None = None
    n_parallel: int = 1
    n_search_sequences: int = 4
    n_finalists: int = 12
    seed: int = 0
    tied: bool = True
    experts: str = "expert"
    pinned: str | None = "int8_g64"
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    runtime: str | None = None
    tensor_parallel: int = 1
    kv_cache: KVCache | None = None
    base: str | None = None
    task: str = "auto"
    second: SecondText | None = None
    items: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_parallel", "n_search_sequences", "n_finalists"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name} is {getattr(self, name)}: give at least 1.")
        if self.n_pairs < 0:
            raise InvalidArgument(f"n_pairs is {self.n_pairs}: give 0 or more.")
        if not self.searches:
            raise InvalidArgument("No search is named: give at least one.")
        for name in ("max_minutes", "patience"):
            if (bound := getattr(self, name)) is not None and not bound > 0:
                raise InvalidArgument(f"{name} is {bound}: give a positive number, or none.")
        if "memory" not in {choice.name for choice in self.costs}:
            raise InvalidArgument("The cost 'memory' is missing: give memory and any others.")
        if self.quantizer.name in SETTLED_QUANTIZERS:
            raise InvalidArgument(
                f"Quantizer {self.quantizer.name} needs the formats of all layers before each, and "
                "a search quantizes before it chooses: there it would be gptq. Search with gptq, "
                f"then `bitfront export RESULTS --requantize {self.quantizer.name}`."
            )
        Grouping.parse(self.experts)
        self.budget.check_costs({choice.name for choice in self.costs})
        if not self.formats:
            raise InvalidArgument("The menu of formats is empty: name at least one.")
        for name in self.formats:
            formats.named(name)
        if self.pinned and formats.named(self.pinned).input_format is not None:
            raise InvalidArgument(
                f"Pinned format {self.pinned!r} rounds inputs, and an embedding has none: "
                f"pin {formats.named(self.pinned).weight_format}."
            )
        if not 0 <= self.seed < 2**32:
            raise InvalidArgument(f"seed is {self.seed}: give a whole number from 0 to 2**32 - 1.")
        if self.dtype not in {"auto", "float32", "bfloat16"}:
            raise InvalidArgument(f"dtype {self.dtype!r}: use auto, float32 or bfloat16.")
        if self.device not in {"auto", "cpu", "cuda"}:
            raise InvalidArgument(f"device {self.device!r}: use auto, cpu or cuda.")
        if self.task not in TASKS:
            raise InvalidArgument(f"task {self.task!r}: use {', '.join(TASKS)}.")
        self._check_runtime()
        self._check_cache()
        self._check_base()

    def _check_base(self) -> None:
        if self.base is None and "zero" in {*self.formats, self.pinned}:
            raise InvalidArgument(
                "Format 'zero' leaves out a whole layer, which only a difference can bear: "
                "name the base that the model was fine-tuned from, or another format."
            )

    def _check_cache(self) -> None:
        if self.kv_cache is None:
            return
        if self.task not in {"auto", "text", IMAGE_TEXT}:
            raise InvalidArgument(f"Models for {self.task} have no KV cache: leave out kv_cache.")
        if not {"bytes", "latency_ns"} & self.budget.bounds().keys():
            raise InvalidArgument(
                f"Budget {self.budget} does not bound the KV cache, whose formats are searched: "
                "give one in bytes, such as 60MB, alone or with others."
            )
        time, cache = self.budget.time, self.kv_cache
        at = cache.batch, cache.context
        if time and (time.batch or at[0], time.context or at[1]) != at:
            raise InvalidArgument(
                f"Budget {time} is not at {cache.point}, where the KV cache is counted: "
                "say both at one batch and context."
            )
        # Samples with images have a length of their own.
        if self.task != IMAGE_TEXT and not self.calibration.source.endswith(SAMPLES):
            cache.check_length(min(text.sequence_length for text in self.texts.values()))
        profile = self.deployment
        if profile is not None and profile.exporter != "packed":
            raise InvalidArgument(
                f"Runtime {profile.name!r} cannot load a KV cache in formats of its own for each "
                "block: search for transformers or without a runtime, or leave out kv_cache."
            )

    def _check_runtime(self) -> None:
        profile = self.deployment
        if profile is None:
            if self.tensor_parallel != 1:
                raise InvalidArgument(
                    f"tensor_parallel is {self.tensor_parallel} without a runtime: name one of "
                    f"{', '.join(runtimes.names())}."
                )
            return
        if self.base is not None:
            raise InvalidArgument(
                f"Runtime {self.runtime!r} cannot load a base and an offset: leave out the runtime "
                "and export with fake_quant for it, or leave out the base."
            )
        for name in self.formats:
            if profile.rule(name) is None:
                raise InvalidArgument(
                    f"Runtime {profile.name!r} cannot load {name}: it takes "
                    f"{', '.join(pattern for rule in profile.rules for pattern in rule.names)}."
                )
        if not profile.pins(self.pinned or "bf16"):
            raise InvalidArgument(
                f"Runtime {profile.name!r} has no {self.pinned or 'bf16'} embedding or head: pin "
                f"{', '.join('none' if each == 'bf16' else each for each in profile.pinned)}."
            )

    @property
    def texts(self) -> dict[str, TextSource]:
        """Every text by name: calibration and evaluation, and those of a second metric."""
        found = {"calibration": self.calibration, "evaluation": self.evaluation}
        if self.second is not None:
            found["second_calibration"] = self.second.calibration
            found["second_evaluation"] = self.second.evaluation
        return found

    def with_texts(self, change: Callable[[str, TextSource], TextSource]) -> Study:
        """The study with each of its texts changed.

        Args:
            change: from the name and the text to the new one.
        """
        new = {name: change(name, text) for name, text in self.texts.items()}
        second = self.second
        if second is not None:
            both = new["second_calibration"], new["second_evaluation"]
            second = replace(second, calibration=both[0], evaluation=both[1])
        first = new["calibration"], new["evaluation"]
        return replace(self, calibration=first[0], evaluation=first[1], second=second)

    def check_texts(self) -> None:
        """Refuse one text for what searches see and for what is reported, before it is read.

        Whatever it is, the blocks of both would be the same ones.

        Raises:
            InvalidArgument: names the text.
        """
        more = [self.second] if self.second else []
        seen = {x.same_blocks for x in (self.calibration, *(y.calibration for y in more))}
        for text in (self.evaluation, *(x.evaluation for x in more)):
            if text.same_blocks in seen:
                raise InvalidArgument(
                    f"Text {text.source!r} is given for calibration and for evaluation: what the "
                    "search sees and what is reported must be two texts."
                )

    @property
    def deployment(self) -> Runtime | None:
        """What the engine of `runtime` loads."""
        return runtimes.named(self.runtime, self.tensor_parallel) if self.runtime else None

    @property
    def digest(self) -> str:
        """SHA-256 of the request, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it back."""
        fields = asdict(self) | {"budget": self.budget.to_fields()}
        for name in ("kv_cache", "base", "second", "items"):
            if fields[name] is None:  # without it a study has the digest that it always had
                del fields[name]
        if self.task == "auto":  # likewise
            del fields["task"]
        return json.dumps(fields, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """Inverse of `to_json`.

        Raises:
            InvalidArgument: not the JSON of a study.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            for key in ("quantizer", "estimator"):
                fields[key] = Choice(**fields[key])
            for key in ("searches", "costs"):
                fields[key] = tuple(Choice(**each) for each in fields[key])
            for key in ("calibration", "evaluation"):
                fields[key] = TextSource(**fields[key])
            fields["budget"] = Budget.from_fields(fields["budget"])
            fields["formats"] = tuple(fields["formats"])
            if fields.get("kv_cache") is not None:
                fields["kv_cache"] = KVCache.from_fields(fields["kv_cache"])
            if fields.get("second") is not None:
                fields["second"] = SecondText.from_fields(fields["second"])
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"Not the JSON of a study: {error}.") from error
