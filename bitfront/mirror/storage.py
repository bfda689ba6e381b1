"""Storage: Optuna's tables in a database of their own, written by one process at a time."""

from __future__ import annotations

import fcntl
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.exc import ArgumentError

from bitfront.errors import InvalidArgument

_MAKING, _WRITING = 0x6F70746D, 0x6F707477
_SCHEMA = re.compile(r"search_path=(\w+)")


@dataclass(eq=False)
class Storage:
    """An Optuna storage with what one process holds of it.

    Its tables have names that the study database has too, so on PostgreSQL they need a schema,
    named by `search_path` in the options of the URL and made here, or a database of their own.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://...?options=-csearch_path%3Doptuna`.

    Raises:
        InvalidArgument: another database, or no URL at all.
    """

    url: str

    def __post_init__(self) -> None:
        try:
            parsed = sa.make_url(self.url)
        except ArgumentError as error:
            raise InvalidArgument(
                "The URL of the Optuna mirror cannot be read: give sqlite:///FILE or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            ) from error
        kind = parsed.get_backend_name()
        if kind not in {"sqlite", "postgresql"} or not parsed.database:
            raise InvalidArgument(
                f"The Optuna mirror cannot be in {kind!r} without a file or database name: "
                "give sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            )
        self.file = Path(parsed.database) if kind == "sqlite" else None
        if self.file is None:
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._url = parsed.render_as_string(hide_password=False)
        self._lock: IO[bytes] | sa.Connection | None = None
        self._inode: int | None = None

    @cached_property
    def optuna(self) -> BaseStorage:
        """The storage; tables that are not there are made."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._tables = RDBStorage(self._url, {"connect_args": {"timeout": 30}})
            # Whoever reads the page does not wait for a writer; a lost commit is written again.
            sa.event.listen(self._tables.engine, "connect", _set_up_sqlite)
            self._tables.engine.dispose()
            self._inode = self.file.stat().st_ino
            return get_storage(self._tables)
        engine = self._connections
        with engine.connect() as connection:
            connection.execute(sa.text(f"select pg_advisory_lock({_MAKING})"))
            try:
                if found := _SCHEMA.search(str(engine.url.query.get("options", ""))):
                    connection.execute(sa.text(f'create schema if not exists "{found[1]}"'))
                self._tables = RDBStorage(self._url, {"pool_pre_ping": True})
                return get_storage(self._tables)
            finally:
                connection.execute(sa.text(f"select pg_advisory_unlock({_MAKING})"))

    @cached_property
    def _connections(self) -> sa.Engine:
        # Not Optuna's own: its connections come and go, and a lock lives as long as its connection.
        arguments: dict[str, Any] = {"connect_timeout": 3}
        return sa.create_engine(self._url, isolation_level="AUTOCOMMIT", connect_args=arguments)

    @property
    def is_lost(self) -> bool:
        """Whether the file was removed or replaced since it was opened."""
        if self.file is None or self._inode is None:
            return False
        return not self.file.exists() or self.file.stat().st_ino != self._inode

    def hold(self) -> bool:
        """Be the process that writes, until `close`; false while another one is."""
        if isinstance(self._lock, sa.Connection):
            # A lock that was lost with its connection is an error here, not two writers.
            self._lock.execute(sa.text("select 1"))
        elif self._lock is None:
            self._lock = self._taken()
        return self._lock is not None

    def _taken(self) -> IO[bytes] | sa.Connection | None:
        if self.file is None:
            connection = self._connections.connect()
            if connection.execute(sa.text(f"select pg_try_advisory_lock({_WRITING})")).scalar():
                return connection
            connection.close()
            return None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock = self.file.with_name(f"{self.file.name}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def close(self) -> None:
        """Let another process write; what is open is opened again when needed."""
        if isinstance(self._lock, sa.Connection):
            # The server hears of a closed connection late; one that is lost holds nothing.
            with suppress(sa.exc.SQLAlchemyError):
                self._lock.execute(sa.text(f"select pg_advisory_unlock({_WRITING})"))
            self._lock.invalidate()
        if self._lock is not None:
            self._lock.close()
        self._lock = self._inode = None
        if "_connections" in self.__dict__:
            self._connections.dispose()
        if "optuna" in self.__dict__:
            self.optuna.remove_session()
            self._tables.engine.dispose()
            del self.optuna


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("pragma journal_mode=wal")
    cursor.execute("pragma synchronous=normal")
    cursor.close()
