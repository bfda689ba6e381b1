"""What a study needs next, decided from its rows inside the transaction that changed them.

    prepare -> estimate -> baselines measured -> propose / evaluate ... -> finalists -> measured

Every insert is of a row that only one can be (study, stage, number), so it may be decided twice.
All functions expect the caller to hold the study's row (`lock`). Statements are built once, for
building one takes longer than running it.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy import Connection, Row, bindparam

from bitfront.space import SearchSpace
from bitfront.store.clock import NOW
from bitfront.store.records import Proposed, Stage, StudyState, TaskState
from bitfront.store.tables import events, spaces, studies, tasks, trials
from bitfront.study import Study
from bitfront.trial import TrialState

_SPACES: OrderedDict[str, SearchSpace] = OrderedDict()
_N_SPACES = 16
_SPACES_LOCK = threading.Lock()

STUDY = sa.select(studies).where(studies.c.id == bindparam("study"))
"""The row of one study."""
_LOCKED_STUDY = STUDY.with_for_update()
_UPDATED_STUDY = sa.update(studies).where(studies.c.id == bindparam("study"))
_EVENT = sa.insert(events).values(at=NOW)
_SAME_TRIAL = sa.select(trials.c.number).where(
    trials.c.study_id == bindparam("study"),
    trials.c.text == bindparam("text"),
    trials.c.digest == bindparam("digest"),
)
_NEW_TRIAL = sa.insert(trials)
_NEXT = sa.select(
    (sa.func.coalesce(sa.func.max(trials.c.number), -1) + 1).label("number"),
    (sa.func.coalesce(sa.func.max(trials.c.proposal), -1) + 1).label("proposal"),
).where(trials.c.study_id == bindparam("study"))
_TASK = sa.select(tasks.c.id).where(
    tasks.c.study_id == bindparam("study"),
    tasks.c.stage == bindparam("stage"),
    tasks.c.number == bindparam("number"),
)
_FINISHED_TASK = _TASK.where(tasks.c.state == TaskState.COMPLETE)
_NEW_TASK = sa.insert(tasks).from_select(
    ["study_id", "stage", "number", "queue", "state", "created_at"],
    sa.select(
        *(bindparam(name, type_=sa.String()) for name in ("study", "stage")),
        bindparam("number", type_=sa.Integer()),
        bindparam("queue", type_=sa.String()),
        sa.literal(TaskState.WAITING.value),
        NOW,
    ).where(~_TASK.exists()),
)
_AT_WORK = sa.select(tasks.c.id).where(
    tasks.c.study_id == bindparam("study"),
    tasks.c.state == TaskState.RUNNING,
    # A study that is over can still have checkpoints written.
    tasks.c.stage != Stage.MATERIALISE,
)
_SET_ASIDE = sa.select(tasks.c.id).where(
    tasks.c.study_id == bindparam("study"),
    tasks.c.state == TaskState.FAIL,
    tasks.c.stage == Stage.EVALUATE,
)


def _number_of(text: str, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    """How many trials there are on a text; each is counted through an index of its own."""
    query = sa.select(sa.func.count()).select_from(trials)
    place = (trials.c.study_id == bindparam("study"), trials.c.text == text)
    return query.where(*place, *conditions).scalar_subquery()


_OPEN = trials.c.state == TrialState.RUNNING
_COUNTS = sa.select(
    _number_of("calibration").label("calibration"),
    _number_of("calibration", _OPEN).label("calibration_open"),
    _number_of("calibration", _OPEN, trials.c.proposal.is_(None)).label("baselines_open"),
    _number_of("evaluation").label("evaluation"),
    _number_of("evaluation", _OPEN).label("evaluation_open"),
    sa.select(sa.func.coalesce(sa.func.max(trials.c.proposal), -1) + 1)
    .where(trials.c.study_id == bindparam("study"))
    .scalar_subquery()
    .label("proposals"),
    sa.select(sa.func.min(trials.c.proposal))
    .where(trials.c.study_id == bindparam("study"), _OPEN)
    .scalar_subquery()
    .label("oldest_open"),
)
"""How many trials of each kind a study has, and the oldest proposal still measured."""


def lock(connection: Connection, study_id: str) -> Row[tuple[object, ...]] | None:
    """The study's row, held until the transaction ends; `None` where there is none."""
    return connection.execute(_LOCKED_STUDY, {"study": study_id}).first()


def note(connection: Connection, study_id: str, kind: str, body: Mapping[str, object]) -> None:
    """Add an event; those of a study are numbered in order because its row is held."""
    row = {"study_id": study_id, "kind": kind, "body": json.dumps(body)}
    connection.execute(_EVENT, row)


def set_state(
    connection: Connection,
    study_id: str,
    state: StudyState,
    error: str | None = None,
) -> None:
    """Change the state, with its time and an event."""
    values: dict[str, object] = {"state": state, "error": error}
    values["finished_at"] = NOW if state.is_final else None
    connection.execute(_UPDATED_STUDY.values(values), {"study": study_id})
    note(connection, study_id, "state", {"state": state, "error": error})


