"""Reference: what the unquantized model predicts, compressed to the top K of each token."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from bitfront.errors import InvalidArgument, InvalidText, MismatchedArtifact, NonFinite
from bitfront.files import replacing
from bitfront.kernels.base import is_fused
from bitfront.models.data import digest
from bitfront.models.tasks import TEXT, CausalText, device_of, scored_outputs, task_of

_CHUNK = 2**20
"""Logits at a time: 4 MB of float32 stay in a processor's cache."""


class Answers(ABC):
    """What the unquantized model answers on samples, and how far another model is from that."""

    tokens: torch.Tensor
    """The samples."""

    @property
    @abstractmethod
    def n_scored(self) -> int:
        """Outputs for a sample that are judged."""

    @abstractmethod
    def divergence(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        """What searches minimize, of each judged output, float32 `[n_scored]`; differentiable.

        Args:
            outputs: of another model, `[n_scored, size]`.
            index: which sample.
        """

    @abstractmethod
    def gradient(self, outputs: torch.Tensor, rows: slice) -> torch.Tensor:
        """Gradient of the summed divergence, float32 `[n, n_outputs, size]`; 0 where not judged.

        Args:
            outputs: of another model, of that shape.
            rows: which samples.
        """

    def first(self, n_samples: int) -> Self:
        """That of the first samples alone; shares memory with the whole."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: None if x is None else x[:n_samples] for k, x in parts.items()})

    def save(self, path: Path, model: str) -> None:
        """Write to a safetensors file that remembers model and samples.

        Args:
            path: the file.
            model: what tells the model from others, its dtype included.

        Raises:
            StorageError: the file could not be written; what was there before is untouched.
        """
        tensors = {name: getattr(self, name).contiguous() for name in self._stored()}
        content = save(tensors, {"digest": _artifact_digest(model, self.tokens)})
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(cls, path: Path, model: str, tokens: torch.Tensor) -> Self:
        """Read what `save` wrote.

        Raises:
            MismatchedArtifact: another model or text made the file, or it is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                stored = (file.metadata() or {}).get("digest")
                if stored == _artifact_digest(model, tokens):
                    return cls(**{name: file.get_tensor(name) for name in cls._stored()})
        except (OSError, SafetensorError) as error:
            raise MismatchedArtifact(f"Cannot read reference {path}: {error}.") from error
        raise MismatchedArtifact(
            f"Reference {path} belongs to another model or text: remove it or use another folder."
        )

    @classmethod
    def _stored(cls) -> list[str]:
        return [f.name for f in fields(cls) if f.name != "labels"]  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Reference(Answers):
    """Top-K log-probabilities and tail mass of the unquantized model on token blocks.

    KL is computed over K + 1 outcomes: the K most likely tokens of the unquantized model, and
    "any other". Merging outcomes can only lower a KL, so it is a lower bound of the dense one; at
    K = 512 a token costs 4 KB where dense logits of a 128k vocabulary cost 512 KB.

    Args:
        tokens: int64 `[n_sequences, sequence_length]`.
        indices: int32 `[n_sequences, n_scored, K]`, most likely first; `n_scored` is
            `sequence_length - 1`, every position that has a next token.
        log_probs: float32 `[n_sequences, n_scored, K]`.
        log_tail: float32 `[n_sequences, n_scored]`, log of the mass outside the top K, at least
            about -87.
        labels: of images, int64 `[n_sequences]`, `None` where they have none; not part of what is
            stored. A text holds its own.
    """

    tokens: torch.Tensor
    indices: torch.Tensor
    log_probs: torch.Tensor
    log_tail: torch.Tensor
    labels: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tokens: torch.Tensor,
        top_k: int = 512,
        progress: Callable[[int, int], None] | None = None,
        max_perplexity: float = math.inf,
    ) -> Reference:
        """Run the unquantized model over `tokens`, one sequence at a time.

        Args:
            model: the unquantized model.
            tokens: int64 `[n_sequences, sequence_length]`.
            top_k: tokens kept per position.
            progress: called with `(sequences done, sequences in all)`.
            max_perplexity: of the tokens; guessing has the size of the vocabulary. Only causal
                models are held to it: what one that sees later tokens makes of the next is nothing
                it was trained for.

        Raises:
            InvalidArgument: `top_k` is not positive.
            InvalidText: a causal model has a perplexity above `max_perplexity`.
            NonFinite: the model predicts NaN or infinity.
        """
        if top_k < 1:
            raise InvalidArgument(f"top_k is {top_k}: give at least 1.")
        task, sequences, losses = task_of(model), [], []
        for index, sequence in enumerate(tokens):
            logits = scored_outputs(model, sequence)
            if not logits.isfinite().all():
                raise NonFinite(
                    f"The unquantized model predicts NaN or infinity on sequence {index}: "
                    "check its weights, or run it in float32."
                )
            sequences.append(_compressed(logits, min(top_k, logits.shape[-1])))
            losses.append(task.loss(logits, task.targets(sequence, logits)).item())
            if progress:
                progress(index + 1, len(tokens))
        loss = sum(losses) / len(losses)
        badly = isinstance(task, CausalText) and loss > math.log(max_perplexity)
        if badly and is_causal(model, tokens[0]):
            raise InvalidText(
                f"The unquantized model predicts the text worse than guessing (log-perplexity "
                f"{loss:.1f}): its tokenizer is of another model, or the text unlike all it knows."
            )
        indices, log_probs, log_tail = (torch.stack(x) for x in zip(*sequences, strict=True))
        return cls(tokens.cpu(), indices, log_probs, log_tail)

    @property
    def top_k(self) -> int:
        """Tokens kept per position: at most the vocabulary."""
        return self.indices.shape[-1]

    @property
    def n_scored(self) -> int:
        """Predictions of a sequence that are judged."""
        return self.log_tail.shape[1]

    def next_tokens(self, index: int) -> torch.Tensor:
        """The tokens to be predicted in a sequence, int64 `[n_scored]`."""
        return self.tokens[index, 1:]

    def labels_of(self, index: int) -> torch.Tensor | None:
        """What is right for a sample, int64 `[n_scored]`, if that is known."""
        if self.labels is not None:
            return self.labels[index : index + 1]
        return None if self.tokens.is_floating_point() else self.next_tokens(index)

    def argmax(self, index: int) -> torch.Tensor:
        """The unquantized model's most likely token at each position, int64 `[n_scored]`."""
        return self.indices[index, :, 0].long()

    def divergence(self, outputs: torch.Tensor, index: int) -> torch.Tensor:
        """See `Answers.divergence`: the KL."""
        return self.kl(outputs, index)

    def gradient(self, outputs: torch.Tensor, rows: slice) -> torch.Tensor:
        """`q - p`, where the tail of p is spread as that of q; see `Answers.gradient`."""
        gradient = torch.softmax(outputs.float(), dim=-1)
        gradient[:, self.n_scored :] = 0
        q = gradient[:, : self.n_scored]
        indices = self.indices[rows].to(q.device).long()
        top = q.gather(-1, indices) - self.log_probs[rows].to(q.device).exp()
        q.scatter_(-1, indices, 0.0)
        tail = self.log_tail[rows, :, None].to(q.device).exp()
        # A tail that underflows is all zeros: the bound keeps 0 * infinity out.
        q *= 1 - tail / q.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
        q.scatter_(-1, indices, top)
        return gradient

    def kl(self, logits: torch.Tensor, index: int) -> torch.Tensor:
        """KL(unquantized || logits) in nats per token, float32 `[n_scored]`.

            sum over top K of p (log p - log q)  +  p_tail (log p_tail - log q_tail)

        The tail of q is summed over the tokens outside the top K, not taken as `1 - sum q`: that
        difference loses all digits when the tail is small. Equal logits give exactly 0, and
        rounding enters squared, so that a KL of 1e-9 is still above noise.

        Args:
            logits: `[n_scored, vocabulary]`, any float dtype; left untouched. Differentiable.
            index: which sequence they belong to.
        """
        size = _chunk_rows(logits)
        parts = [
            self._kl_rows(rows, index, n * size) for n, rows in enumerate(torch.split(logits, size))
        ]
        return torch.cat(parts)

    def _kl_rows(self, logits: torch.Tensor, index: int, start: int) -> torch.Tensor:
        rows = slice(start, start + len(logits))
        log_p = self.log_probs[index, rows].to(logits.device)
        log_p_tail = self.log_tail[index, rows].to(logits.device)
        indices = self.indices[index, rows].to(logits.device)
        if is_fused(logits):
            from bitfront.kernels.kl_divergence import kl_divergence

            kl: torch.Tensor = kl_divergence(logits, indices, log_p, log_p_tail)
            return kl
        log_q, log_q_tail = _split(logits, indices)
        return _outcomes(log_p, log_q).sum(dim=-1) + _outcomes(log_p_tail, log_q_tail)


