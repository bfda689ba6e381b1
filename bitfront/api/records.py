"""Stored records as answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bitfront.api.answers import (
    CheckpointAnswer,
    Links,
    Progress,
    StudyAnswer,
    TaskAnswer,
    TrialAnswer,
    TrialSummary,
)
from bitfront.plugins import Choice
from bitfront.store.records import Checkpoint, StoredStudy, TaskRow
from bitfront.study import Study
from bitfront.trial import Trial

_PARTS = (
    "trials", "front", "tables", "report", "events", "checkpoints", "cancel", "resume", "extend",
)  # fmt: skip


def moment(seconds: float) -> datetime:
    """A time of the database for people."""
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def study_answer(stored: StoredStudy, seconds_left: float | None = None) -> StudyAnswer:
    """A stored study as an answer."""
    return StudyAnswer(
        id=stored.id,
        owner=stored.owner,
        state=stored.state,
        stage=stored.stage,
        progress=Progress(done=stored.done, total=stored.total),
        seconds_left=seconds_left,
        error=stored.error,
        created_at=moment(stored.created_at),
        started_at=_moment(stored.started_at),
        finished_at=_moment(stored.finished_at),
        request=request_of(stored.study),
        links=study_links(stored.id),
    )


def study_links(study_id: str) -> Links:
    """Addresses of a study and what belongs to it."""
    root = f"/v1/studies/{study_id}"
    return {"self": root, **{part: f"{root}/{part}" for part in _PARTS}}


def request_of(study: Study) -> dict[str, Any]:
    """A study as a request would have it."""
    fields = {**vars(study), "budget": str(study.budget), "formats": list(study.formats)}
    for name in ("calibration", "evaluation"):
        fields[name] = dict(vars(fields[name]))
    for name in ("quantizer", "estimator"):
        fields[name] = _choice(fields[name])
    for name in ("searches", "costs"):
        fields[name] = [_choice(each) for each in fields[name]]
    if study.kv_cache is not None:
        fields["kv_cache"] = {**vars(study.kv_cache), "formats": list(study.kv_cache.formats)}
    if study.second is not None:
        fields["second"] = dict(vars(study.second))
        for name in ("calibration", "evaluation"):
            fields["second"][name] = dict(vars(fields["second"][name]))
    return fields


def _choice(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, "params": dict(choice.params)}


def trial_summary(study_id: str, trial: Trial) -> TrialSummary:
    """A trial as an answer, without its formats."""
    return TrialSummary(**_trial(study_id, trial))


def trial_answer(study_id: str, trial: Trial) -> TrialAnswer:
    """A trial as an answer."""
    allocation = dict(trial.allocation.formats)
    return TrialAnswer(**_trial(study_id, trial), allocation=allocation, target=trial.target)


def _trial(study_id: str, trial: Trial) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "number": trial.number,
        "text": trial.text,
        "origin": trial.origin,
        "state": trial.state,
        "values": dict(trial.values),
        "error": trial.error,
    }


def checkpoint_answer(checkpoint: Checkpoint) -> CheckpointAnswer:
    """A stored checkpoint as an answer."""
    root = f"/v1/studies/{checkpoint.study_id}"
    place = f"{root}/checkpoints/{checkpoint.number}"
    return CheckpointAnswer(
        study_id=checkpoint.study_id,
        number=checkpoint.number,
        trial=checkpoint.trial,
        exporter=checkpoint.exporter,
        state=checkpoint.state,
        error=checkpoint.error,
        created_at=moment(checkpoint.created_at),
        finished_at=_moment(checkpoint.finished_at),
        links={
            "self": place,
            "study": root,
            "trial": f"{root}/trials/{checkpoint.trial}",
            "manifest": f"{place}/manifest",
        },
    )


def task_answer(task: TaskRow) -> TaskAnswer:
    """A task that runs as an answer."""
    return TaskAnswer(
        id=task.id,
        study_id=task.study_id,
        stage=task.stage,
        number=task.number,
        queue=task.queue,
        worker=task.worker,
        attempts=task.attempts,
        lease_until=_moment(task.lease_until),
        started_at=_moment(task.started_at),
    )
