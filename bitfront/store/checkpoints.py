"""Checkpoints: measured points that are to be, or were, written."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from bitfront.errors import Conflict, NotFound
from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.lifecycle import add_task
from bitfront.store.quotas import Quota
from bitfront.store.records import Checkpoint, Stage, TaskState
from bitfront.store.studies import locked_study
from bitfront.store.tables import checkpoints, tasks, trials
from bitfront.trial import TrialState


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of a database's studies.

    Args:
        db: where they are.
    """

    db: Database

    def create(
        self,
        study_id: str,
        trial: int,
        exporter: str,
        owner: str | None = None,
        quota: Quota | None = None,
    ) -> tuple[Checkpoint, bool]:
        """Have a measured point written as a checkpoint; asked twice, it is written once.

        Args:
            study_id: which study.
            trial: number of the point.
            exporter: what writes it.
            owner: who asks; `None` for anyone.
            quota: whose device hours count; `None` for what the study is bound by.

        Returns:
            The checkpoint, and whether it is new.

        Raises:
            NotFound: no such study or trial.
            Conflict: the trial has no measured values.
            OverQuota: it is not written yet, and the owner has no device hours left.
        """
        with self.db.writing() as connection:
            study = locked_study(connection, study_id, owner)
            place = (trials.c.study_id == study_id, trials.c.number == trial)
            state = connection.execute(sa.select(trials.c.state).where(*place)).scalar()
            if state is None:
                raise NotFound(f"Study {study_id} has no trial {trial}.")
            if state != TrialState.COMPLETE:
                raise Conflict(f"Trial {trial} of study {study_id} is {state}, not measured.")
            same = _CHECKPOINTS.where(
                checkpoints.c.study_id == study_id,
                checkpoints.c.trial == trial,
                checkpoints.c.exporter == exporter,
            )
            known = connection.execute(same).first()
            if known is None or known.state == TaskState.FAIL:
                bound = quota or Quota(max_device_hours=study.max_device_hours)
                bound.check_hours(connection, study.owner)
            if known is not None:
                if known.state == TaskState.FAIL:
                    self._write_again(connection, study_id, known.number)
                return _checkpoint(connection.execute(same).one()), False
            count = sa.select(sa.func.count()).where(checkpoints.c.study_id == study_id)
            number = connection.execute(count).scalar_one()
            row = {"study_id": study_id, "number": number, "trial": trial, "exporter": exporter}
            row |= {"state": TaskState.WAITING, "created_at": NOW}
            connection.execute(sa.insert(checkpoints).values(row))
            add_task(connection, study_id, Stage.MATERIALISE, number, study.queue)
            return _checkpoint(connection.execute(same).one()), True

    def _write_again(self, connection: Connection, study_id: str, number: int) -> None:
        place = (checkpoints.c.study_id == study_id, checkpoints.c.number == number)
        again: dict[str, object] = {"state": TaskState.WAITING, "error": None}
        connection.execute(sa.update(checkpoints).where(*place).values(again))
        task = (
            tasks.c.study_id == study_id,
            tasks.c.stage == Stage.MATERIALISE,
            tasks.c.number == number,
        )
        again = {"state": TaskState.WAITING, "attempts": 0, "rung_at": None, "error": None}
        connection.execute(sa.update(tasks).where(*task).values(again))

    def of(self, study_id: str) -> list[Checkpoint]:
        """Checkpoints of a study in the order they were asked for."""
        query = _CHECKPOINTS.where(checkpoints.c.study_id == study_id)
        with self.db.reading() as connection:
            rows = connection.execute(query.order_by(checkpoints.c.number))
            return [_checkpoint(row) for row in rows]


_CHECKPOINTS = sa.select(checkpoints, tasks.c.state.label("task")).outerjoin(
    tasks,
    sa.and_(
        tasks.c.study_id == checkpoints.c.study_id,
        tasks.c.stage == Stage.MATERIALISE,
        tasks.c.number == checkpoints.c.number,
    ),
)


def _checkpoint(row: Row[tuple[object, ...]]) -> Checkpoint:
    # Only its task knows that it is being written, and forgets that when its worker gives it back.
    is_written_now = row.state == TaskState.WAITING and row.task == TaskState.RUNNING
    return Checkpoint(
        row.study_id,
        row.number,
        row.trial,
        row.exporter,
        TaskState.RUNNING if is_written_now else TaskState(row.state),
        row.error,
        row.created_at,
        row.finished_at,
    )
