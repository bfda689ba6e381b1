"""Stored studies: made, read, cancelled, resumed, extended."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy import Connection, Row, bindparam
from sqlalchemy.dialects import postgresql, sqlite

from bitfront.errors import Conflict, InFlight, InvalidArgument, KeyReused, NotFound
from bitfront.store.clock import NOW
from bitfront.store.database import Database, lock_number
from bitfront.store.ids import new_id
from bitfront.store.lifecycle import STUDY, add_task, advance, lock, note, set_state
from bitfront.store.quotas import Quota, keep_usage
from bitfront.store.records import (
    Stage,
    StoredStudy,
    StudyState,
    TaskState,
)
from bitfront.store.tables import (
    idempotency,
    studies,
    tasks,
)
from bitfront.study import Study

_NEW_STUDY = (
    sa.insert(studies)
    .values(state=StudyState.WAITING, stage=Stage.PREPARE, created_at=NOW)
    .returning(studies.c.created_at)
)
_NEW_KEY = {
    name: kind.insert(idempotency)
    .values(created_at=NOW)
    # Waits for another request of the same key to be stored or given up.
    .on_conflict_do_nothing()
    .returning(idempotency.c.key)
    for name, kind in (("sqlite", sqlite), ("postgresql", postgresql))
}
_IS_MINE = sa.select(sa.func.pg_try_advisory_xact_lock(bindparam("number", type_=sa.BigInteger)))
_USED_KEY = sa.select(idempotency).where(
    idempotency.c.owner == bindparam("owner"), idempotency.c.key == bindparam("key")
)
FREE = Quota()


@dataclass(frozen=True)
class Studies:
    """Studies of a database; `owner` of `None` sees those of everyone.

    Args:
        db: where they are.
    """

    db: Database

    def create(
        self,
        study: Study,
        owner: str,
        queue: str = "cpu",
        key: str | None = None,
        quota: Quota = FREE,
    ) -> tuple[StoredStudy, bool]:
        """Store a study and queue its first task.

        Args:
            study: the request.
            owner: whose it is.
            queue: where its first task runs.
            key: an idempotency key; the same key and request give the study that is there.
            quota: what the owner may have.

        Returns:
            The study, and whether it is new.

        Raises:
            KeyReused: the key was used for another request.
            InFlight: a request with that key is being answered.
            OverQuota: the owner has too many unfinished studies, or no device hours left.
        """
        body, study_id = study.to_json(), new_id()
        row: dict[str, object] = {"id": study_id, "owner": owner, "request": body, "queue": queue}
        row["max_device_hours"] = quota.max_device_hours
        digest = hashlib.sha256(body.encode()).hexdigest()
        used = {"owner": owner, "key": key, "body_digest": digest, "study_id": study_id}
        with self.db.writing() as connection:
            if key is not None:
                self._refuse_in_flight(connection, owner, key)
            created_at = connection.execute(_NEW_STUDY, row).scalar_one()
            new_key = _NEW_KEY[connection.dialect.name]
            if key is not None and connection.execute(new_key, used).first() is None:
                connection.execute(sa.delete(studies).where(studies.c.id == study_id))
                return _stored(self._made_before(connection, owner, key, digest)), False
            quota.check(connection, owner, study_id)
            note(connection, study_id, "state", {"state": StudyState.WAITING})
            add_task(connection, study_id, Stage.PREPARE, 0, queue)
        state, stage = StudyState.WAITING, Stage.PREPARE.value
        return StoredStudy(
            study_id, owner, study, state, stage, 0, 0, None, created_at, None, None
        ), True

    def _made_before(
        self, connection: Connection, owner: str, key: str, digest: str
    ) -> Row[tuple[object, ...]]:
        used = connection.execute(_USED_KEY, {"owner": owner, "key": key}).one()
        if used.body_digest != digest:
            raise KeyReused(
                f"Idempotency-Key {key!r} was used for another request: use a new key for it."
            )
        return study_row(connection, used.study_id, owner)

    def _refuse_in_flight(self, connection: Connection, owner: str, key: str) -> None:
        """Have a second request not wait for the first, which would hold a connection.

        On SQLite a writer waits for every other anyway.
        """
        if connection.dialect.name != "postgresql":
            return
        number = lock_number(f"{owner} {key}")
        if connection.execute(_IS_MINE, {"number": number}).scalar_one():
            return
        if connection.execute(_USED_KEY, {"owner": owner, "key": key}).first() is None:
            raise InFlight(
                f"A request with Idempotency-Key {key!r} is being answered: send it again."
            )

    def get(self, study_id: str, owner: str | None = None) -> StoredStudy:
        """One study.

        Raises:
            NotFound: there is none, or it is another owner's.
        """
        with self.db.reading() as connection:
            return _stored(study_row(connection, study_id, owner))

    def page(
        self,
        owner: str | None = None,
        state: StudyState | None = None,
        before: str | None = None,
        n: int = 50,
    ) -> list[StoredStudy]:
        """Studies, newest first, from the one after `before` on."""
        query = sa.select(studies).order_by(studies.c.id.desc()).limit(n)
        if owner is not None:
            query = query.where(studies.c.owner == owner)
        if state is not None:
            query = query.where(studies.c.state == state)
        if before is not None:
            query = query.where(studies.c.id < before)
        with self.db.reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def cancel(self, study_id: str, owner: str | None = None) -> StoredStudy:
        """Drop what waits and have what runs given up; what was measured stays.

        Raises:
            NotFound: as `get`.
            Conflict: the study is over.
        """
        with self.db.writing() as connection:
            state = StudyState(locked_study(connection, study_id, owner).state)
            if state.is_final:
                raise Conflict(f"Study {study_id} is {state}: there is nothing to cancel.")
            waiting = (
                tasks.c.study_id == study_id,
                tasks.c.state == TaskState.WAITING,
                tasks.c.stage != Stage.MATERIALISE,
            )
            dropped = {"state": TaskState.CANCELLED, "finished_at": NOW}
            connection.execute(sa.update(tasks).where(*waiting).values(dropped))
            if state is not StudyState.CANCELLING:
                set_state(connection, study_id, StudyState.CANCELLING)
            advance(connection, study_id)
            return _stored(study_row(connection, study_id, owner))

    def resume(self, study_id: str, owner: str | None = None, quota: Quota = FREE) -> StoredStudy:
        """Go on with a study that was cancelled, failed, or was stopped on its way.

        Raises:
            NotFound: as `get`.
            Conflict: it ran to its end, is not over yet, or its owner has no quota left.
        """
        with self.db.writing() as connection:
            row = locked_study(connection, study_id, owner)
            state = StudyState(row.state)
            is_stopped = state is StudyState.PARTIAL and row.error is not None
            if not (is_stopped or state in {StudyState.CANCELLED, StudyState.FAIL}):
                more = ": extend it to measure more" if state.is_final else ""
                raise Conflict(f"Study {study_id} is {state}, not cancelled or failed{more}.")
            # It may have been stopped before it was cancelled or failed.
            self._search_on(connection, study_id)
            self._reopen(connection, study_id, quota)
            return _stored(study_row(connection, study_id, owner))

    def extend(
        self,
        study_id: str,
        n_trials: int | None = None,
        max_minutes: float | None = None,
        owner: str | None = None,
        quota: Quota = FREE,
    ) -> StoredStudy:
        """Give a study more measurements or more time; one that is over goes on.

        Raises:
            NotFound: as `get`.
            Conflict: it is being cancelled, or its owner has no quota left.
            InvalidArgument: fewer or less than it had, or nothing at all.
        """
        with self.db.writing() as connection:
            row = locked_study(connection, study_id, owner)
            state, study = StudyState(row.state), Study.from_json(row.request)
            if state is StudyState.CANCELLING:
                raise Conflict(f"Study {study_id} is being cancelled: wait, then resume it.")
            more = replace(
                study,
                n_trials=study.n_trials if n_trials is None else n_trials,
                max_minutes=study.max_minutes if max_minutes is None else max_minutes,
            )
            # A study without a bound has all the time there is.
            bound = float("inf") if study.max_minutes is None else study.max_minutes
            shorter = more.max_minutes is not None and more.max_minutes < bound
            if more == study or more.n_trials < study.n_trials or shorter:
                raise InvalidArgument(
                    f"Study {study_id} has {study.n_trials} trials and "
                    f"{study.max_minutes or 'unbounded'} minutes: give more of one of them."
                )
            change = sa.update(studies).where(studies.c.id == study_id)
            connection.execute(change.values(request=more.to_json()))
            self._search_on(connection, study_id)
            if state.is_final:
                self._reopen(connection, study_id, quota)
            else:
                self._admit(connection, row.owner, study_id, quota)
                # The steps in all have changed.
                advance(connection, study_id)
            return _stored(study_row(connection, study_id, owner))

    def _search_on(self, connection: Connection, study_id: str) -> None:
        """Let the proposal that found the search at its end be asked for again."""
        row = study_row(connection, study_id, None)
        if not row.search_ended:
            return
        change = sa.update(studies).where(studies.c.id == study_id)
        connection.execute(change.values(search_ended=False, error=None))
        last = sa.select(sa.func.max(tasks.c.number)).where(
            tasks.c.study_id == study_id, tasks.c.stage == Stage.PROPOSE
        )
        number = connection.execute(last).scalar_one()
        again = sa.update(tasks).where(
            tasks.c.study_id == study_id, tasks.c.stage == Stage.PROPOSE, tasks.c.number == number
        )
        connection.execute(again.values(state=TaskState.WAITING, attempts=0, rung_at=None))

    def _reopen(self, connection: Connection, study_id: str, quota: Quota) -> None:
        row = study_row(connection, study_id, None)
        self._admit(connection, row.owner, study_id, quota)
        new = StudyState.RUNNING if row.started_at or row.space else StudyState.WAITING
        set_state(connection, study_id, new)
        # Failed measurements are results and stay; everything else is tried again.
        undone = sa.or_(
            tasks.c.state == TaskState.CANCELLED,
            sa.and_(tasks.c.state == TaskState.FAIL, tasks.c.stage != Stage.EVALUATE),
        )
        again = {"state": TaskState.WAITING, "attempts": 0, "rung_at": None, "error": None}
        place = (tasks.c.study_id == study_id, tasks.c.stage != Stage.MATERIALISE, undone)
        connection.execute(sa.update(tasks).where(*place).values(again))
        advance(connection, study_id)

    def _admit(self, connection: Connection, owner: str, study_id: str, quota: Quota) -> None:
        """Let a study go on within the quota of who asks, which bounds it from now on."""
        quota.check(connection, owner, study_id)
        bound = sa.update(studies).where(studies.c.id == study_id)
        connection.execute(bound.values(max_device_hours=quota.max_device_hours))

    def delete(self, study_id: str, owner: str | None = None) -> None:
        """Remove a study and all that only it refers to.

        Raises:
            NotFound: as `get`.
            Conflict: it is not over.
        """
        with self.db.writing() as connection:
            state = StudyState(locked_study(connection, study_id, owner).state)
            if not state.is_final:
                raise Conflict(f"Study {study_id} is {state}: cancel it first.")
            keep_usage(connection, study_id)
            connection.execute(sa.delete(studies).where(studies.c.id == study_id))


def study_row(connection: Connection, study_id: str, owner: str | None) -> Row[tuple[object, ...]]:
    """A study's row.

    Raises:
        NotFound: there is none, or it is another owner's.
    """
    row = connection.execute(STUDY, {"study": study_id}).first()
    # Another owner's study does not exist to this one.
    if row is None or owner not in (None, row.owner):
        raise NotFound(f"No study {study_id!r}.")
    return row


def locked_study(
    connection: Connection, study_id: str, owner: str | None
) -> Row[tuple[object, ...]]:
    """A study's row, held until the transaction ends.

    Raises:
        NotFound: as `study_row`.
    """
    study_row(connection, study_id, owner)
    row = lock(connection, study_id)
    if row is None:
        raise NotFound(f"No study {study_id!r}.")
    return row


@lru_cache(maxsize=256)
def _request(text: str) -> Study:
    return Study.from_json(text)


def _stored(row: Row[tuple[object, ...]]) -> StoredStudy:
    return StoredStudy(
        row.id,
        row.owner,
        _request(row.request),
        StudyState(row.state),
        row.stage,
        row.done,
        row.total,
        row.error,
        row.created_at,
        row.started_at,
        row.finished_at,
    )
