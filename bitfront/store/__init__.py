"""The study database: what was asked, what is being done, what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bitfront.store.activity import Activity
from bitfront.store.checkpoints import Checkpoints
from bitfront.store.database import Database
from bitfront.store.doorbell import Doorbell
from bitfront.store.files import Files
from bitfront.store.finished import Finished
from bitfront.store.keys import Keys
from bitfront.store.queue import Queue
from bitfront.store.studies import Studies
from bitfront.store.trials import Trials

__all__ = ["Database", "Store"]


@dataclass(frozen=True)
class Store:
    """Every question to the database, by what it is about.

    Args:
        url: as in `Database`.
        lease_seconds: how long a worker holds a task without being heard of.
        answer_seconds: as in `Database`.
    """

    url: str
    lease_seconds: float = 60.0
    answer_seconds: float = 30.0

    @cached_property
    def db(self) -> Database:
        """Connections and transactions."""
        return Database(self.url, self.answer_seconds)

    @cached_property
    def studies(self) -> Studies:
        """Requests and where they stand."""
        return Studies(self.db)

    @cached_property
    def trials(self) -> Trials:
        """Allocations and what was measured of them."""
        return Trials(self.db)

    @cached_property
    def queue(self) -> Queue:
        """Tasks and their leases."""
        return Queue(self.db, self.lease_seconds)

    @cached_property
    def doorbell(self) -> Doorbell:
        """Tasks that workers are to be told of."""
        return Doorbell(self.db)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Points written, or to be written."""
        return Checkpoints(self.db)

    @cached_property
    def files(self) -> Files:
        """Stored files."""
        return Files(self.db)

    @cached_property
    def activity(self) -> Activity:
        """Events, tasks, workers."""
        return Activity(self.db)

    @cached_property
    def finished(self) -> Finished:
        """Finished trials as they came."""
        return Finished(self.db)

    @cached_property
    def keys(self) -> Keys:
        """API keys and the audit log."""
        return Keys(self.db)
