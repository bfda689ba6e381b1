"""What a study needs next, decided from its rows inside the transaction that changed them.

    prepare -> estimate -> baselines measured -> propose / evaluate ... -> finalists -> measured

Every insert is of a row that only one can be (study, stage, number), so it may be decided twice.
All functions expect the caller to hold the study's row (`lock`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from bitfront.space import SearchSpace
from bitfront.store.database import Database
from bitfront.store.records import Proposed, Stage, StudyState, TaskState
from bitfront.store.tables import events, spaces, studies, tasks, trials
from bitfront.study import Study
from bitfront.trial import TEXTS, TrialState

_OPEN = (TaskState.WAITING, TaskState.RUNNING)
_SPACES: dict[str, SearchSpace] = {}


def lock(connection: Connection, study_id: str) -> Row[tuple[object, ...]] | None:
    """The study's row, held until the transaction ends; `None` where there is none."""
    query = sa.select(studies).where(studies.c.id == study_id).with_for_update()
    return connection.execute(query).first()


def note(
    connection: Connection, db: Database, study_id: str, kind: str, body: Mapping[str, object]
) -> None:
    """Add an event; those of a study are numbered in order because its row is held."""
    row = {"study_id": study_id, "kind": kind, "body": json.dumps(body), "at": db.now}
    connection.execute(sa.insert(events).values(row))


def set_state(
    connection: Connection,
    db: Database,
    study_id: str,
    state: StudyState,
    error: str | None = None,
) -> None:
    """Change the state, with its time and an event."""
    values: dict[str, object] = {"state": state, "error": error}
    values["finished_at"] = db.now if state.is_final else None
    connection.execute(sa.update(studies).where(studies.c.id == study_id).values(values))
    note(connection, db, study_id, "state", {"state": state, "error": error})


def space_of(connection: Connection, digest: str) -> SearchSpace:
    """A stored search space; read once a process, for its digest names it for ever."""
    if digest not in _SPACES:
        query = sa.select(spaces.c.body).where(spaces.c.digest == digest)
        _SPACES[digest] = SearchSpace.from_json(connection.execute(query).scalar_one())
    return _SPACES[digest]


def add_task(
    connection: Connection, db: Database, study_id: str, stage: Stage, number: int, queue: str
) -> None:
    """Queue a task unless it is or was there."""
    made = sa.select(tasks.c.id).where(
        tasks.c.study_id == study_id, tasks.c.stage == stage, tasks.c.number == number
    )
    if connection.execute(made).first() is None:
        row = {"study_id": study_id, "stage": stage, "number": number, "queue": queue}
        row |= {"state": TaskState.WAITING, "created_at": db.now}
        connection.execute(sa.insert(tasks).values(row))


def add_trials(
    connection: Connection,
    db: Database,
    study: Row[tuple[object, ...]],
    space: SearchSpace,
    proposed: Sequence[Proposed],
) -> None:
    """Store allocations and queue their measurement; those already there are left alone."""
    study_id = study.id
    for new in proposed:
        trial = new.trial
        same = sa.select(trials.c.number).where(
            trials.c.study_id == study_id,
            trials.c.text == trial.text,
            trials.c.digest == trial.allocation.digest,
        )
        if connection.execute(same).first() is not None:
            continue
        number = _next(connection, trials.c.number, study_id)
        row = {
            "study_id": study_id,
            "number": number,
            "text": trial.text,
            "proposal": _next(connection, trials.c.proposal, study_id) if new.is_proposal else None,
            "origin": trial.origin,
            "target": trial.target,
            "choice": space.encode(trial.allocation).astype("uint8").tobytes(),
            "digest": trial.allocation.digest,
            "state": TrialState.RUNNING,
            # What was spent to find it; the measured values join it.
            "measured": json.dumps(dict(trial.values)),
        }
        connection.execute(sa.insert(trials).values(row))
        add_task(connection, db, study_id, Stage.EVALUATE, number, study.queue)
        body = {"number": number, "text": trial.text, "origin": trial.origin}
        note(connection, db, study_id, "proposed", body)


def _next(connection: Connection, column: sa.Column[int], study_id: str) -> int:
    query = sa.select(sa.func.coalesce(sa.func.max(column), -1) + 1)
    return int(connection.execute(query.where(trials.c.study_id == study_id)).scalar_one())


