"""How much a study measures at most, and how long it still takes by what it has measured."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.store import Store
from bitfront.store.records import Stage, StoredStudy, StudyState, TaskRow
from bitfront.study import Study

_MEASURED = {"search": "calibration", "evaluate": "evaluation"}


def seconds_left(store: Store, stored: StoredStudy) -> float | None:
    """Seconds until a running study is done, if it goes on as it did; `None` while unknown.

    Finalists are counted as if they took as long as the trials before them.
    """
    if stored.state is not StudyState.RUNNING or stored.stage not in _MEASURED:
        return None
    pace = seconds_each(store.activity.finished(stored.id, Stage.EVALUATE))
    if pace is None:
        return None
    n_left = max(0, stored.total - stored.done)
    if stored.stage == "search":
        n_left += most_measured(stored.study)["evaluation"]
    return n_left * pace


def most_measured(study: Study) -> dict[str, int]:
    """Most measurements by text: as `proposing.n_wanted` and `run.finalists` bound them.

    Every format is a baseline on both texts, those of caches too; finalists are among the trials.
    """
    cached = study.kv_cache.formats if study.kv_cache else ()
    n_baselines = len({*study.formats, *cached})
    n_trials = max(study.n_trials, n_baselines + 1)
    return {"calibration": n_trials, "evaluation": min(n_trials, n_baselines + study.n_finalists)}


def seconds_each(finished: Sequence[TaskRow]) -> float | None:
    """Seconds in which any of them ran, for each; time in which none ran does not count."""
    spans = sorted(
        (task.started_at, task.finished_at)
        for task in finished
        if task.started_at is not None and task.finished_at is not None
    )
    busy, end = 0.0, float("-inf")
    for first, last in spans:
        busy += max(0.0, last - max(first, end))
        end = max(end, last)
    return busy / len(spans) if spans else None
