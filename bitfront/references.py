"""What the unquantized model predicts of the texts of a study, kept in its results folder."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import torch

from bitfront.errors import InvalidText, MismatchedArtifact
from bitfront.inputs import Inputs
from bitfront.models.embeddings import Embeddings, answers_of
from bitfront.models.reference import Answers, Reference
from bitfront.models.tasks import SentenceEmbedding, task_of
from bitfront.progress import Progress, counted
from bitfront.results import Results
from bitfront.study import SecondText, Study


def reference_of(
    study: Study, results: Results, inputs: Inputs, text: str, progress: Progress
) -> Answers:
    """The stored one where it is of this model and text, else a new one, stored at once.

    Args:
        study: names the texts.
        results: its folder, held by this process.
        inputs: the unquantized model and the blocks.
        text: one of `Inputs.tokens`.
        progress: called as the work goes on.

    Raises:
        InvalidText: the model cannot predict the text at all.
    """
    path, source = results.reference(text), inputs.model_identity
    labels = inputs.labels.get(text)
    if path.exists():
        with suppress(MismatchedArtifact):
            is_embedding = isinstance(task_of(inputs.model.module), SentenceEmbedding)
            kind: type[Answers] = Embeddings if is_embedding else Reference
            return _labelled(kind.load(path, source, inputs.tokens[text]), labels)
    reference = _made(study, inputs, text, progress)
    reference.save(path, source)
    return _labelled(reference, labels)


def _labelled(answers: Answers, labels: torch.Tensor | None) -> Answers:
    return replace(answers, labels=labels) if isinstance(answers, Reference) else answers


def _made(study: Study, inputs: Inputs, text: str, progress: Progress) -> Answers:
    try:
        return answers_of(
            inputs.model.module,
            inputs.tokens[text],
            progress=counted(progress, "reference"),
            # Twice that of guessing: a model with random weights is a little worse than it.
            max_perplexity=2 * (inputs.model.n_rows or math.inf),
        )
    except InvalidText as error:
        source = _source(study, text)
        raise InvalidText(f"Cannot use {text} text {source!r}: {error}") from error


def _source(study: Study, text: str) -> str:
    texts: Study | SecondText = study
    if study.second is not None and text.startswith("second_"):
        texts = study.second
    return (texts.evaluation if text.endswith("evaluation") else texts.calibration).source
