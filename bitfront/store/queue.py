"""The queue: who holds which task, until when, and what became of it.

A lease ends on the database's clock; a worker whose lease ended is fenced off by the number of its
claim. Messages of a transport only wake workers: a lost or doubled one changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, Row, bindparam

from bitfront.errors import LostLease
from bitfront.store.clock import NOW
from bitfront.store.database import Database, insert_new
from bitfront.store.lifecycle import add_trials, advance, lock, note, set_state, space_of
from bitfront.store.quotas import HELD_SECONDS, spent
from bitfront.store.records import Claim, Outcome, Stage, StudyState, TaskState
from bitfront.store.tables import checkpoints, files, spaces, studies, tasks, trials, workers
from bitfront.study import Study
from bitfront.trial import Trial, TrialState, checked

MAX_ATTEMPTS = 3
"""A task that ended this many claims without a result or a release is set aside."""

_ANY_STUDY = (Stage.MATERIALISE,)
_BEGINS = (Stage.PREPARE, Stage.ESTIMATE, Stage.PROPOSE)
"""Stages that lead to more measurements; those that are asked for are made in any case."""


def may_run() -> sa.ColumnElement[bool]:
    """Tasks to be done: waiting ones, and those whose lease has ended.

    They are of studies that go on, were left by a dead worker, or write checkpoints of any study.
    """
    ended = sa.and_(tasks.c.state == TaskState.RUNNING, tasks.c.lease_until < NOW)
    goes_on = studies.c.state.in_((StudyState.WAITING, StudyState.RUNNING))
    is_open = sa.or_(tasks.c.state == TaskState.WAITING, ended)
    return sa.and_(is_open, sa.or_(goes_on, ended, tasks.c.stage.in_(_ANY_STUDY)))


_CLAIMABLE = (
    sa.select(tasks)
    .join(studies, studies.c.id == tasks.c.study_id)
    .where(tasks.c.queue.in_(bindparam("queues", expanding=True)), may_run())
    .order_by(
        sa.case((tasks.c.study_id == bindparam("warm"), 0), else_=1),
        # Proposing first keeps the other workers busy.
        sa.case((tasks.c.stage == Stage.PROPOSE, 0), else_=1),
        tasks.c.id,
    )
    .limit(1)
    .with_for_update(of=tasks, skip_locked=True)
)
_CLAIMABLE_TASK = _CLAIMABLE.where(tasks.c.id == bindparam("task"))
_TAKEN = (
    sa.update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(
        state=TaskState.RUNNING,
        fence=tasks.c.fence + 1,
        attempts=tasks.c.attempts + 1,
        seconds=HELD_SECONDS,
        lease_until=NOW + bindparam("lease", type_=sa.Float()),
        started_at=NOW,
    )
)
_HELD = (
    tasks.c.id == bindparam("task"),
    tasks.c.fence == bindparam("claim"),
    tasks.c.state == TaskState.RUNNING,
)
_RENEWED = (
    sa.update(tasks).where(*_HELD).values(lease_until=NOW + bindparam("lease", type_=sa.Float()))
)
_CLOSED = sa.update(tasks).where(*_HELD).values(lease_until=None, seconds=HELD_SECONDS)
_GIVEN_BACK = _CLOSED.values(rung_at=None)
_ENDED = _CLOSED.values(finished_at=NOW)
_UNHARMED = sa.update(tasks).where(*_HELD).values(worker=None, attempts=tasks.c.attempts - 1)
_STATE = sa.select(studies.c.state).where(studies.c.id == bindparam("study"))
_STATE_OF_HELD = (
    sa.select(studies.c.state).join(tasks, tasks.c.study_id == studies.c.id).where(*_HELD)
)
_TRIAL = (trials.c.study_id == bindparam("study"), trials.c.number == bindparam("trial"))
_MEASURED = sa.select(trials.c.measured).where(*_TRIAL)
_UPDATED_TRIAL = sa.update(trials).where(*_TRIAL)


@dataclass(frozen=True)
class Queue:
    """Tasks of a database.

    Args:
        db: where they are.
        lease_seconds: how long a claim holds without being renewed.
    """

    db: Database
    lease_seconds: float = 60.0

    def claim(
        self,
        worker: str,
        queues: Sequence[str],
        warm: str | None = None,
        task: int | None = None,
    ) -> Claim | None:
        """Take a waiting task, or one whose lease has ended; `None` where there is none.

        Args:
            worker: who takes it.
            queues: which queues it serves.
            warm: the study that it has loaded, whose tasks it prefers.
            task: only this one.
        """
        while True:
            with self.db.writing() as connection:
                wanted = {"queues": list(queues), "warm": warm or "", "task": task}
                query = _CLAIMABLE if task is None else _CLAIMABLE_TASK
                row = connection.execute(query, wanted).first()
                if row is None:
                    return None
                is_tried = row.attempts >= MAX_ATTEMPTS
                claim = None if is_tried else self._taken(connection, row, worker)
            # A study is locked before its tasks, so both of these are other transactions.
            if claim is None:
                self._set_aside(row.id)
                continue
            if claim.stage is Stage.PREPARE:
                self._begun(claim.study_id)
            if claim.stage in _BEGINS and self._is_over_quota(claim):
                continue
            return claim

    def _is_over_quota(self, claim: Claim) -> bool:
        """Whether its owner has no device hours left; then the study is led to its end."""
        with self.db.reading() as connection:
            line = spent(connection, claim.study_id)
        if line and claim.stage is Stage.PROPOSE:
            self.finish(claim, Outcome(search_ended=True, stopped=line))
        elif line:
            self.fail(claim, line, final=True)
        return bool(line)

    def _taken(self, connection: Connection, row: Row[tuple[object, ...]], worker: str) -> Claim:
        values = {"task": row.id, "worker": worker, "lease": self.lease_seconds}
        connection.execute(_TAKEN, values)
        stage = Stage(row.stage)
        return Claim(row.id, row.study_id, stage, row.number, row.fence + 1, row.attempts + 1)

    def _begun(self, study_id: str) -> None:
        with self.db.writing() as connection:
            first = sa.update(studies).where(
                studies.c.id == study_id, studies.c.state == StudyState.WAITING
            )
            begun = {"state": StudyState.RUNNING, "started_at": NOW}
            if connection.execute(first.values(begun)).rowcount:
                note(connection, study_id, "state", {"state": StudyState.RUNNING})

    def renew(self, claim: Claim, stage: str = "", done: int = 0, total: int = 0) -> bool:
        """Extend the lease and report progress; true when the work is to be given up.

        Raises:
            LostLease: another has the task by now.
        """
        with self.db.writing() as connection:
            # The study before its task, as everywhere.
            if stage and claim.stage in (Stage.PREPARE, Stage.ESTIMATE):
                shown = {"stage": stage, "done": done, "total": total}
                change = sa.update(studies).where(studies.c.id == claim.study_id)
                connection.execute(change.values(shown))
            values = {**_held(claim), "lease": self.lease_seconds}
            if not connection.execute(_RENEWED, values).rowcount:
                raise LostLease(f"Task {claim.task} is no longer held by claim {claim.fence}.")
            state = connection.execute(_STATE, {"study": claim.study_id}).scalar_one()
        return state == StudyState.CANCELLING and claim.stage not in _ANY_STUDY

    def is_cancelled(self, claim: Claim) -> bool:
        """Whether the work of a claim is to be given up; cheaper than `renew`.

        Raises:
            LostLease: another has the task by now.
        """
        with self.db.reading() as connection:
            state = connection.execute(_STATE_OF_HELD, _held(claim)).scalar()
        if state is None:
            raise LostLease(f"Task {claim.task} is no longer held by claim {claim.fence}.")
        return state == StudyState.CANCELLING and claim.stage not in _ANY_STUDY

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Store what a task leaves and queue what comes next, in one transaction.

        Raises:
            LostLease: another has the task by now; nothing is stored.
        """
        with self.db.writing() as connection:
            study = self._fenced(connection, claim, TaskState.COMPLETE)
            if study is not None and outcome.search_ended and _is_extended(study, outcome):
                # It ended for a request that has been extended since.
                again = {"state": TaskState.WAITING, "rung_at": None, "attempts": 0}
                change = sa.update(tasks).where(tasks.c.id == claim.task)
                connection.execute(change.values(again))
            elif study is not None:
                changed = self._leave(connection, claim, study, outcome)
                advance(connection, claim.study_id, None if changed else study)
        if study is None:
            raise LostLease(f"The result of claim {claim.fence} of task {claim.task} is too late.")

    def _leave(
        self,
        connection: Connection,
        claim: Claim,
        study: Row[tuple[object, ...]],
        outcome: Outcome,
    ) -> bool:
        """Store what a task leaves; whether the study's own row changed."""
        changes: dict[str, object] = {}
        if outcome.space is not None:
            row = {"digest": outcome.space.digest, "body": outcome.space.to_json()}
            held = sa.select(spaces.c.digest).where(spaces.c.digest == row["digest"])
            # One that is there may be about to be pruned: held, it stays.
            while not insert_new(connection, spaces, row):
                if connection.execute(held.with_for_update(key_share=True)).first():
                    break
            changes["space"] = outcome.space.digest
        if outcome.settled is not None:
            changes["request"] = outcome.settled.of(Study.from_json(study.request)).to_json()
        if outcome.queue is not None:
            changes["queue"] = outcome.queue
        for name, digest in outcome.files.items():
            place = (files.c.study_id == claim.study_id, files.c.name == name)
            connection.execute(sa.delete(files).where(*place))
            row = {"study_id": claim.study_id, "name": name, "digest": digest}
            connection.execute(sa.insert(files).values(row))
        n_new = 0
        if outcome.proposed:
            space = outcome.space or space_of(connection, str(study.space))
            n_new = add_trials(connection, study, space, outcome.proposed)
        # A search that repeats itself has nothing left either: nobody would ask it again.
        if outcome.search_ended or (claim.stage is Stage.PROPOSE and not n_new):
            changes["search_ended"] = True
        if outcome.stopped:
            changes["error"] = outcome.stopped
        if changes:
            change = sa.update(studies).where(studies.c.id == claim.study_id)
            connection.execute(change.values(changes))
        if outcome.measured is not None:
            self._measured(connection, claim, checked(outcome.measured))
        if claim.stage is Stage.MATERIALISE:
            self._written(connection, claim, TaskState.COMPLETE, None)
        return bool(changes)

    def _measured(self, connection: Connection, claim: Claim, trial: Trial) -> None:
        place = {"study": claim.study_id, "trial": claim.number}
        known = connection.execute(_MEASURED, place).scalar_one()
        values = {**json.loads(known), **trial.values}
        done = {"state": trial.state, "measured": json.dumps(values), "error": trial.error}
        connection.execute(_UPDATED_TRIAL, {**place, **done})
        body = {"number": claim.number, "text": trial.text, "origin": trial.origin}
        body |= {"state": trial.state, "values": values, "error": trial.error}
        note(connection, claim.study_id, "trial", body)

    def _written(
        self, connection: Connection, claim: Claim, state: TaskState, error: str | None
    ) -> None:
        place = (checkpoints.c.study_id == claim.study_id, checkpoints.c.number == claim.number)
        values = {"state": state, "error": error, "finished_at": NOW}
        connection.execute(sa.update(checkpoints).where(*place).values(values))
        body = {"number": claim.number, "state": state, "error": error}
        note(connection, claim.study_id, "checkpoint", body)

    def fail(self, claim: Claim, error: str, final: bool) -> None:
        """Note that a claim ended in an error.

        Args:
            claim: which one.
            error: one line.
            final: another attempt would end alike; else the task is tried again while attempts
                are left.
        """
        is_last = final or claim.attempt >= MAX_ATTEMPTS
        with self.db.writing() as connection:
            state = TaskState.FAIL if is_last else self._back(connection, claim)
            study = self._fenced(connection, claim, state, error)
            if study is not None and is_last:
                self._bury(connection, claim, error)
            elif study is not None and state is TaskState.CANCELLED:
                advance(connection, claim.study_id)

    def release(self, claim: Claim) -> None:
        """Give a task back unharmed: the worker stops. It burns no attempt."""
        with self.db.writing() as connection:
            state = self._back(connection, claim)
            connection.execute(_UNHARMED, _held(claim))
            if _close(connection, claim, state, None) and state is TaskState.CANCELLED:
                advance(connection, claim.study_id)

    def _back(self, connection: Connection, claim: Claim) -> TaskState:
        """What a task becomes that is not done: nobody would take one of a cancelled study."""
        study = lock(connection, claim.study_id)
        is_cancelled = study is not None and study.state == StudyState.CANCELLING
        ends = is_cancelled and claim.stage not in _ANY_STUDY
        return TaskState.CANCELLED if ends else TaskState.WAITING

    def abandon(self, claim: Claim) -> None:
        """Give a task up because its study is being cancelled."""
        with self.db.writing() as connection:
            if self._fenced(connection, claim, TaskState.CANCELLED) is not None:
                advance(connection, claim.study_id)

    def _set_aside(self, task: int) -> None:
        """Bury a task whose attempts are used up, unless someone was quicker."""
        with self.db.writing() as connection:
            query = sa.select(tasks).where(tasks.c.id == task)
            seen = connection.execute(query).one()
            lock(connection, seen.study_id)
            row = connection.execute(query.with_for_update()).one()
            ended = sa.select(sa.literal(row.lease_until or 0.0) < NOW)
            if row.state != TaskState.RUNNING or not connection.execute(ended).scalar_one():
                return
            stage = Stage(row.stage)
            claim = Claim(task, row.study_id, stage, row.number, row.fence, row.attempts)
            error = (
                f"{stage} ended its worker or outlived its lease {row.attempts} times: "
                "it is set aside."
            )
            _close(connection, claim, TaskState.FAIL, error)
            self._bury(connection, claim, error)

    def _bury(self, connection: Connection, claim: Claim, error: str) -> None:
        """A task that will not be tried again; the study goes on without it where it can."""
        if claim.stage is Stage.EVALUATE:
            place = (trials.c.study_id == claim.study_id, trials.c.number == claim.number)
            row = connection.execute(sa.select(trials).where(*place)).one()
            failed = {"state": TrialState.FAIL, "error": error}
            connection.execute(sa.update(trials).where(*place).values(failed))
            body = {"number": claim.number, "text": row.text, "origin": row.origin, **failed}
            note(connection, claim.study_id, "trial", body)
            advance(connection, claim.study_id)
        elif claim.stage is Stage.MATERIALISE:
            self._written(connection, claim, TaskState.FAIL, error)
        else:
            study = lock(connection, claim.study_id)
            if study is not None and not StudyState(study.state).is_final:
                set_state(connection, claim.study_id, StudyState.FAIL, error)

    def _fenced(
        self, connection: Connection, claim: Claim, state: TaskState, error: str | None = None
    ) -> Row[tuple[object, ...]] | None:
        """End a claim and hold its study; `None`, and one more is counted, where it is too late."""
        study = lock(connection, claim.study_id)
        is_mine = _close(connection, claim, state, error)
        if study is not None and not is_mine:
            body = {"task": claim.task, "fence": claim.fence, "stage": claim.stage}
            note(connection, claim.study_id, "stale", body)
        return study if is_mine else None

    def seen(
        self, worker: str, queue: str, transport: str, version: str, age: float | None = None
    ) -> None:
        """Note that a worker lives.

        Args:
            worker: its name.
            queue: what it takes tasks from.
            transport: what wakes it.
            version: of its program.
            age: seconds since its process began; `None` where no other process takes its name.
        """
        row: dict[str, object] = {"queue": queue, "transport": transport, "version": version}
        row |= {"seen_at": NOW} if age is None else {"seen_at": NOW, "started_at": NOW - age}
        with self.db.writing() as connection:
            lives = sa.update(workers).where(workers.c.name == worker).values(row)
            if not connection.execute(lives).rowcount:
                insert_new(connection, workers, {"name": worker, "started_at": NOW, **row})


def _is_extended(study: Row[tuple[object, ...]], outcome: Outcome) -> bool:
    """Whether the study may measure longer than the outcome knew."""
    if outcome.asked is None:
        return False
    now, then = Study.from_json(study.request), outcome.asked
    return (now.n_trials, now.max_minutes) != (then.n_trials, then.max_minutes)


def _held(claim: Claim) -> dict[str, object]:
    return {"task": claim.task, "claim": claim.fence}


def _close(connection: Connection, claim: Claim, state: TaskState, error: str | None) -> bool:
    """End a claim; whether it was still held."""
    change = _GIVEN_BACK if state is TaskState.WAITING else _ENDED
    values = {**_held(claim), "state": state, "error": error}
    return connection.execute(change, values).rowcount > 0
