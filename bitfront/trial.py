"""Trial: one allocation with its measured values."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.table import LayerTable

TEXTS = ("calibration", "evaluation")
"""What a trial can be measured on."""
LOSSES = {"kl": "KL", "cosine_error": "cosine error"}
"""What searches minimize, with its title: the first of these that a trial has."""
_MEASURED = ("bits", "bits_per_weight", "bytes")
"""Values of every complete trial besides its loss: what fronts and budgets are made of."""
PREDICTED = ("latency_ns", "bops")
"""Values that follow from the allocation and the costs of a study; nothing measures them."""
CACHE_BYTES = "cache_bytes"
"""Bytes of a KV cache whose formats are searched, at the batch and context of the study."""
SECOND_TEXT = ("second_kl", "second_kl_stderr", "both_kl")
"""KL on the second text of a study that has one, its error, and the geometric mean of it and of
`kl`, in which neither text counts for more because its losses are larger."""
SECOND, _, BOTH = SECOND_TEXT
ANSWERED = ("answer_error", "answer_error_norm", "answer_loss")
"""Values of finalists of a study with multiple-choice items."""
_ROUNDING = 1e-4
"""A divergence of nothing may be measured as a little less than nothing."""


def loss_name(values: Mapping[str, float]) -> str:
    """Name of the loss that a trial was measured by; `"kl"` where it has none."""
    return next((name for name in LOSSES if name in values), "kl")


def loss_of(values: Mapping[str, float]) -> float:
    """What searches minimize, of a trial's values; NaN where it was not measured."""
    return values.get(loss_name(values), math.nan)


def loss_unit(values: Mapping[str, float]) -> str:
    """Unit of that loss, `"nats per token"` or, where other samples than texts count, `"nats"`.

    >>> loss_unit({"kl": 1.0, "top1_error": 0.1}), loss_unit({"cosine_error": 0.1})
    ('nats', '')
    """
    if loss_name(values) != "kl":
        return ""
    reads_text = "perplexity" in values or "top1_error" not in values
    return "nats per token" if reads_text else "nats"


class TrialState(StrEnum):
    """Optuna's words for how far a trial came.

    `RUNNING` is proposed and not measured yet: it has no values, so it teaches nothing, but it is
    never proposed again.
    """

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Trial:
    """A measured allocation, or one that is being measured.

    Args:
        number: position in the study, from 0.
        allocation: what is measured.
        text: `"calibration"` for measurements that guide the search, `"evaluation"` for those
            that are reported; no 32 tokens in a row are in both texts.
        origin: who proposed it: a search's name, or `"uniform"` for a baseline.
        target: budget and search it was proposed for; empty for baselines.
        state: how far it came.
        values: quantity to measured value, every one minimized: `kl`, `kl_stderr`, `perplexity`,
            `top1_error`, of images `label_error`, of sentences `cosine_error` instead of `kl` and
            `rank_correlation_error`; `bits`, `bits_per_weight`, `bytes`, `seconds` it took, and
            `slope_seconds` and `screen_seconds` where a slope was measured or others were screened
            to find it; `latency_ns` and `bops` where the study's costs predict them; `second_kl`
            with its error and `both_kl` with a second text; `answer_error`, `answer_error_norm` and
            `answer_loss` of multiple-choice items on the evaluation text; none while it is running.
        error: why it failed.
    """

    number: int
    allocation: Allocation
    text: str
    origin: str
    state: TrialState = TrialState.COMPLETE
    values: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    target: str = ""

    @property
    def loss_name(self) -> str:
        """What its loss is: a name of `LOSSES`."""
        return loss_name(self.values)

    @property
    def loss(self) -> float:
        """What searches minimize: `kl` or `cosine_error`; NaN where it was not measured."""
        return loss_of(self.values)

    @property
    def goal(self) -> float:
        """What the answer has least of: the loss, over both texts where there are two."""
        return self.values.get(BOTH, self.loss)

    def to_json(self) -> str:
        """One line of JSON."""
        plain = replace(self, allocation=Allocation(dict(self.allocation.formats)))
        return json.dumps(asdict(plain), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Trial:
        """Inverse of `to_json`.

        Raises:
            InvalidArgument: not the JSON of a trial, or a value of the wrong type.
        """
        try:
            fields = json.loads(text)
            fields["allocation"] = Allocation(**fields["allocation"])
            fields["state"] = TrialState(fields["state"])
            trial = cls(**fields)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"not the JSON of a trial: {error}") from error
        _check(trial)
        return trial