def advance(
    connection: Connection,
    db: Database,
    study_id: str,
    study: Row[tuple[object, ...]] | None = None,
) -> None:
    """Queue what comes next, or end the study.

    Args:
        connection: of the transaction.
        db: the database.
        study_id: which study.
        study: its row, where the caller holds it and has not changed it.
    """
    study = study or lock(connection, study_id)
    if study is None:
        return
    state = StudyState(study.state)
    if state is StudyState.CANCELLING and not _count(connection, study_id, TaskState.RUNNING):
        set_state(connection, db, study_id, StudyState.CANCELLED)
    if state is not StudyState.RUNNING:
        return
    n = _counts(connection, study_id)
    if not n.calibration:  # preparing leaves the space, estimating the baselines
        stage = Stage.PREPARE if study.space is None else Stage.ESTIMATE
        add_task(connection, db, study_id, stage, 0, study.queue)
        _show(connection, db, study, stage.value, 0, 1)
        return
    request = _request(study.request)
    if n.calibration_open or not study.search_ended:
        n_done = n.calibration - n.calibration_open
        _show(connection, db, study, "search", n_done, max(request.n_trials, n.calibration))
        # Waits for every baseline, then for all but the last `n_parallel - 1` proposals.
        oldest = n.proposals if n.oldest_open is None else n.oldest_open
        may_propose = not n.baselines_open and oldest > n.proposals - request.n_parallel
        if not study.search_ended and may_propose:
            add_task(connection, db, study_id, Stage.PROPOSE, n.proposals, study.queue)
        return
    if not _is_done(connection, study_id, Stage.FINALISTS, n.calibration):
        add_task(connection, db, study_id, Stage.FINALISTS, n.calibration, study.queue)
        return
    n_done = n.evaluation - n.evaluation_open
    _show(connection, db, study, "evaluate", n_done, n.evaluation)
    if not n.evaluation_open:
        dead = _count(connection, study_id, TaskState.FAIL, Stage.EVALUATE)
        ended = StudyState.PARTIAL if dead else StudyState.COMPLETE
        set_state(connection, db, study_id, ended)


def _counts(connection: Connection, study_id: str) -> Row[tuple[object, ...]]:
    """How many trials of each kind there are, and the oldest proposal still measured."""
    is_open = trials.c.state == TrialState.RUNNING
    on = {text: trials.c.text == text for text in TEXTS}

    def number(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0)), 0)

    query = sa.select(
        number(on["calibration"]).label("calibration"),
        number(on["calibration"], is_open).label("calibration_open"),
        number(on["calibration"], is_open, trials.c.proposal.is_(None)).label("baselines_open"),
        number(on["evaluation"]).label("evaluation"),
        number(on["evaluation"], is_open).label("evaluation_open"),
        (sa.func.coalesce(sa.func.max(trials.c.proposal), -1) + 1).label("proposals"),
        sa.func.min(sa.case((is_open, trials.c.proposal))).label("oldest_open"),
    ).where(trials.c.study_id == study_id)
    return connection.execute(query).one()


@lru_cache(maxsize=64)
def _request(text: str) -> Study:
    return Study.from_json(text)


def _is_done(connection: Connection, study_id: str, stage: Stage, number: int) -> bool:
    query = sa.select(tasks.c.id).where(
        tasks.c.study_id == study_id,
        tasks.c.stage == stage,
        tasks.c.number == number,
        tasks.c.state == TaskState.COMPLETE,
    )
    return connection.execute(query).first() is not None


def _count(
    connection: Connection, study_id: str, state: TaskState, stage: Stage | None = None
) -> int:
    query = sa.select(sa.func.count()).where(tasks.c.study_id == study_id, tasks.c.state == state)
    # A study that is over can still have checkpoints written.
    query = query.where(tasks.c.stage == stage if stage else tasks.c.stage != Stage.MATERIALISE)
    return int(connection.execute(query).scalar_one())


def _show(
    connection: Connection,
    db: Database,
    study: Row[tuple[object, ...]],
    stage: str,
    done: int,
    total: int,
) -> None:
    if (study.stage, study.done, study.total) == (stage, done, total):
        return
    values = {"stage": stage, "done": done, "total": total}
    connection.execute(sa.update(studies).where(studies.c.id == study.id).values(values))
    if study.stage != stage:
        note(connection, db, study.id, "stage", values)
