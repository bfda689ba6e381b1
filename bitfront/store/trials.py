"""Stored trials and the front they make."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Row, bindparam

from bitfront.allocation import Allocation
from bitfront.errors import NotFound
from bitfront.pareto import ParetoFront, objectives
from bitfront.space import SearchSpace
from bitfront.store.database import Database
from bitfront.store.lifecycle import space_of
from bitfront.store.records import TrialRow
from bitfront.store.studies import study_row
from bitfront.store.tables import studies, trials
from bitfront.study import Study
from bitfront.trial import Trial, TrialState

_TRIAL = (
    sa.select(trials, studies.c.space)
    .join(studies, studies.c.id == trials.c.study_id)
    .where(trials.c.study_id == bindparam("study"), trials.c.number == bindparam("trial"))
)


@dataclass(frozen=True)
class Trials:
    """Trials of a database's studies.

    Args:
        db: where they are.
    """

    db: Database

    def space(self, study_id: str) -> SearchSpace | None:
        """What is searched; `None` before the study is prepared."""
        with self.db.reading() as connection:
            row = study_row(connection, study_id, None)
            return space_of(connection, row.space) if row.space else None

    def of(
        self,
        study_id: str,
        text: str | None = None,
        after: int = -1,
        n: int | None = None,
        finished: bool = False,
    ) -> list[Trial]:
        """Trials by number; those not measured yet are RUNNING.

        Args:
            study_id: which study.
            text: only those on this text.
            after: only larger numbers.
            n: at most so many.
            finished: only those that are measured or failed.
        """
        query = sa.select(trials).where(trials.c.study_id == study_id, trials.c.number > after)
        query = query.order_by(trials.c.number).limit(n)
        if text is not None:
            query = query.where(trials.c.text == text)
        if finished:
            query = query.where(trials.c.state != TrialState.RUNNING)
        with self.db.reading() as connection:
            study = study_row(connection, study_id, None)
            if study.space is None:
                return []
            space = space_of(connection, study.space)
            return [_trial(row, space) for row in connection.execute(query)]

    def rows(self, study_id: str, text: str | None = None) -> list[TrialRow]:
        """Trials by number without their allocations.

        Args:
            study_id: which study.
            text: only those on this text.
        """
        query = sa.select(trials).where(trials.c.study_id == study_id).order_by(trials.c.number)
        if text is not None:
            query = query.where(trials.c.text == text)
        with self.db.reading() as connection:
            return [_row(row) for row in connection.execute(query)]

    def get(self, study_id: str, number: int) -> Trial:
        """One trial.

        Raises:
            NotFound: there is none of that number.
        """
        with self.db.reading() as connection:
            row = connection.execute(_TRIAL, {"study": study_id, "trial": number}).first()
            if row is None:
                raise NotFound(f"Study {study_id} has no trial {number}.")
            return _trial(row, space_of(connection, row.space))

    def front(self, study_id: str, text: str = "evaluation") -> ParetoFront:
        """Non-dominated finished trials of a text; empty where nothing is measured."""
        place = (trials.c.study_id == study_id, trials.c.text == text)
        query = sa.select(trials.c.number, trials.c.measured).order_by(trials.c.number)
        with self.db.reading() as connection:
            study = study_row(connection, study_id, None)
            found = connection.execute(query.where(*place, trials.c.state == TrialState.COMPLETE))
            # An allocation of thousands of layers is made for the points of the front only.
            bare = [
                Trial(row.number, Allocation({}), text, "", values=json.loads(row.measured))
                for row in found
            ]
            bounded = Study.from_json(str(study.request)).budget.bounds()
            front = ParetoFront(tuple(bare), objectives(bare, bounded))
            if not front.trials:
                return front
            space = space_of(connection, study.space)
            numbers = [trial.number for trial in front.trials]
            rows = connection.execute(sa.select(trials).where(*place, trials.c.number.in_(numbers)))
            whole = {row.number: _trial(row, space) for row in rows}
        return ParetoFront(tuple(whole[number] for number in numbers), front.objectives)


def _row(row: Row[tuple[object, ...]]) -> TrialRow:
    return TrialRow(
        row.number,
        row.text,
        row.origin,
        TrialState(row.state),
        json.loads(row.measured),
        row.error,
        bytes(row.choice),
    )


def _trial(row: Row[tuple[object, ...]], space: SearchSpace) -> Trial:
    return Trial(
        row.number,
        space.decode(np.frombuffer(row.choice, np.uint8), row.digest),
        row.text,
        row.origin,
        TrialState(row.state),
        json.loads(row.measured),
        row.error,
        row.target,
    )
