"""Embeddings: where the unquantized model puts sentences, and how far another one is from that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitfront.errors import NonFinite
from bitfront.models.reference import Answers, Reference
from bitfront.models.tasks import SentenceEmbedding, scored_outputs, task_of


@dataclass(frozen=True, eq=False)
class Embeddings(Answers):
    """Normalised embeddings of the unquantized model.

    Args:
        tokens: sentences, int64 `[n_sentences, length]`, -1 where padded.
        vectors: float32 `[n_sentences, width]`, of length 1.
    """

    tokens: Tensor
    vectors: Tensor

    @classmethod
    def of(
        cls, model: nn.Module, tokens: Tensor, progress: Callable[[int, int], None] | None = None
    ) -> Embeddings:
        """Run the unquantized model over sentences, one at a time.

        Args:
            model: the unquantized model.
            tokens: int64 `[n_sentences, length]`, -1 where padded.
            progress: called with `(sentences done, sentences in all)`.

        Raises:
            NonFinite: an embedding is NaN or infinite.
        """
        vectors = []
        for index, sentence in enumerate(tokens):
            vector = scored_outputs(model, sentence)[0].float().cpu()
            if not vector.isfinite().all():
                raise NonFinite(
                    f"The unquantized model embeds sentence {index} as NaN or infinity: "
                    "check its weights, or run it in float32."
                )
            vectors.append(vector)
            if progress:
                progress(index + 1, len(tokens))
        return cls(tokens.cpu(), torch.stack(vectors))

    @property
    def n_scored(self) -> int:
        """One embedding a sentence."""
        return 1

    def divergence(self, outputs: Tensor, index: int) -> Tensor:
        """Cosine error of an embedding, 1 - cos, float32 `[1]`.

            1 - e . e0  =  1/2 |e - e0|^2     for e, e0 of length 1

        The right side is computed: the left one loses all digits where the error is small.

        Args:
            outputs: `[1, width]`, of length 1.
            index: which sentence.
        """
        return (outputs.float() - self.vectors[index].to(outputs.device)).square().sum(dim=-1) / 2

    def gradient(self, outputs: Tensor, rows: slice) -> Tensor:
        """Gradient of the summed cosine error, float32 `[n, 1, width]`: e - e0.

        It differs from that of 1 - e . e0 along e only, which normalising takes out.
        """
        return outputs.float() - self.vectors[rows, None].to(outputs.device)


@dataclass(frozen=True, eq=False)
class EmbeddingLabelLoss:
    """Half the squared distance from labels drawn around the model's own embedding.

        1/2 |e - y|^2,   y = e0 + z,   z ~ N(0, I)

    Its gradient at e0 is -z, whose covariance I is the Hessian of the cosine error
    1 - e . e0 = 1/2 |e - e0|^2 in e. With J the derivative of the embedding by a weight matrix, the
    mean of squared gradients (J^T z)^2 is therefore the diagonal of J^T J: the Gauss-Newton matrix
    of the cosine error, which at the unquantized model is its Hessian, for the residual e - e0 is
    zero there. So half of it times squared weight errors estimates the cosine error itself, as the
    Fisher information of drawn next tokens estimates KL.

    Source: the Fisher information of labels drawn from N(e, I) is the Gauss-Newton matrix of the
    squared distance (Martens, "New insights and perspectives on the natural gradient method", JMLR
    2020, sections 8 and 9); traces from random vectors: Hutchinson (1990).

    Args:
        seed: draws depend on it, the draw and the sentence, not on how passes are cut.
    """

    seed: int

    def __call__(self, outputs: Tensor, rows: slice, draw: int) -> Tensor:
        """-z, float32 `[n, 1, width]`."""
        drawn = []
        for index in range(rows.start, rows.start + len(outputs)):
            generator = torch.Generator().manual_seed(self.seed + 7_919 * draw + 104_729 * index)
            drawn.append(torch.randn(outputs.shape[1:], generator=generator))
        return -torch.stack(drawn).to(outputs.device)


def answers_of(
    model: nn.Module,
    samples: Tensor,
    top_k: int = 512,
    progress: Callable[[int, int], None] | None = None,
    max_perplexity: float = math.inf,
) -> Answers:
    """What the unquantized model answers: `Reference.of`, or `Embeddings.of` of sentences.

    Arguments and errors as theirs.
    """
    if isinstance(task_of(model), SentenceEmbedding):
        return Embeddings.of(model, samples, progress)
    return Reference.of(model, samples, top_k, progress, max_perplexity)
