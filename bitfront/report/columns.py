"""The columns of a table of front points, the same in the terminal and on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bitfront.pareto import LATENCY
from bitfront.trial import ANSWERED, CACHE_BYTES, SECOND, Trial, loss_name


@dataclass(frozen=True)
class Column:
    """A heading and the text of a trial under it; `short` is the heading where room is scarce."""

    title: str
    text: Callable[[Trial], str]
    short: str = ""


def number(trial: Trial, quantity: str, *specs: str, scale: float = 1.0, width: int = 7) -> str:
    """A measured value as text; a dash where it was not measured.

    Args:
        trial: the measurement.
        quantity: which of its values.
        specs: format specifications, the preferred one first: the first whose text is at most
            `width` characters long is taken, else the last.
        scale: factor to the unit that is shown.
        width: see `specs`.
    """
    if quantity not in trial.values:
        return "–"
    texts = [_powers(format(trial.values[quantity] * scale, spec)) for spec in specs]
    return next((text for text in texts if len(text) <= width), texts[-1])


def _powers(text: str) -> str:
    """Powers of ten without what can be left out: `3.0e+05` is `3.0e5`."""
    return re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", text)


def mix(trial: Trial) -> str:
    """How many layers have each format, most frequent first: `"int4_g64 ×120, int3_g64 ×90"`."""
    counts = Counter(trial.allocation.formats.values()).most_common()
    return ", ".join(f"{name} ×{count}" for name, count in counts)


def _loss(trial: Trial) -> str:
    name = loss_name(trial.values)
    text = number(trial, name, ".4g")
    error = number(trial, f"{name}_stderr", ".1g", ".0e", width=5)
    return text if error == "–" else f"{text} ± {error}"


TIMED = (Column("ms/step", lambda t: number(t, LATENCY, ".3f", ".1f", scale=1e-6), "ms"),)
"""Columns of a front with latencies, besides the others."""

OPERATED = (Column("Gbops", lambda t: number(t, "bops", ".4g", ".3g", ".2g", scale=1e-9)),)
"""Columns of a front with bit operations, besides the others."""

CACHED = (Column("KV MB", lambda t: number(t, CACHE_BYTES, ".3f", ".1f", scale=1e-6, width=6)),)
"""Columns of a front with KV caches: what of the megabytes they are."""

JUDGED = (
    Column("2nd KL", lambda t: number(t, SECOND, ".3g", ".1g", width=6)),
    Column("wrong", lambda t: number(t, ANSWERED[0], ".1%")),
)
"""Columns of a front with a second text, and of one with multiple-choice items."""

COLUMNS = (
    Column("trial", lambda t: str(t.number)),
    Column("KL ± stderr", _loss),
    Column("ppl", lambda t: number(t, "perplexity", ".2f", ".1e")),
    Column("top-1 err", lambda t: number(t, "top1_error", ".1%"), "error"),
    Column("bits", lambda t: number(t, "bits", ".3f", ".2f", width=5)),
    Column("bpw", lambda t: number(t, "bits_per_weight", ".3f", ".2f", width=5)),
    Column("MB", lambda t: number(t, "bytes", ".2f", ".0f", scale=1e-6)),
    Column("origin", lambda t: t.origin),
)


_OF_CLASSES = (
    *COLUMNS[:2],
    COLUMNS[3],
    Column("label err", lambda t: number(t, "label_error", ".1%"), "label"),
    *COLUMNS[4:],
)
_OF_EMBEDDINGS = (
    COLUMNS[0],
    Column("cosine error ± stderr", _loss, "cos err ± stderr"),
    Column("1 − rank corr", lambda t: number(t, "rank_correlation_error", ".2%"), "1 − ρ"),
    *COLUMNS[4:],
)


def measured_columns(values: Mapping[str, float]) -> tuple[Column, ...]:
    """`COLUMNS`, or those of what else was measured: classes, words about images, embeddings.

    Args:
        values: of one of the trials.
    """
    if loss_name(values) == "cosine_error":
        return _OF_EMBEDDINGS
    if "label_error" in values:
        return _OF_CLASSES
    sees = "top1_error" in values and "perplexity" not in values
    return (*COLUMNS[:2], *COLUMNS[3:]) if sees else COLUMNS


def columns_of(trials: Sequence[Trial], narrow: bool = False) -> tuple[Column, ...]:
    """The columns of a front, and of caches, times, operations, a second text, items it has.

    Args:
        trials: its points.
        narrow: leave out code bits beside any of these, and perplexity beside the last two or
            two of the others, for 80 columns; three of these do not fit.
    """
    stated = {quantity for trial in trials for quantity in trial.values}
    judged = [
        column
        for column, quantity in zip(JUDGED, (SECOND, ANSWERED[0]), strict=True)
        if quantity in stated
    ]
    added = (
        *judged,
        *(CACHED if CACHE_BYTES in stated else ()),
        *(TIMED if LATENCY in stated else ()),
        *(OPERATED if "bops" in stated else ()),
    )
    usual = measured_columns(trials[0].values if trials else {})
    if not added:
        return usual
    dropped = {"bits", "ppl"} if judged or len(added) > 1 else {"bits"}
    kept = [column for column in usual[:-1] if not (narrow and column.title in dropped)]
    return (*kept, *added, COLUMNS[-1])
