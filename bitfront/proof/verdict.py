"""Verdict: how close what an engine predicts is to what it should."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from bitfront.errors import MismatchedArtifact
from bitfront.runtimes.base import Logits, Tolerance

_LEAST = -87.0
"""Smallest log-probability: what an engine says of the impossible is no number to compare."""
_LEAST_REST = 1e-7
"""Smallest probability of all that is not told: it is a difference of float32 numbers."""


@dataclass(frozen=True)
class Distance:
    """How far predictions are from others.

    Args:
        mean_kl: KL(ours || theirs) in nats, mean over tokens.
        max_kl: of the worst token.
        top1_agreement: share of tokens whose most likely next token is the same.
        n_tokens: how many there are.
        n_words: of the vocabulary that were compared.
    """

    mean_kl: float
    max_kl: float
    top1_agreement: float
    n_tokens: int
    n_words: int

    @classmethod
    def of(cls, ours: Logits, theirs: Logits) -> Distance:
        """Compare logits or log-probabilities `[n, length, vocabulary]`.

        An engine may leave out the last token, and words that are only padding. Those that it does
        not tell (minus infinity) count as one outcome, which can only lower a KL.

        Raises:
            MismatchedArtifact: they are of other sequences, of none, or of another length.
        """
        n, length = ours.shape[:2]
        at_most = (n, length), (n, length - 1)
        if theirs.ndim != 3 or theirs.shape[:2] not in at_most or 0 in theirs.shape:
            raise MismatchedArtifact(
                f"The engine told {' x '.join(map(str, theirs.shape))} numbers for {n} sequences "
                f"of {length} tokens: it must tell what follows each, or each but the last."
            )
        length, words = (min(a, b) for a, b in zip(ours.shape[1:], theirs.shape[1:], strict=True))
        p, q = (x[:, :length, :words].astype(np.float64) for x in (ours, theirs))
        p, is_told = log_softmax(p, axis=-1), q != -np.inf
        q = log_softmax(q, axis=-1) if is_told.all() else q
        told = np.where(is_told, np.exp(p) * (p - np.maximum(q, _LEAST)), 0.0).sum(axis=-1)
        rest_p, rest_q = (_rest(x, is_told) for x in (p, q))
        kl = told + rest_p * np.log(rest_p / rest_q)
        agrees = p.argmax(axis=-1) == q.argmax(axis=-1)
        return cls(float(kl.mean()), float(kl.max()), float(agrees.mean()), kl.size, words)

    def beyond(self, tolerance: Tolerance, n_words: int) -> tuple[str, ...]:
        """One line for each bound that is not kept; not-a-number keeps none.

        Args:
            tolerance: the bounds.
            n_words: of the model's own vocabulary, without padding, all of which must be compared.
        """
        lines = []
        if self.n_words < n_words:
            lines.append(f"n_words is {self.n_words:,}, the model has {n_words:,}.")
        for name in ("mean_kl", "max_kl"):
            value, bound = getattr(self, name), getattr(tolerance, name)
            if not value <= bound:
                lines.append(f"{name} is {value:.2g}, at most {bound:.2g} is allowed.")
        if not self.top1_agreement >= tolerance.top1_agreement:
            lines.append(
                f"top1_agreement is {self.top1_agreement:.1%}, at least "
                f"{tolerance.top1_agreement:.1%} is needed."
            )
        return tuple(lines)


def widened(tolerance: Tolerance, noise: Distance) -> Tolerance:
    """A tolerance and twice a distance that says nothing of the weights."""
    return replace(
        tolerance,
        mean_kl=tolerance.mean_kl + 2 * noise.mean_kl,
        max_kl=tolerance.max_kl + 2 * noise.max_kl,
        top1_agreement=tolerance.top1_agreement - 2 * (1 - noise.top1_agreement),
    )


@dataclass(frozen=True)
class Verdict:
    """What `bitfront check` found.

    Args:
        runtime: profile.
        engine: package that ran.
        version: its version.
        exporter: what wrote the checkpoint.
        reasons: why it fails, one line each; none where it holds.
        distance: of the engine's predictions from our own; `None` where it did not load.
        tolerance: what is allowed.
        seconds: it took.
        manifest: SHA-256 of the manifest, which has those of the files.
        note: what else is to be known.
    """

    runtime: str
    engine: str
    version: str
    exporter: str
    reasons: tuple[str, ...]
    distance: Distance | None
    tolerance: Tolerance
    seconds: float
    manifest: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the engine predicts what it should."""
        return not self.reasons

    def to_json(self) -> str:
        """Indented JSON; numbers that are none become null."""
        fields = {"verdict": "PASS" if self.holds else "FAIL", **asdict(self)}
        for name, value in (fields["distance"] or {}).items():
            fields["distance"][name] = value if math.isfinite(value) else None
        return json.dumps(fields, indent=1)

    def __str__(self) -> str:
        said = f"{self.engine} {self.version}"
        if (d := self.distance) is not None:
            said += (
                f": mean KL {d.mean_kl:.2g}, max {d.max_kl:.2g}, same top-1 "
                f"{d.top1_agreement:.1%} of {d.n_tokens} tokens, {self.seconds:.1f} s"
            )
        reasons = f": {' '.join(self.reasons)}" if self.reasons else ""
        note = f" ({self.note})" if self.note else ""
        return f"{'PASS' if self.holds else 'FAIL'} {said}{note}{reasons}"


def _rest(x: NDArray[np.float64], is_told: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of all that is not told; the same small number where that is nothing."""
    told: NDArray[np.float64] = np.where(is_told, np.exp(x), 0.0).sum(axis=-1)
    return np.where(is_told.all(axis=-1), _LEAST_REST, np.maximum(1.0 - told, _LEAST_REST))
