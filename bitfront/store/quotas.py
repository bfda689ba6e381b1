"""Quotas of owners: unfinished studies, and hours that workers held their tasks."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from bitfront.errors import OverQuota
from bitfront.store.clock import NOW
from bitfront.store.database import insert_new, lock_number
from bitfront.store.records import StudyState, TaskState
from bitfront.store.tables import studies, tasks, usage

_HOUR = 3600.0
_N_OPEN = sa.select(sa.func.count()).where(
    studies.c.owner == bindparam("owner"),
    studies.c.id != bindparam("study"),
    studies.c.state.in_([state for state in StudyState if not state.is_final]),
)
HELD_SECONDS = tasks.c.seconds + sa.case(
    (
        tasks.c.state == TaskState.RUNNING,
        sa.case((tasks.c.lease_until < NOW, tasks.c.lease_until), else_=NOW) - tasks.c.started_at,
    ),
    else_=0.0,
)
"""That workers held a task, who holds it now included; a lease that ended counts to its end."""
_SUM = sa.func.coalesce(sa.func.sum(HELD_SECONDS), 0.0)
_OF_TASKS = (
    sa.select(_SUM)
    .join(studies, studies.c.id == tasks.c.study_id)
    .where(studies.c.owner == bindparam("owner"))
)
_OF_DELETED = sa.select(usage.c.seconds).where(usage.c.owner == bindparam("owner"))
_BOUND = sa.select(studies.c.owner, studies.c.max_device_hours).where(
    studies.c.id == bindparam("study")
)


@dataclass(frozen=True)
class Quota:
    """What an owner may have; `None` for no bound.

    Args:
        max_running: unfinished studies at once.
        max_device_hours: hours that workers held tasks of all the owner's studies, ever.
    """

    max_running: int | None = None
    max_device_hours: float | None = None

    def check(self, connection: Connection, owner: str, study_id: str) -> None:
        """Refuse an unfinished study, itself not counted, beside those that an owner has.

        Raises:
            OverQuota: says what was used and what is allowed.
        """
        if self.max_running is not None:
            if connection.dialect.name == "postgresql":
                # Two requests of an owner must not both count before either adds.
                number = lock_number(f"quota {owner}")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
            place = {"owner": owner, "study": study_id}
            n_open = connection.execute(_N_OPEN, place).scalar_one()
            if n_open >= self.max_running:
                raise OverQuota(
                    f"{owner} has {n_open} unfinished studies of at most {self.max_running}: "
                    "wait for one or cancel it."
                )
        self.check_hours(connection, owner)

    def check_hours(self, connection: Connection, owner: str) -> None:
        """Refuse more work for an owner without device hours left.

        Raises:
            OverQuota: says what was used and what is allowed.
        """
        if line := _spent(connection, owner, self.max_device_hours):
            raise OverQuota(line)


def device_seconds(connection: Connection, owner: str) -> float:
    """How long workers held tasks of an owner, those of deleted studies included."""
    of_tasks = connection.execute(_OF_TASKS, {"owner": owner}).scalar_one()
    of_deleted = connection.execute(_OF_DELETED, {"owner": owner}).scalar()
    return float(of_tasks) + float(of_deleted or 0.0)


def spent(connection: Connection, study_id: str) -> str:
    """Why a study may use no more hours of devices, in a line; empty where it may."""
    row = connection.execute(_BOUND, {"study": study_id}).first()
    return _spent(connection, row.owner, row.max_device_hours) if row else ""


def _spent(connection: Connection, owner: str, hours: float | None) -> str:
    if hours is None:
        return ""
    used = device_seconds(connection, owner) / _HOUR
    if used < hours:
        return ""
    return (
        f"{owner} has used {used:.4g} device hours of at most {hours:g}: ask for a key with more, "
        "then resume what was stopped."
    )


def keep_usage(connection: Connection, study_id: str) -> None:
    """Keep what a study used, which is about to be deleted."""
    query = sa.select(studies.c.owner, _SUM)
    query = query.join(tasks, tasks.c.study_id == studies.c.id).where(studies.c.id == study_id)
    for owner, seconds in connection.execute(query.group_by(studies.c.owner)).all():
        # Another transaction may be the first at the same time.
        insert_new(connection, usage, {"owner": owner, "seconds": 0.0})
        more = sa.update(usage).where(usage.c.owner == owner)
        connection.execute(more.values(seconds=usage.c.seconds + seconds))