@dataclass(frozen=True)
class Screened:
    """KL of an allocation on the first few sequences of the calibration text: no trial.

    Args:
        digest: of the allocation.
        n_sequences: how many sequences it was measured on.
        n_all: how many a trial is measured on.
        kl: in nats; `None` where the outputs overflow.
        number: that of the trial which the search chose with it.
        seconds: it took.
    """

    digest: str
    n_sequences: int
    n_all: int
    kl: float | None
    number: int
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """What it costs, as a part of a trial's measurement."""
        return self.n_sequences / self.n_all

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Screened:
        """Inverse of `to_json`.

        Raises:
            InvalidArgument: not the JSON of one, or a value of the wrong type.
        """
        try:
            made = cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"not the JSON of a screened allocation: {error}") from error
        counts = (made.n_sequences, made.n_all, made.number)
        is_right = all(type(x) is int and x >= 0 for x in counts) and made.n_all > 0
        is_number = made.kl is None or _is_finite(made.kl)
        if not (is_right and is_number and _is_word(made.digest) and _is_finite(made.seconds)):
            raise InvalidArgument(f"a screened allocation cannot be {text[:60]}")
        return made


def checked(trial: Trial) -> Trial:
    """A measured trial; failed, and without them, where values are not finite or are negative.

    Such a value would stay on every front: nothing compares with it, or nothing beats it.
    """
    wrong = {
        name: value
        for name, value in trial.values.items()
        if not _is_finite(value) or value < -_ROUNDING
    }
    if not wrong:
        return trial
    name, value = next(iter(wrong.items()))
    values = {name: value for name, value in trial.values.items() if name not in wrong}
    error = trial.error or f"{name} was measured as {value}, which it cannot be."
    return replace(trial, state=TrialState.FAIL, values=values, error=error)


def priced(trial: Trial, tables: Sequence[LayerTable]) -> Trial:
    """A trial whose predicted costs are those of the given tables and no others."""
    values = {name: value for name, value in trial.values.items() if name not in PREDICTED}
    if trial.state is TrialState.RUNNING or (not tables and len(values) == len(trial.values)):
        return trial
    for table in tables:
        choice = table.space.encode(trial.allocation)
        values[table.quantity] = table.total(choice) + table.outside
    return replace(trial, values=values)


def _check(trial: Trial) -> None:
    """Refuse what JSON can hold but a trial cannot."""
    formats, values = trial.allocation.formats, trial.values
    right = {
        "number": type(trial.number) is int and trial.number >= 0,
        "allocation": isinstance(formats, dict) and all(map(_is_word, formats.values())),
        "text": trial.text in TEXTS,
        "origin": _is_word(trial.origin),
        "values": isinstance(values, dict) and all(map(_is_finite, values.values())),
        "error": trial.error is None or _is_word(trial.error),
        "target": _is_word(trial.target),
    }
    for field_name in (name for name, is_right in right.items() if not is_right):
        text = str(getattr(trial, field_name))
        raise InvalidArgument(f"{field_name} of a trial cannot be {text[:60]}")
    missing = [name for name in (loss_name(values), *_MEASURED) if name not in values]
    if trial.state is TrialState.COMPLETE and missing:
        raise InvalidArgument(f"a complete trial has no {', '.join(missing)}")
    if trial.state is TrialState.RUNNING and values:
        raise InvalidArgument(f"a running trial cannot have {', '.join(sorted(values))}")


def _is_word(value: object) -> bool:
    return isinstance(value, str)


def _is_finite(value: object) -> bool:
    # A comparison, because `isfinite` fails on whole numbers that no float can hold.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
