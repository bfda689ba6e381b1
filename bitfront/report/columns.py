"""The columns of a table of front points, the same in the terminal and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bitfront.trial import Trial


@dataclass(frozen=True)
class Column:
    """A heading and the text of a trial under it."""

    title: str
    text: Callable[[Trial], str]


def number(trial: Trial, quantity: str, spec: str, scale: float = 1.0) -> str:
    """A measured value as text; a dash where it was not measured."""
    return f"{trial.values[quantity] * scale:{spec}}" if quantity in trial.values else "–"


def mix(trial: Trial) -> str:
    """How many layers have each format, most frequent first: `"int4_g64 ×120, int3_g64 ×90"`."""
    counts = Counter(trial.allocation.formats.values()).most_common()
    return ", ".join(f"{name} ×{count}" for name, count in counts)


def _kl(trial: Trial) -> str:
    error = f" ± {trial.values['kl_stderr']:.1g}" if "kl_stderr" in trial.values else ""
    return number(trial, "kl", ".4g") + error


COLUMNS = (
    Column("trial", lambda t: str(t.number)),
    Column("KL ± stderr", _kl),
    Column("ppl", lambda t: number(t, "perplexity", ".2f")),
    Column("top-1 err", lambda t: number(t, "top1_error", ".1%")),
    Column("bits", lambda t: number(t, "bits", ".3f")),
    Column("bpw", lambda t: number(t, "bits_per_weight", ".3f")),
    Column("MB", lambda t: number(t, "bytes", ".2f", 1e-6)),
    Column("origin", lambda t: t.origin),
)
