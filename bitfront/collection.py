"""Collection of stored files and rows that nothing refers to any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bitfront.artifacts import Artifacts
from bitfront.errors import BitfrontError
from bitfront.repeated import Repeated
from bitfront.settings import AUDIT_DAYS
from bitfront.store import Store
from bitfront.store.pruning import DAY, pruned

logger = logging.getLogger(__name__)

HOUR = 3600.0


@dataclass(frozen=True)
class Collected:
    """What a collection removed.

    Args:
        n_unused: listed files that nothing referred to.
        n_unlisted: files that were stored and never listed, by workers that were killed.
        n_rows: of tables that would only ever grow, as `pruned` has them.
    """

    n_unused: int
    n_unlisted: int
    n_rows: int


def collect(
    store: Store, artifacts: Artifacts, older_than: float = DAY, audit_days: float = AUDIT_DAYS
) -> Collected:
    """Remove stored files that nothing refers to; those of running tasks are younger than that.

    Args:
        store: says what refers to what.
        artifacts: where the files are.
        older_than: seconds since a file was stored; a task must be done within them.
        audit_days: as of `pruned`.
    """
    unused = [
        digest
        for digest in store.files.unused(older_than)
        if store.files.forget(digest, older_than, artifacts.remove)
    ]
    listed = store.files.listed()
    unlisted = [
        digest
        for digest in artifacts.all()
        if digest not in listed
        and artifacts.age(digest) > older_than
        and store.files.forget_unlisted(digest, artifacts.remove)
    ]
    return Collected(len(unused), len(unlisted), pruned(store.db, audit_days))


class Collector(Repeated):
    """Collects every hour, from a thread of its own, inside a `with` block.

    Args:
        store: as of `collect`.
        artifacts: as of `collect`.
        audit_days: as of `collect`.
        seconds: between collections.
    """

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        audit_days: float = AUDIT_DAYS,
        seconds: float = HOUR,
    ) -> None:
        super().__init__("collector", seconds)
        self._store = store
        self._artifacts = artifacts
        self._audit_days = audit_days

    def once(self) -> None:
        """`collect`; what cannot be removed now is the next hour's."""
        try:
            removed = collect(self._store, self._artifacts, audit_days=self._audit_days)
        except (BitfrontError, OSError) as error:
            logger.warning("cannot collect unused files: %s", error)
        else:
            told = "collected %d unused and %d unlisted files, pruned %d rows"
            logger.info(told, removed.n_unused, removed.n_unlisted, removed.n_rows)
