"""Finished trials in the order in which they finished: what a copy of a study is kept up with."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from bitfront.store.database import Database
from bitfront.store.records import FinishedTrial, Standing, StudyState
from bitfront.store.tables import events, studies, trials
from bitfront.trial import TrialState


@dataclass(frozen=True)
class Finished:
    """Finished trials of a database's studies; they never change.

    Args:
        db: where they are.
    """

    db: Database

    def standings(self) -> list[Standing]:
        """Where each study stands, newest first: one look-up of an index a study."""
        last = (
            sa.select(sa.func.max(events.c.id))
            .where(events.c.study_id == studies.c.id, events.c.kind == "trial")
            .scalar_subquery()
        )
        query = sa.select(studies.c.id, studies.c.state, last).order_by(studies.c.id.desc())
        with self.db.reading() as connection:
            return [
                Standing(study_id, StudyState(state), position or 0)
                for study_id, state, position in connection.execute(query)
            ]

    def since(self, study_id: str, position: int = 0) -> list[FinishedTrial]:
        """Trials of a study that finished after a position, in that order."""
        done = sa.select(events.c.id, events.c.body, events.c.at).where(
            events.c.study_id == study_id, events.c.kind == "trial", events.c.id > position
        )
        with self.db.reading() as connection:
            rows = connection.execute(done.order_by(events.c.id)).all()
            bodies = [json.loads(row.body) for row in rows]
            if not bodies:
                return []
            # A range, because thousands of numbers are more than a statement may name.
            numbers = [body["number"] for body in bodies]
            digests = sa.select(trials.c.number, trials.c.digest).where(
                trials.c.study_id == study_id,
                trials.c.number.between(min(numbers), max(numbers)),
            )
            digest = {row.number: row.digest for row in connection.execute(digests)}
        return [
            FinishedTrial(
                row.id,
                body["number"],
                body["text"],
                body["origin"],
                TrialState(body["state"]),
                body.get("values") or {},
                body.get("error"),
                digest.get(body["number"], ""),
                row.at,
            )
            for row, body in zip(rows, bodies, strict=True)
        ]
