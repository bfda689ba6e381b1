"""Samples: what a model is fed of a text or a folder of images, with labels where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bitfront.errors import InvalidText
from bitfront.models.data import check_disjoint, starting_ids, token_blocks
from bitfront.models.image_text import ImageText, check_none_shared, read_samples
from bitfront.models.images import check_different, read_images
from bitfront.models.load import LoadedModel
from bitfront.models.sentences import check_other_sentences, sentence_tokens
from bitfront.models.tasks import ImageClassification, SentenceEmbedding, set_task, task_of
from bitfront.study import TextSource


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a task.

    Args:
        inputs: what the model is fed, first dimension `n_samples`; see the tasks.
        labels: int64 `[n_samples]`; `None` where they have none, or hold them.
    """

    inputs: torch.Tensor
    labels: torch.Tensor | None = None

    def __getitem__(self, rows: slice) -> Samples:
        """Some of them; shares memory with the whole."""
        return Samples(self.inputs[rows], None if self.labels is None else self.labels[rows])


def samples_of(source: TextSource, model: LoadedModel, seed: int, n_samples: int) -> Samples:
    """Random samples of a text or a folder of images.

    Args:
        source: where they are from.
        model: what they are for.
        seed: which.
        n_samples: how many.

    Raises:
        InvalidText: too few, unreadable, or with tokens or labels that the model lacks.
    """
    task = task_of(model.module)
    if isinstance(task, ImageClassification):
        config: Any = model.module.config
        return Samples(
            *read_images(source.source, model.tokenizer, config.id2label, n_samples, seed)
        )
    if isinstance(task, ImageText):
        layout, inputs = read_samples(source.source, task, n_samples, seed)
        _check_ids(layout.tokens(inputs), source, model)
        set_task(model.module, layout)
        return Samples(inputs)
    read = sentence_tokens if isinstance(task, SentenceEmbedding) else token_blocks
    tokens = read(source.source, model.tokenizer, n_samples, source.sequence_length, seed)
    _check_ids(tokens, source, model)
    return Samples(tokens)


def _check_ids(tokens: torch.Tensor, source: TextSource, model: LoadedModel) -> None:
    if (largest := int(tokens.max())) >= model.n_rows:
        raise InvalidText(
            f"{source.source} has token id {largest}, the embedding of {model.source} has "
            f"{model.n_rows} rows: its tokenizer is of another model, or the text not for this one."
        )


def check_apart(
    calibration: Samples, evaluation: Samples, sources: tuple[str, str], model: LoadedModel
) -> None:
    """Check that samples of calibration and evaluation share nothing.

    Raises:
        InvalidText: they do.
    """
    task = task_of(model.module)
    if isinstance(task, ImageClassification):
        check_different(calibration.inputs, evaluation.inputs, sources)
    elif isinstance(task, ImageText):
        check_none_shared(calibration.inputs, evaluation.inputs, sources)
    elif isinstance(task, SentenceEmbedding):
        check_other_sentences(calibration.inputs, evaluation.inputs, sources)
    else:
        n_starting = len(starting_ids(model.tokenizer))
        check_disjoint(calibration.inputs, evaluation.inputs, *sources, n_starting)
