"""An installation in parts, each a process of its own command: killed, and started again by it."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from servers import PostgresServer, RedisServer, free_port
from waiting import until

from bitfront.store import Store

TESTS = Path(__file__).parents[1]


@dataclass
class Part:
    """A process of the command `bitfront`, in which nothing is measured."""

    words: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self):
        command = [sys.executable, "-m", "workers.simulated_command", *self.words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self):
        """As `kill -9`; nobody tells its children."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(90) in (0, -signal.SIGTERM), self.log.read_text()[-4000:]

    def restart(self):
        self.stop()
        self.start()

    def below(self, depth):
        """Processes that it started, or that those started; none that counts semaphores."""
        found = [self.process.pid]
        for _ in range(depth):
            found = [child for pid in found for child in _children(pid)]
        return found


def _children(pid):
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return [pid for pid in found if "semaphore_tracker" not in _line(pid)]


def _line(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@dataclass
class Installation:
    """API, workers, database and broker on this machine.

    Args:
        folder: of everything that is written.
        store: the database, whose leases the workers hold for as long.
        postgres: its server, where it is one.
        redis: the broker; `None` for local workers.
        seconds: time of a measurement.
        n_processes: that measure.
    """

    folder: Path
    store: Store
    postgres: PostgresServer | None = None
    redis: RedisServer | None = None
    seconds: float = 0.1
    n_processes: int = 2
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)

    def __post_init__(self):
        port = str(self.port)
        self.api = self._part("serve", "--port", port, "--workers", "0", "--no-dashboard")
        self.worker = self._part("worker", "--queue", "cpu", "--n", str(self.n_processes))
        self.dashboard = self._part("dashboard")

    @property
    def log(self):
        return self.folder / "log"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _part(self, *words):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("BITFRONT_")}
        environment = {
            **kept,
            "BITFRONT_HOME": str(self.folder / "home"),
            "BITFRONT_DATABASE_URL": self.store.url,
            "BITFRONT_BROKER_URL": self.redis.url if self.redis else "",
            "BITFRONT_LEASE_SECONDS": str(self.store.lease_seconds),
            "BITFRONT_DASHBOARD_PORT": str(self.dashboard_port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
            "SIMULATED_SECONDS": str(self.seconds),
        }
        return Part(words, environment, self.log)

    @property
    def killers(self):
        """What may die, by name: each kills it, and returns what starts it again if nobody does.

        The relay is a thread of the API and of the Celery worker, and dies with either.
        """
        found = {
            "api": lambda: _killed(self.api),
            "worker": lambda: _killed(self.worker),
            "child": lambda: self._killed_below(2 if self.redis else 1),
        }
        if self.redis:
            found["celery"] = lambda: self._killed_below(1)
            found["redis"] = self._killed_redis
        if self.postgres:
            found["postgresql"] = self._killed_postgres
        return found

    def _killed_below(self, depth):
        pids = until(lambda: self.worker.below(depth))
        os.kill(pids[-1], signal.SIGKILL)

    @property
    def restarts(self):
        """What is stopped and started again as for an upgrade, by name: each does both.

        PostgreSQL is sent SIGINT, as its image asks for: at SIGTERM it waits for every client.
        """
        found = {"worker": self.worker.restart}
        if self.redis:
            found["celery"] = self._restart_celery
            found["redis"] = self._restart_redis
        if self.postgres:
            found["postgresql"] = self._restart_postgres
        return {**found, "api": self.api.restart, "dashboard": self.dashboard.restart}

    def _restart_celery(self):
        """Its parent starts it again."""
        (old,) = until(lambda: self.worker.below(1))
        os.kill(old, signal.SIGTERM)
        until(lambda: self.worker.below(1) not in ([], [old]))

    def _restart_redis(self):
        self.redis.stop()
        self.redis.start()

    def _restart_postgres(self):
        self.postgres.stop()
        self.postgres.start()
        self.store.db.wait(30)

    def _killed_redis(self):
        self.redis.kill()
        self.redis.wipe()
        return self.redis.start

    def _killed_postgres(self):
        self.postgres.kill()
        return self.postgres.start

    def wait_for_api(self):
        until(lambda: _answers(f"{self.url}/readyz"))

    def wait_for_dashboard(self):
        until(lambda: _answers(f"http://127.0.0.1:{self.dashboard_port}/healthz"))

    @contextmanager
    def running(self, *parts):
        """With its parts started, which are stopped in the end; those named, or all."""
        parts = parts or (self.api, self.worker)
        try:
            for part in parts:
                part.start()
            if self.api in parts:
                self.wait_for_api()
            yield self
            for part in parts:
                part.stop()
        finally:
            for part in parts:
                part.kill()


def _killed(part):
    part.kill()
    return part.start


def _answers(url):
    with suppress(httpx2.TransportError):
        return httpx2.get(url, timeout=5.0).status_code == 200


@contextmanager
def installed(folder, store, transport, postgres=None, **options):
    """An installation on a database that is there, with a broker of its own where it needs one.

    Args:
        folder: where.
        store: the database, its tables made.
        transport: `local` or `celery`.
        postgres: the server of the database, where it may be killed.
    """
    with ExitStack() as stack:
        redis = None
        if transport == "celery":
            (folder / "redis").mkdir()
            redis = RedisServer(folder / "redis")
            redis.start()
            stack.callback(redis.kill)
        yield Installation(folder, store, postgres, redis, **options)


@contextmanager
def installation(folder, database, transport, **options):
    """An installation whose servers run and are its own, its tables made.

    Args:
        folder: where.
        database: `sqlite` or `postgresql`.
        transport: `local` or `celery`.
    """
    with ExitStack() as stack:
        postgres = None
        url = f"sqlite:///{folder / 'bitfront.db'}"
        if database == "postgresql":
            postgres = PostgresServer()
            postgres.start()
            stack.callback(postgres.remove)
            url = postgres.url
        store = Store(url, lease_seconds=5.0)
        store.db.upgrade()
        stack.callback(lambda: store.db.pool.dispose())
        yield stack.enter_context(installed(folder, store, transport, postgres, **options))
