"""Bodies of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bitfront.plugins import Choice
from bitfront.store.records import StoredStudy, StudyState
from bitfront.study import Study, TextSource
from bitfront.trial import Trial, TrialState

T = TypeVar("T")
StudyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Links = dict[str, str]
_PARTS = (
    "trials", "front", "tables", "report", "events", "checkpoints", "cancel", "resume", "extend",
)  # fmt: skip


class Answer(BaseModel):
    """A response."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Page(Answer, Generic[T]):
    """Some of many."""

    items: list[T]
    next_page_token: str | None
    """Where the next page begins; null on the last."""


class Place(Answer):
    """Where in a request something is wrong."""

    detail: str
    pointer: str | None = None
    """JSON pointer into the body."""
    parameter: str | None = None
    """Of path or query."""
    header: str | None = None


class Problem(Answer):
    """What went wrong, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[Place]


class Progress(Answer):
    """Steps of the stage a study is in."""

    done: int
    total: int


class StudyAnswer(Answer):
    """A study and where it stands."""

    id: StudyId
    owner: str
    state: StudyState
    stage: str
    """What is being done: prepare, estimate, search, evaluate."""
    progress: Progress
    seconds_left: float | None
    """At the pace of the measurements so far; null while that is not known."""
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    request: dict[str, Any]
    """What was asked, defaults included, as a request would have it."""
    links: Links


class TrialSummary(Answer):
    """A measured allocation, or one that is to be measured, without its formats."""

    study_id: StudyId
    number: int
    text: str
    """What it is measured on: `calibration` guides the search, `evaluation` is reported."""
    origin: str
    state: TrialState
    values: dict[str, float]
    error: str | None


class TrialAnswer(TrialSummary):
    """A trial with the format of each layer."""

    allocation: dict[str, str]
    target: str
    """Budget and search that it was proposed for."""


class PointAnswer(Answer):
    """A point of a front."""

    number: int
    """Of its trial."""
    origin: str
    values: dict[str, float]
    allocation: dict[str, str]
    """Format of each layer."""


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
    fields = asdict(study)
    for name, value in vars(study).items():
        if isinstance(value, Choice):
            fields[name] = _choice(value)
        elif isinstance(value, TextSource):
            fields[name] = asdict(value)
        elif name in {"searches", "costs"}:
            fields[name] = [_choice(each) for each in value]
    return fields | {"budget": str(study.budget), "formats": list(study.formats)}


def _choice(choice: Choice) -> Mapping[str, Any]:
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
