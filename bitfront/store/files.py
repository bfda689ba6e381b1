"""Which artifacts there are, and which file of which study each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from bitfront.store.clock import NOW
from bitfront.store.database import Database, insert_new
from bitfront.store.tables import artifacts, files


@dataclass(frozen=True)
class Files:
    """Files of a database's studies; their bytes are in the artifact store.

    Args:
        db: where the names are.
    """

    db: Database

    def add(self, digest: str, nbytes: int) -> None:
        """Note that an artifact is stored; again renews its time, which `unused` goes by."""
        if self._renewed(digest):
            return
        row = {"digest": digest, "nbytes": nbytes, "created_at": NOW}
        with self.db.writing() as connection:
            is_new = insert_new(connection, artifacts, row)
        if not is_new:  # another worker stored the same file at the same time
            self._renewed(digest)

    def _renewed(self, digest: str) -> bool:
        again = sa.update(artifacts).where(artifacts.c.digest == digest)
        with self.db.writing() as connection:
            return connection.execute(again.values(created_at=NOW)).rowcount > 0

    def of(self, study_id: str, prefix: str = "") -> dict[str, str]:
        """Name of each stored file of a study to its digest."""
        query = sa.select(files.c.name, files.c.digest).where(
            files.c.study_id == study_id, files.c.name.startswith(prefix, autoescape=True)
        )
        with self.db.reading() as connection:
            rows = connection.execute(query.order_by(files.c.name))
            return {row.name: row.digest for row in rows}

    def unused(self, older_than: float) -> list[str]:
        """Artifacts that no study refers to and that were stored more than some seconds ago."""
        used = sa.select(files.c.digest).where(files.c.digest == artifacts.c.digest).exists()
        query = sa.select(artifacts.c.digest).where(
            ~used, artifacts.c.created_at < NOW - older_than
        )
        with self.db.reading() as connection:
            return list(connection.execute(query).scalars())

    def listed(self) -> set[str]:
        """Digests of all artifacts that are noted here."""
        with self.db.reading() as connection:
            return set(connection.execute(sa.select(artifacts.c.digest)).scalars())

    def forget(
        self, digest: str, older_than: float, remove: Callable[[str], None] | None = None
    ) -> bool:
        """Drop an artifact from the list if it is still unused; true when it was dropped.

        Args:
            digest: of the artifact.
            older_than: seconds since it was stored.
            remove: takes its bytes away, before anybody can list it again.
        """
        used = sa.select(files.c.digest).where(files.c.digest == digest).exists()
        old = artifacts.c.created_at < NOW - older_than
        gone = sa.delete(artifacts).where(artifacts.c.digest == digest, ~used, old)
        with self.db.writing() as connection:
            is_gone = connection.execute(gone).rowcount > 0
            if is_gone and remove is not None:
                remove(digest)
            return is_gone

    def forget_unlisted(self, digest: str, remove: Callable[[str], None]) -> bool:
        """Take away the bytes of an artifact that is not listed; false when it is by now."""
        row = {"digest": digest, "nbytes": 0, "created_at": NOW}
        with self.db.writing() as connection:
            # Whoever wants to list it waits for this row, and then finds no bytes.
            if not insert_new(connection, artifacts, row):
                return False
            remove(digest)
            connection.execute(sa.delete(artifacts).where(artifacts.c.digest == digest))
        return True