def is_causal(model: nn.Module, sequence: torch.Tensor) -> bool:
    """Whether what a model predicts is the same whatever tokens come later: two short passes.

    Args:
        model: language model, or one that sees, whose text has no image then.
        sequence: any token ids, int64 `[sequence_length]`, at least 2.
    """
    short = sequence[:16].to(device_of(model))
    n_kept = len(short) // 2
    other = torch.cat([short[:n_kept], (short[n_kept:] - 1).abs()])
    with torch.no_grad():
        first, second = (TEXT.outputs(model, x[None])[0, :n_kept] for x in (short, other))
    # Experts round differently with the tokens that they share a product with.
    tolerance = math.sqrt(torch.finfo(first.dtype).eps) * first.float().std()
    return bool((first.float() - second.float()).abs().max() <= tolerance)


def _compressed(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, ...]:
    parts = []
    for rows in torch.split(logits, _chunk_rows(logits)):
        indices = rows.float().topk(top_k, dim=-1).indices
        parts.append((indices.int(), *_split(rows, indices)))
    return tuple(torch.cat(x).cpu() for x in zip(*parts, strict=True))


def _chunk_rows(logits: torch.Tensor) -> int:
    return max(1, _CHUNK // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)


def _split(logits: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities at `indices` `[n, K]` and log of the remaining mass `[n]`."""
    if is_fused(logits):
        from bitfront.kernels.kl_divergence import top_log_probs

        top_and_tail: tuple[torch.Tensor, torch.Tensor] = top_log_probs(logits, indices)
        return top_and_tail
    logits, indices = logits.float(), indices.long()
    largest = logits.detach().amax(dim=-1, keepdim=True)
    top = logits.gather(-1, indices) - largest
    rest = (logits - largest).scatter_(-1, indices, -torch.inf).exp_().sum(dim=-1)
    normalizer = (top.exp().sum(dim=-1) + rest).log()
    # An empty tail (K is the vocabulary) becomes e^-87: its share of any KL is 0 in float32.
    log_tail = rest.clamp(min=torch.finfo(torch.float32).tiny).log() - normalizer
    return top - normalizer[:, None], log_tail


def _outcomes(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Contribution `p (log p - log q) + (q - p)` of each outcome, at least 0.

    The added `q - p` sums to 0 over all outcomes. It makes the contribution of second order in
    `log p - log q`, where a plain sum of first-order terms of both signs drowns in rounding.
    """
    p, ratio = log_p.exp(), log_p - log_q
    near = ratio.clamp(-1, 1)
    rise = torch.where(near == ratio, p * torch.expm1(-near), log_q.exp() - p)
    return p * ratio + rise


def _artifact_digest(model: str, tokens: torch.Tensor) -> str:
    return hashlib.sha256(f"{model} {digest(tokens)}".encode()).hexdigest()
