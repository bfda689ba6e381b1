"""Database: one engine, its clock, its transactions, and the schema it must have."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from bitfront.errors import InvalidArgument, StorageError, first_line
from bitfront.store.clock import NOW

_BUSY_SECONDS = 30
_ASKS_SECONDS = 0.002
_N_CONNECTIONS = 16
_BUSY = "The database cannot be used now: others write for too long."
_UPGRADE_LOCK = 0x62697466
_KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Database:
    """SQLite (in write-ahead mode) or PostgreSQL behind one URL.

    Args:
        url: `sqlite:///path/to/bitfront.db` or `postgresql+psycopg://user:password@host/name`.
        answer_seconds: how long a PostgreSQL server may be silent before it counts as down.

    Raises:
        InvalidArgument: another database, or no URL at all.
    """

    url: str
    answer_seconds: float = 30.0
    _line: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        try:
            parsed = make_url(self.url)
        except ArgumentError as error:
            raise InvalidArgument(
                "The database URL cannot be read: give sqlite:///FILE or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            ) from error
        if parsed.get_backend_name() not in _KINDS:
            raise InvalidArgument(
                f"Database {parsed.get_backend_name()!r} is not supported: "
                "use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            )
        if self._is_sqlite and not parsed.database:
            raise InvalidArgument("An SQLite database in memory is of one process: name a file.")

    @property
    def _parsed(self) -> URL:
        parsed = make_url(self.url)
        # The only driver of ours; a bare postgresql:// would mean psycopg2.
        return parsed if self._is_sqlite else parsed.set(drivername="postgresql+psycopg")

    @cached_property
    def _is_sqlite(self) -> bool:
        return make_url(self.url).get_backend_name() == "sqlite"

    def time(self) -> float:
        """Seconds since 1970 on the database's clock."""
        with self.reading() as connection:
            return float(connection.execute(select(NOW)).scalar_one())

    @cached_property
    def pool(self) -> Engine:
        """Made on first use; a forked or spawned process makes its own."""
        # As many as are kept: those above would be made anew for each transaction.
        size: dict[str, Any] = {"pool_size": _N_CONNECTIONS, "max_overflow": 0}
        if not self._is_sqlite:
            # Loaded with its driver, which one machine need not have.
            from bitfront.store import postgres

            # A network that swallows packets is noticed within seconds.
            connect: dict[str, Any] = {
                "connect_timeout": 2,
                "tcp_user_timeout": 10_000,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
            }
            engine = create_engine(self._parsed, pool_timeout=3, connect_args=connect, **size)
            postgres.bound(engine, self.answer_seconds)
            return engine
        Path(str(self._parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(self._parsed, connect_args={"timeout": _BUSY_SECONDS}, **size)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @cached_property
    def _reader(self) -> Engine:
        return self.pool.execution_options(bitfront_reads=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; on SQLite it holds the write lock from its beginning.

        Raises:
            StorageError: the database cannot be reached, or its disk is full.
        """
        with self._turn(), _explained(), self.pool.begin() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn at SQLite's lock: threads stand in line here, processes at two files beside it.

        SQLite itself has those who waited longest ask least often, so that one of eight processes
        may wait for seconds while all others go first, and all sleep while the lock is free.
        """
        if not self._is_sqlite:
            yield
            return
        end = time.monotonic() + _BUSY_SECONDS
        if not self._line.acquire(timeout=_BUSY_SECONDS):
            raise StorageError(_BUSY)
        with ExitStack() as stack:
            stack.callback(self._line.release)
            # Who is next holds `first` until it is its turn, so whoever just wrote cannot be first.
            first, turn = self._places
            with _held(first, end, _ASKS_SECONDS):
                stack.enter_context(_held(turn, end, _ASKS_SECONDS / 10))
            yield

    @cached_property
    def _places(self) -> tuple[int, int]:
        """Files beside the database that processes hold in turn; they are never removed."""
        path = Path(str(self._parsed.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        first, turn = (self._opened(f"{path}-{name}") for name in ("next", "turn"))
        return first, turn

    def _opened(self, path: str) -> int:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(f"The database cannot be used now: {error.strerror}.") from error
        weakref.finalize(self, os.close, file)
        return file

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads: on SQLite it waits for no writer.

        Raises:
            StorageError: the database cannot be reached.
        """
        with _explained(), self._reader.connect() as connection:
            yield connection

    def upgrade(self) -> None:
        """Bring the schema up to this version; several processes may ask at once.

        Raises:
            MismatchedArtifact: a newer version made the database.
        """
        # A migration takes as long as it takes.
        patient = replace(self, answer_seconds=math.inf)
        try:
            patient._upgrade()
        finally:
            patient.pool.dispose()

    def _upgrade(self) -> None:
        from bitfront.store.schema import upgrade

        with self.writing() as connection:
            if not self._is_sqlite:
                connection.execute(text(f"select pg_advisory_xact_lock({_UPGRADE_LOCK})"))
            upgrade(connection)

    def check_schema(self) -> None:
        """Refuse a database of another version.

        Raises:
            MismatchedArtifact: not upgraded yet, or made by a newer version.
        """
        from bitfront.store.schema import check

        with self.reading() as connection:
            check(connection)

    def wait(self, seconds: float) -> None:
        """Until the database answers.

        Raises:
            StorageError: it does not within the time.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                with self.reading() as connection:
                    connection.execute(text("select 1"))
                return
            except StorageError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)


@contextmanager
def _held(file: int, end: float, asks_seconds: float) -> Iterator[None]:
    """Hold a file against other processes; the system lets go of it where this one dies."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                raise StorageError(_BUSY) from None
            time.sleep(random.uniform(0.5, 1.5) * asks_seconds)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def lock_number(name: str) -> int:
    """Of PostgreSQL's advisory lock for what has this name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def insert_new(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Insert a row unless one with its key is there, made by whoever; whether it was new."""
    is_sqlite = connection.dialect.name == "sqlite"
    insert = sqlite.insert(table) if is_sqlite else postgresql.insert(table)
    new = insert.values(row).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(new).first() is not None


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun below, not by the driver.
    connection.isolation_level = None
    # NORMAL: a killed process loses nothing; a power cut may take the last measurements, which are
    # then made again.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"pragma {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("bitfront_reads", False)
    # A transaction that reads and then writes could not be serialised any more by then.
    connection.exec_driver_sql("begin" if reads else "begin immediate")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        cause = first_line(error.orig or error)
        raise StorageError(f"The database cannot be used now: {cause}.") from error
    except NoConnectionFree as error:
        raise StorageError("All connections to the database are in use: try again.") from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise StorageError("The database closed the connection: it is restarting.") from error
