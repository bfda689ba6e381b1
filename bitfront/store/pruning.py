"""Pruning: rows that would only ever become more, taken away once nobody asks for them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from bitfront.store.clock import NOW
from bitfront.store.database import Database
from bitfront.store.tables import audit, spaces, studies, workers

DAY = 24 * 3600.0

_SEARCHED = sa.select(studies.c.id).where(studies.c.space == spaces.c.digest).exists()
_UNUSED_SPACES = sa.delete(spaces).where(~_SEARCHED)
_OLD_WORKERS = sa.delete(workers).where(workers.c.seen_at < NOW - DAY)


def pruned(db: Database, audit_days: float) -> int:
    """Remove workers not heard of for a day, old audits, and spaces that no study searches.

    Args:
        db: where they are.
        audit_days: how long it is kept who did what.

    Returns:
        How many rows that were.
    """
    n_spaces = 0
    try:
        with db.writing() as connection:
            n_spaces = connection.execute(_UNUSED_SPACES).rowcount
    except IntegrityError:  # a study was prepared just now, and searches one of them
        pass
    old_audits = sa.delete(audit).where(audit.c.at < NOW - audit_days * DAY)
    with db.writing() as connection:
        return n_spaces + sum(
            connection.execute(old).rowcount for old in (_OLD_WORKERS, old_audits)
        )
