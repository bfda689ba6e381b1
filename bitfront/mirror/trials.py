"""Finished trials as Optuna trials, and which of them are worth a place in the mirror."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from bitfront.store.records import FinishedTrial
from bitfront.study import Study
from bitfront.trial import TEXTS, loss_of

OBJECTIVES = ("kl", "bytes")
"""Values of a mirrored trial: the dashboard sorts two in no time, three by comparing all pairs."""

_SHOWN = ("kl_stderr", "perplexity")
_OTHER = "other"
_MAX_BITS = 64.0


def origins(study: Study) -> tuple[str, ...]:
    """Who can have proposed a trial: Optuna wants every choice named when a study begins."""
    return ("uniform", *dict.fromkeys(choice.name for choice in study.searches), _OTHER)


def is_measured(trial: FinishedTrial) -> bool:
    """Whether it has both objectives; Optuna takes no value that is not a number."""
    return trial.state == "COMPLETE" and all(map(math.isfinite, _objectives(trial)))


def _objectives(trial: FinishedTrial) -> list[float]:
    return [loss_of(trial.values), trial.values.get("bytes", math.nan)]


def frozen(trial: FinishedTrial, origins: Sequence[str]) -> FrozenTrial:
    """A finished trial in Optuna's form: no parameter of it depends on the number of layers."""
    origin = trial.origin if trial.origin in origins else _OTHER
    params: dict[str, str | float] = {"origin": origin, "text": trial.text}
    kinds: dict[str, BaseDistribution] = {
        "origin": CategoricalDistribution(origins),
        "text": CategoricalDistribution(TEXTS),
    }
    bits = trial.values.get("bits_per_weight", math.nan)
    if 0 <= bits <= _MAX_BITS:
        params["bits_per_weight"] = bits
        kinds["bits_per_weight"] = FloatDistribution(0.0, _MAX_BITS)
    attributes: dict[str, object] = {"trial": trial.number, "allocation": trial.digest}
    attributes |= {name: trial.values[name] for name in _SHOWN if name in trial.values}
    if trial.error:
        attributes["error"] = trial.error
    measured = is_measured(trial)
    made = create_trial(
        state=TrialState.COMPLETE if measured else TrialState.FAIL,
        values=_objectives(trial) if measured else None,
        params=params,
        distributions=kinds,
        user_attrs=attributes,
    )
    seconds = trial.values.get("seconds", 0.0)
    made.datetime_start = datetime.fromtimestamp(trial.at - seconds, UTC)
    made.datetime_complete = datetime.fromtimestamp(trial.at, UTC)
    return made


def front(trials: Iterable[FinishedTrial]) -> list[FinishedTrial]:
    """Measured trials that no other one on the same text beats in KL and bytes, smallest first."""
    kept: list[FinishedTrial] = []
    measured = [trial for trial in trials if is_measured(trial)]
    for text in TEXTS:
        best = math.inf
        ordered = sorted(
            (trial for trial in measured if trial.text == text),
            key=lambda trial: (trial.values["bytes"], loss_of(trial.values), trial.position),
        )
        for trial in ordered:
            if loss_of(trial.values) < best:
                best = loss_of(trial.values)
                kept.append(trial)
    return kept


def chosen(trials: Sequence[FinishedTrial], last: int) -> list[FinishedTrial]:
    """The front, the baselines and the last so many, in the order in which they finished."""
    keep = {trial.number for trial in (*front(trials), *trials[-last:])}
    return [trial for trial in trials if trial.number in keep or trial.origin == "uniform"]
