"""Task: how a model is run on samples, and what of its outputs is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from bitfront.errors import InvalidArgument, InvalidText
from bitfront.seeing import architectures, task_that_sees


class Task(ABC):
    """What a kind of model is fed and judged by; nothing else knows how to call a model.

    Samples are one tensor whose first dimension counts them; outputs are float
    `[n_samples, n_outputs, size]`, of which some are scored.
    """

    name: ClassVar[str]
    """What a study calls it."""

    fed: ClassVar[str]
    """What samples are, in messages."""

    metrics: ClassVar[tuple[str, ...]]
    """Names of what a trial measures, that of `loss_name` first."""

    loss_name: ClassVar[str] = "kl"
    """What searches minimize, by its name in a trial's values."""

    alone: ClassVar[bool] = False
    """Whether samples go through a model one by one: others would pad them."""

    decodes: ClassVar[bool] = False
    """Whether models say token after token, with a cache of keys and values."""

    @abstractmethod
    def outputs(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Run a model on a batch, `[n_samples, n_outputs, size]`; differentiable.

        Args:
            model: of this task.
            samples: on its device.
        """

    def n_scored(self, samples: Tensor) -> int:
        """How many outputs for a sample are judged: the first so many."""
        return 1

    def labels(self, samples: Tensor) -> Tensor | None:
        """What samples say of their outputs, int64 `[n_samples, n_scored]`; `None` if nothing."""
        return None

    @abstractmethod
    def targets(self, sample: Tensor, scored: Tensor) -> Tensor:
        """What `loss` holds the outputs for one sample against.

        Args:
            sample: as the model is fed.
            scored: what the unquantized model answers, `[n_scored, size]`, without gradients.
        """

    @abstractmethod
    def loss(self, scored: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of the outputs `[n_scored, size]` for one sample; twice differentiable."""

    @abstractmethod
    def probe(self, model: nn.Module) -> Tensor:
        """One small sample that every model of the task can be run on, on its device."""

    @abstractmethod
    def n_positions(self, samples: Tensor) -> int:
        """About how many positions one sample has inside a model: what memory grows with."""

    def span(self, samples: Tensor) -> int:
        """Positions of a sample up to the last that is predicted."""
        return self.n_positions(samples)

    def weights(self, n_positions: int) -> Tensor | None:
        """Weight of each of so many positions in input statistics, mean 1; `None` for the same."""
        return None

    @abstractmethod
    def check(self, samples: Tensor) -> None:
        """Refuse what gives no gradients.

        Raises:
            InvalidText: nothing to predict.
        """


@dataclass(frozen=True)
class CausalText(Task):
    """Next tokens: samples are token ids, int64 `[n_sequences, length]`, outputs logits.

    Position t predicts token t + 1, so that the last one is not scored.
    """

    name = "text"
    fed = "token ids"
    metrics = ("kl_divergence", "perplexity", "top1_error")
    decodes = True

    def outputs(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Logits `[n_sequences, length, vocabulary]`."""
        logits: Tensor = model(samples, use_cache=False).logits
        return logits

    def n_scored(self, samples: Tensor) -> int:
        """Positions that have a next token."""
        return samples.shape[1] - 1

    def labels(self, samples: Tensor) -> Tensor:
        """The next tokens."""
        return samples[:, 1:]

    def targets(self, sample: Tensor, scored: Tensor) -> Tensor:
        """The next tokens of the text."""
        return sample[1:].to(scored.device)

    def loss(self, scored: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats per token."""
        return cross_entropy(scored.float(), targets)

    def probe(self, model: nn.Module) -> Tensor:
        """Two tokens."""
        return torch.zeros(1, 2, dtype=torch.long, device=device_of(model))

    def n_positions(self, samples: Tensor) -> int:
        """Tokens of a sequence."""
        return samples.shape[1]

    def check(self, samples: Tensor) -> None:
        """See `Task.check`."""
        if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] < 2:
            raise InvalidText(
                f"Gradients need token blocks of at least 1 x 2, given shape "
                f"{tuple(samples.shape)}: use more or longer text."
            )


@dataclass(frozen=True)
class ImageClassification(Task):
    """Classes of images: samples are pixels, float32 `[n_images, channels, height, width]`.

    Outputs are logits `[n_images, 1, n_classes]`.
    """

    name = "images"
    fed = "pixels"
    metrics = ("kl_divergence", "top1_error", "label_error")

    def outputs(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Logits `[n_images, 1, n_classes]`."""
        logits: Tensor = model(samples.to(_dtype_of(model))).logits
        return logits[:, None]

    def targets(self, sample: Tensor, scored: Tensor) -> Tensor:
        """The unquantized model's own chances `[1, n_classes]`: pictures need no labels for that.

        The Hessian of the loss is then the Fisher information, with no term of residuals.
        """
        return scored.float().softmax(dim=-1)

    def loss(self, scored: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats per image."""
        return cross_entropy(scored.float(), targets)

    def probe(self, model: nn.Module) -> Tensor:
        """A black image of the size that the configuration states, 224 pixels where it does not."""
        config: Any = model.config
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        n_channels = getattr(config, "num_channels", 3)
        if stated := (getattr(config, "pretrained_cfg", None) or {}).get("input_size"):  # timm
            n_channels, height, width = stated
        return torch.zeros(1, n_channels, height, width, device=device_of(model))

    def n_positions(self, samples: Tensor) -> int:
        """One for 8 x 8 pixels: between the patches of small models and those of large ones."""
        return max(1, samples.shape[-2] * samples.shape[-1] // 64)

    def check(self, samples: Tensor) -> None:
        """See `Task.check`."""
        if samples.ndim != 4 or len(samples) < 1:
            raise InvalidText(
                f"Gradients need at least one image, given shape {tuple(samples.shape)}: "
                "use more images."
            )


@dataclass(frozen=True)
class SentenceEmbedding(Task):
    """Embeddings of sentences: samples are token ids, int64 `[n_sentences, length]`, -1 = padding.

    Outputs are embeddings of length 1, `[n_sentences, 1, width]`.

    Args:
        pooling: `"mean"` of the states of all tokens, their `"max"`, or the state of the first
            (`"cls"`).
    """

    pooling: str = "mean"

    name = "sentences"
    fed = "token ids"
    metrics = ("cosine_error", "rank_correlation")
    loss_name = "cosine_error"
    alone = True

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InvalidArgument(f"Unknown pooling {self.pooling!r}: use {', '.join(POOLINGS)}.")

    def outputs(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Normalised embeddings; columns that are padding in all sentences are left out."""
        lengths = (samples >= 0).sum(dim=1)
        samples = samples[:, : int(lengths.max())]
        mask = samples >= 0
        config: Any = model.config
        filler = getattr(config, "pad_token_id", None) or 0
        states = model(samples.where(mask, filler), attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        elif self.pooling == "max":
            pooled = states.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        else:
            pooled = (states * mask[..., None]).sum(dim=1) / lengths[:, None]
        return normalize(pooled.float(), dim=-1)[:, None]

    def targets(self, sample: Tensor, scored: Tensor) -> Tensor:
        """The unquantized model's own embedding."""
        return scored

    def loss(self, scored: Tensor, targets: Tensor) -> Tensor:
        """Cosine error, as half the squared distance of vectors of length 1."""
        return (scored - targets).square().sum(dim=-1).mean() / 2

    def probe(self, model: nn.Module) -> Tensor:
        """Two tokens."""
        return TEXT.probe(model)

    def n_positions(self, samples: Tensor) -> int:
        """Tokens of the longest sentence."""
        return samples.shape[1]

    def check(self, samples: Tensor) -> None:
        """See `Task.check`."""
        if samples.ndim != 2 or len(samples) < 1:
            raise InvalidText(
                f"Gradients need at least one sentence, given shape {tuple(samples.shape)}: "
                "use more sentences."
            )


POOLINGS = ("mean", "cls", "max")
_GIVEN, _CLASSIFIES = "_bitfront_task", "ForImageClassification"

TEXT, IMAGES = CausalText(), ImageClassification()


_HEADLESS = {
    name
    for names in MODEL_MAPPING_NAMES.values()
    for name in ([names] if isinstance(names, str) else names)
}
"""Classes such as `BertModel`; `GPT2LMHeadModel` is none of them."""


def task_of(model: nn.Module) -> Task:
    """The task that a model was given by `set_task`, else that of its class, else causal text."""
    given = getattr(model, _GIVEN, None)
    if isinstance(given, Task):
        return given
    return IMAGES if _CLASSIFIES in type(model).__name__ else TEXT


def task_named(config: Mapping[str, Any]) -> str:
    """Name of the task that a config.json speaks of: text where it speaks of none.

    Encoders without a head (`BertModel`) are for sentences.
    """
    if (task := task_that_sees(config)) is not None:
        return task
    names = architectures(config)
    return "sentences" if names and all(name in _HEADLESS for name in names) else "text"


def set_task(model: nn.Module, task: Task) -> None:
    """Say how a model is run whose class does not tell; copies of it remember."""
    setattr(model, _GIVEN, task)


def check_language_model(model: nn.Module, what: str, source: object, instead: str) -> None:
    """Refuse models for anything but text.

    Args:
        model: the model.
        what: is for language models only, as a sentence that ends in its preposition.
        source: of the model, for the message.
        instead: what to do.

    Raises:
        InvalidArgument: of `no_language_model`.
    """
    if not isinstance(task_of(model), CausalText):
        raise no_language_model(what, source, instead)


def no_language_model(what: str, source: object, instead: str) -> InvalidArgument:
    """The refusal of `check_language_model`."""
    return InvalidArgument(f"{what} language models only, and {source} is none: {instead}.")


def run(model: nn.Module, samples: Tensor) -> Tensor:
    """`Task.outputs` of a model on samples that may lie on another device."""
    return task_of(model).outputs(model, samples.to(device_of(model)))


def scored_outputs(model: nn.Module, sample: Tensor) -> Tensor:
    """What is judged of the outputs for one sample, `[n_scored, size]`, without gradients."""
    with torch.no_grad():
        outputs = run(model, sample[None])
    return outputs[0, : task_of(model).n_scored(sample[None])]


def mean_loss(model: nn.Module, sample: Tensor) -> Tensor:
    """Mean loss of the outputs for one sample against its own targets; twice differentiable."""
    task = task_of(model)
    scored = run(model, sample[None])[0, : task.n_scored(sample[None])]
    return task.loss(scored, task.targets(sample, scored.detach()))


def device_of(model: nn.Module) -> torch.device:
    """Where a model is fed."""
    return next(model.parameters()).device


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
