"""What goes on: events of a study, tasks of the queue, workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Row

from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.records import (
    Claim,
    Stage,
    StoredEvent,
    StudyState,
    TaskRow,
    TaskState,
    Worker,
)
from bitfront.store.tables import events, studies, tasks, workers

_IN_VAIN = (
    sa.select(tasks)
    .join(studies, studies.c.id == tasks.c.study_id)
    .where(studies.c.state == StudyState.CANCELLING, tasks.c.state == TaskState.RUNNING)
    .where(tasks.c.stage != Stage.MATERIALISE)
)


@dataclass(frozen=True)
class Activity:
    """Reads what workers and studies do.

    Args:
        db: where it is written.
    """

    db: Database

    def tasks(self, study_id: str | None = None, states: Sequence[TaskState] = ()) -> list[TaskRow]:
        """Tasks, oldest first; of one study and in some states where named."""
        query = sa.select(tasks).order_by(tasks.c.id)
        if study_id is not None:
            query = query.where(tasks.c.study_id == study_id)
        if states:
            query = query.where(tasks.c.state.in_(states))
        with self.db.reading() as connection:
            return [task_row(row) for row in connection.execute(query)]

    def in_vain(self) -> dict[Claim, str]:
        """Claims of studies that are being cancelled, and the names of the workers that hold them.

        Those of checkpoints are none: whoever asked for one may want it all the same.
        """
        with self.db.reading() as connection:
            return {
                Claim(
                    row.id, row.study_id, Stage(row.stage), row.number, row.fence, row.attempts
                ): row.worker
                for row in connection.execute(_IN_VAIN)
            }

    def finished(self, study_id: str, stage: Stage, n: int = 50) -> list[TaskRow]:
        """The tasks of a stage with the largest numbers among those that left a result."""
        place = (tasks.c.study_id == study_id, tasks.c.stage == stage)
        query = sa.select(tasks).where(*place, tasks.c.state == TaskState.COMPLETE)
        with self.db.reading() as connection:
            rows = connection.execute(query.order_by(tasks.c.number.desc()).limit(n))
            return [task_row(row) for row in rows]

    def events(self, study_id: str, after: int = 0, n: int = 500) -> list[StoredEvent]:
        """What happened to a study after an event, oldest first."""
        query = (
            sa.select(events)
            .where(events.c.study_id == study_id, events.c.id > after)
            .order_by(events.c.id)
            .limit(n)
        )
        with self.db.reading() as connection:
            return [
                StoredEvent(row.id, row.study_id, row.kind, row.body, row.at)
                for row in connection.execute(query)
            ]

    def latest(self, study_id: str, n: int = 50) -> list[StoredEvent]:
        """What happened to a study last, newest first."""
        query = sa.select(events).where(events.c.study_id == study_id)
        query = query.order_by(events.c.id.desc()).limit(n)
        with self.db.reading() as connection:
            return [
                StoredEvent(row.id, row.study_id, row.kind, row.body, row.at)
                for row in connection.execute(query)
            ]

    def workers(self, within: float = 3600.0) -> list[Worker]:
        """Workers that were heard of within the last seconds."""
        query = sa.select(workers).where(workers.c.seen_at > NOW - within)
        with self.db.reading() as connection:
            return [Worker(**row._mapping) for row in connection.execute(query.order_by("name"))]

    def n_tasks(self) -> dict[tuple[str, str, str], int]:
        """How many tasks there are by queue, stage and state."""
        key = (tasks.c.queue, tasks.c.stage, tasks.c.state)
        query = sa.select(*key, sa.func.count()).group_by(*key)
        with self.db.reading() as connection:
            return {(q, stage, state): n for q, stage, state, n in connection.execute(query)}

    def n_studies(self) -> dict[str, int]:
        """How many studies there are by state."""
        query = sa.select(studies.c.state, sa.func.count().label("n")).group_by(studies.c.state)
        with self.db.reading() as connection:
            return {row.state: row.n for row in connection.execute(query)}

    def n_stale(self) -> int:
        """How many results came too late and were refused."""
        query = sa.select(sa.func.count()).where(events.c.kind == "stale")
        with self.db.reading() as connection:
            return int(connection.execute(query).scalar_one())


def task_row(row: Row[tuple[object, ...]]) -> TaskRow:
    """A row of `tasks` as people look at it."""
    return TaskRow(
        row.id,
        row.study_id,
        Stage(row.stage),
        row.number,
        row.queue,
        TaskState(row.state),
        row.attempts,
        row.worker,
        row.lease_until,
        row.created_at,
        row.started_at,
        row.finished_at,
        row.error,
    )
