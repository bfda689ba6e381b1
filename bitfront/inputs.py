"""What a study starts from: model, search space, texts, and the digests that identify them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bitfront import formats
from bitfront.errors import InvalidText
from bitfront.models.bank import WeightBank
from bitfront.models.data import digest, token_blocks
from bitfront.models.layers import search_space
from bitfront.models.load import LoadedModel, load_model
from bitfront.models.statistics import InputGrams
from bitfront.quantizers import QUANTIZERS
from bitfront.results import text_digest
from bitfront.search import SEARCHES
from bitfront.sensitivity import ESTIMATORS
from bitfront.space import SearchSpace
from bitfront.study import Study, TextSource
from bitfront.trial import Trial
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


def silent(event: Event) -> None:
    """Report nothing."""


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


def prepare(study: Study, progress: Progress = silent) -> Inputs:
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
    study: Study, inputs: Inputs, directory: Path, progress: Progress = silent
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
        counted(progress, "quantize"),
    )


def counted(progress: Progress, stage: str) -> Callable[[int, int], None]:
    """A callback of `(done, total)` that reports one stage."""
    return lambda done, total: progress(Event(stage, done, total))


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