def space_of(connection: Connection, digest: str) -> SearchSpace:
    """A stored search space; read once while it is in use, for its digest names it for ever."""
    with _SPACES_LOCK:
        if digest in _SPACES:
            _SPACES.move_to_end(digest)
            return _SPACES[digest]
    query = sa.select(spaces.c.body).where(spaces.c.digest == digest)
    space = SearchSpace.from_json(connection.execute(query).scalar_one())
    with _SPACES_LOCK:
        _SPACES[digest] = space
        while len(_SPACES) > _N_SPACES:
            _SPACES.popitem(last=False)
    return space


def add_task(connection: Connection, study_id: str, stage: Stage, number: int, queue: str) -> None:
    """Queue a task unless it is or was there."""
    row = {"study": study_id, "stage": stage, "number": number, "queue": queue}
    connection.execute(_NEW_TASK, row)


def add_trials(
    connection: Connection,
    study: Row[tuple[object, ...]],
    space: SearchSpace,
    proposed: Sequence[Proposed],
) -> int:
    """Store allocations and queue their measurement; how many were not there already."""
    n_new = 0
    # The study is held: nobody else numbers its trials.
    number, proposal = connection.execute(_NEXT, {"study": study.id}).one()
    for new in proposed:
        trial = new.trial
        same = {"study": study.id, "text": trial.text, "digest": trial.allocation.digest}
        if connection.execute(_SAME_TRIAL, same).first() is not None:
            continue
        row = {
            "study_id": study.id,
            "number": number + n_new,
            "text": trial.text,
            "proposal": proposal if new.is_proposal else None,
            "origin": trial.origin,
            "target": trial.target,
            "choice": space.encode(trial.allocation).astype("uint8").tobytes(),
            "digest": trial.allocation.digest,
            "state": TrialState.RUNNING,
            # What was spent to find it; the measured values join it.
            "measured": json.dumps(dict(trial.values)),
        }
        connection.execute(_NEW_TRIAL, row)
        add_task(connection, study.id, Stage.EVALUATE, number + n_new, study.queue)
        body = {"number": number + n_new, "text": trial.text, "origin": trial.origin}
        note(connection, study.id, "proposed", body)
        n_new += 1
        proposal += new.is_proposal
    return n_new


def advance(
    connection: Connection,
    study_id: str,
    study: Row[tuple[object, ...]] | None = None,
) -> None:
    """Queue what comes next, or end the study.

    Args:
        connection: of the transaction.
        study_id: which study.
        study: its row, where the caller holds it and has not changed it.
    """
    study = study or lock(connection, study_id)
    if study is None:
        return
    state = StudyState(study.state)
    if state is StudyState.CANCELLING and not _is_at_work(connection, study_id):
        set_state(connection, study_id, StudyState.CANCELLED)
    if state is not StudyState.RUNNING:
        return
    n = connection.execute(_COUNTS, {"study": study_id}).one()
    if not n.calibration:  # preparing leaves the space, estimating the baselines
        stage = Stage.PREPARE if study.space is None else Stage.ESTIMATE
        add_task(connection, study_id, stage, 0, study.queue)
        _show(connection, study, stage.value, 0, 1)
        return
    request = _request(study.request)
    if n.calibration_open or not study.search_ended:
        n_done = n.calibration - n.calibration_open
        _show(connection, study, "search", n_done, max(request.n_trials, n.calibration))
        # Waits for every baseline, then for all but the last `n_parallel - 1` proposals.
        oldest = n.proposals if n.oldest_open is None else n.oldest_open
        may_propose = not n.baselines_open and oldest > n.proposals - request.n_parallel
        if not study.search_ended and may_propose:
            add_task(connection, study_id, Stage.PROPOSE, n.proposals, study.queue)
        return
    if not _is_done(connection, study_id, Stage.FINALISTS, n.calibration):
        add_task(connection, study_id, Stage.FINALISTS, n.calibration, study.queue)
        return
    n_done = n.evaluation - n.evaluation_open
    _show(connection, study, "evaluate", n_done, n.evaluation)
    if not n.evaluation_open:
        dead = connection.execute(_SET_ASIDE, {"study": study_id}).first()
        # One that goes on and has an error was stopped on its way.
        is_whole = dead is None and study.error is None
        ended = StudyState.COMPLETE if is_whole else StudyState.PARTIAL
        set_state(connection, study_id, ended, study.error)


@lru_cache(maxsize=64)
def _request(text: str) -> Study:
    return Study.from_json(text)


def _is_done(connection: Connection, study_id: str, stage: Stage, number: int) -> bool:
    place = {"study": study_id, "stage": stage, "number": number}
    return connection.execute(_FINISHED_TASK, place).first() is not None


def _is_at_work(connection: Connection, study_id: str) -> bool:
    return connection.execute(_AT_WORK, {"study": study_id}).first() is not None


def _show(
    connection: Connection,
    study: Row[tuple[object, ...]],
    stage: str,
    done: int,
    total: int,
) -> None:
    if (study.stage, study.done, study.total) == (stage, done, total):
        return
    values = {"stage": stage, "done": done, "total": total}
    connection.execute(_UPDATED_STUDY, {"study": study.id, **values})
    if study.stage != stage:
        note(connection, study.id, "stage", values)
