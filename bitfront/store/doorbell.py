"""The doorbell: which waiting tasks a transport is to tell workers of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from bitfront.store.activity import task_row
from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.queue import may_run
from bitfront.store.records import TaskRow
from bitfront.store.tables import studies, tasks


@dataclass(frozen=True)
class Doorbell:
    """Tasks of a database that wait to be told of.

    Args:
        db: where they are.
    """

    db: Database

    def take_to_ring(self, seconds: float, n: int = 100) -> list[TaskRow]:
        """Tasks to be done that nobody rang for within the last seconds; marked as rung for."""
        late = sa.or_(tasks.c.rung_at.is_(None), tasks.c.rung_at < NOW - seconds)
        query = (
            sa.select(tasks)
            .join(studies, studies.c.id == tasks.c.study_id)
            .where(may_run(), late)
            .order_by(tasks.c.id)
            .limit(n)
        )
        with self.db.reading() as connection:
            # Most often there is none, and reading waits for nobody.
            if connection.execute(query).first() is None:
                return []
        with self.db.writing() as connection:
            rows = connection.execute(query.with_for_update(of=tasks, skip_locked=True)).all()
            change = sa.update(tasks).where(tasks.c.id.in_([row.id for row in rows]))
            connection.execute(change.values(rung_at=NOW))
            return [task_row(row) for row in rows]

    def is_due(self, queues: Sequence[str]) -> bool:
        """Whether a task of some queues is to be done; nothing is taken."""
        query = sa.select(tasks.c.id).join(studies, studies.c.id == tasks.c.study_id)
        query = query.where(tasks.c.queue.in_(queues), may_run()).limit(1)
        with self.db.reading() as connection:
            return connection.execute(query).first() is not None

    def unring(self, task_ids: Sequence[int]) -> None:
        """Note that ringing for some tasks failed."""
        with self.db.writing() as connection:
            change = sa.update(tasks).where(tasks.c.id.in_(task_ids))
            connection.execute(change.values(rung_at=None))
