"""What the store hands out and takes: frozen records, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bitfront.space import SearchSpace
from bitfront.study import SecondText, Study
from bitfront.trial import Trial, TrialState


class StudyState(StrEnum):
    """Where a stored study stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    COMPLETE = "COMPLETE"
    PARTIAL = "PARTIAL"
    FAIL = "FAIL"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless someone resumes or extends it."""
        return self not in {StudyState.WAITING, StudyState.RUNNING, StudyState.CANCELLING}


class TaskState(StrEnum):
    """Where a task stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    CANCELLED = "CANCELLED"


class Stage(StrEnum):
    """What a task does, in the order of a study's life."""

    PREPARE = "prepare"
    ESTIMATE = "estimate"
    PROPOSE = "propose"
    EVALUATE = "evaluate"
    FINALISTS = "finalists"
    MATERIALISE = "materialise"


@dataclass(frozen=True)
class StoredStudy:
    """A study with what became of it.

    Args:
        id: 32 hexadecimal digits; later studies have larger ones.
        owner: whose it is.
        study: the request.
        state: where it stands.
        stage: what is being done.
        done: steps done of that stage.
        total: steps in all.
        error: why it failed.
        created_at: seconds since 1970, as all times, on the database's clock.
        started_at: when the first worker took it.
        finished_at: when it ended.
    """

    id: str
    owner: str
    study: Study
    state: StudyState
    stage: str
    done: int
    total: int
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True)
class Claim:
    """A task held by a worker until its lease ends.

    Args:
        task: its id.
        study_id: the study it belongs to.
        stage: what to do.
        number: of the trial for `evaluate`, of the proposal for `propose`, of the checkpoint for
            `materialise`, of the finished calibration trials for `finalists`, else 0.
        fence: the number of this claim; results of an earlier one are refused.
        attempt: the how-manieth attempt that counts this is, from 1.
    """

    task: int
    study_id: str
    stage: Stage
    number: int
    fence: int
    attempt: int

    @property
    def about(self) -> dict[str, object]:
        """What a line of the log says of it."""
        return {"study": self.study_id, "stage": self.stage, "number": self.number}


@dataclass(frozen=True)
class Proposed:
    """An allocation to measure.

    Args:
        trial: its allocation, text, origin and target; the store gives the number.
        is_proposal: whether a search proposed it; baselines and finalists are none.
    """

    trial: Trial
    is_proposal: bool = False


@dataclass(frozen=True)
class Settled:
    """What `prepare` settles of a request, so that every later task means the same by it.

    Args:
        dtype: of the weights.
        device: that the study is measured on.
        revision: commit of a hub model.
        calibration: its source, with the commit of a hub text.
        evaluation: likewise.
        base: as it is named, with the commit of one on the hub.
        second: with the commits of hub texts.
    """

    dtype: str
    device: str
    revision: str | None
    calibration: str
    evaluation: str
    base: str | None = None
    second: SecondText | None = None

    def of(self, study: Study) -> Study:
        """The request as it is settled."""
        return replace(
            study,
            dtype=self.dtype,
            device=self.device,
            revision=self.revision,
            base=self.base,
            second=self.second,
            calibration=replace(study.calibration, source=self.calibration),
            evaluation=replace(study.evaluation, source=self.evaluation),
        )


@dataclass(frozen=True)
class Outcome:
    """What a finished task leaves; all of it is stored, or none.

    Args:
        files: name in the study's folder to the digest of a stored artifact.
        space: what is searched, from `prepare`.
        settled: what the request left open, from `prepare`.
        queue: where the rest of the study runs, from `prepare`.
        proposed: allocations to measure next.
        measured: the trial of `evaluate`.
        search_ended: `propose` found nothing more to measure.
        stopped: why the search ends before that; empty where it does not.
        asked: the request that it knew; one that was extended since has not ended.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    space: SearchSpace | None = None
    settled: Settled | None = None
    queue: str | None = None
    proposed: tuple[Proposed, ...] = ()
    measured: Trial | None = None
    search_ended: bool = False
    stopped: str = ""
    asked: Study | None = None


@dataclass(frozen=True)
class StoredEvent:
    """Something that happened to a study.

    Args:
        id: grows with time, over all studies.
        study_id: which study.
        kind: `state`, `stage`, `trial`, `proposed`, `checkpoint` or `stale`.
        body: JSON of what happened.
        at: when.
    """

    id: int
    study_id: str
    kind: str
    body: str
    at: float


@dataclass(frozen=True)
class Standing:
    """Where a study stands, in short.

    Args:
        study_id: which study.
        state: its state.
        position: the event of its last finished trial; 0 before the first.
    """

    study_id: str
    state: StudyState
    position: int


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that is measured or failed, without its allocation.

    Args:
        position: the event that told of it: grows in the order in which trials finish.
        number: of the trial.
        text: what it was measured on.
        origin: who proposed it.
        state: COMPLETE or FAIL.
        values: as those of a `Trial`; none where no attempt ended in a result.
        error: why it failed.
        digest: of its allocation.
        at: when it finished.
    """

    position: int
    number: int
    text: str
    origin: str
    state: TrialState
    values: Mapping[str, float]
    error: str | None
    digest: str
    at: float


@dataclass(frozen=True)
class Checkpoint:
    """A measured point that is to be, or was, written as a checkpoint.

    Args:
        study_id: the study of the point.
        number: position among the study's checkpoints, from 0.
        trial: number of the trial.
        exporter: plug-in that writes it.
        state: where it stands.
        error: why it failed.
        created_at: when it was asked for.
        finished_at: when it was there.
    """

    study_id: str
    number: int
    trial: int
    exporter: str
    state: TaskState
    error: str | None
    created_at: float
    finished_at: float | None


@dataclass(frozen=True)
class Worker:
    """A worker that was seen.

    Args:
        name: host, process and slot.
        queue: what it takes tasks from.
        transport: `local` or `celery`.
        version: of bitfront.
        started_at: when it came.
        seen_at: when it was heard of last.
    """

    name: str
    queue: str
    transport: str
    version: str
    started_at: float
    seen_at: float


@dataclass(frozen=True)
class ApiKey:
    """A key of the API without its secret.

    Args:
        id: the public part of the key.
        owner: whose studies it sees.
        scopes: what it may do.
        max_running: studies that its owner may have unfinished at once.
        max_device_hours: hours that workers may hold its owner's tasks; `None` for no bound.
        created_at: when it was made.
        expires_at: when it ends; `None` for never.
        revoked_at: when it was revoked.
    """

    id: str
    owner: str
    scopes: tuple[str, ...]
    max_running: int
    max_device_hours: float | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True)
class TrialRow:
    """A trial whose allocation is not spelled out: thousands of them are read at once.

    Args:
        number: position in the study.
        text: what it is measured on.
        origin: who proposed it.
        state: how far it came.
        values: quantity to measured value.
        error: why it failed.
        choice: the column of each group's format on the menu of the space, one byte each.
    """

    number: int
    text: str
    origin: str
    state: TrialState
    values: Mapping[str, float]
    error: str | None
    choice: bytes


@dataclass(frozen=True)
class TaskRow:
    """A task as people look at it."""

    id: int
    study_id: str
    stage: Stage
    number: int
    queue: str
    state: TaskState
    attempts: int
    worker: str | None
    lease_until: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
