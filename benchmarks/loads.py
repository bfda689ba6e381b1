"""What the service bears: requests, claims, long studies, many watchers, a cold start.

    python benchmarks/loads.py [--database postgresql+psycopg://...] [--seconds 10]

One row a figure in `results/loads.csv`, with the limit that is asked for. Without `--database` a
PostgreSQL of its own is started from a wheel for the figures that name one, and SQLite files are
used for the others.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from claims import claimed, claims
from record import Record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import sqlalchemy as sa
from servers import postgres
from store.studies import SPACE, request

from bitfront import Budget
from bitfront.formats import named
from bitfront.problem import Problem
from bitfront.search import SEARCHES
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store
from bitfront.store.lifecycle import note
from bitfront.store.records import Outcome, Proposed
from bitfront.store.tables import trials
from bitfront.table import LayerTable
from bitfront.trial import Trial

RECORD = Record("loads", ("load", "database", "figure", "value", "limit", "holds"))
N_LONG = 10_000
N_GROUPS = 2_000


def add(load: str, database: str, figure: str, value: float, limit: str) -> None:
    """One row; `limit` is `<= x` or `>= x`."""
    sign, _, bound = limit.partition(" ")
    holds = value <= float(bound) if sign == "<=" else value >= float(bound)
    RECORD.add(
        load=load,
        database=database,
        figure=figure,
        value=round(value, 4),
        limit=limit,
        holds=holds,
    )
    print(
        f"{load} {database} {figure}: {value:.4g} ({limit}) {'' if holds else 'MISSED'}", flush=True
    )


@contextmanager
def served(url: str) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """Port, process and seconds to the first healthy answer of a server without workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "BITFRONT_HOME": home, "BITFRONT_DATABASE_URL": url}
        command = [str(Path(sys.executable).with_name("bitfront")), "serve", "--port", str(port)]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--workers", "0", "--no-dashboard"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while status(port, "/readyz") != 200:
                time.sleep(0.02)
            yield port, process, time.perf_counter() - begun
        finally:
            process.terminate()
            process.wait(20)


def status(port: int, path: str) -> int:
    """Status of a GET; 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def hammered(
    port: int, n: int, seconds: float, send: Callable[[http.client.HTTPConnection, int], int]
) -> tuple[float, float, int]:
    """Requests a second, p99 in seconds, and answers of 500 and above, over `n` connections."""
    times: list[list[float]] = [[] for _ in range(n)]
    failures = [0] * n
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while (begun := time.perf_counter()) < end:
            failures[index] += send(connection, index) >= 500
            times[index].append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = sorted(each for some in times for each in some)
    return len(every) / seconds, every[int(0.99 * len(every))], sum(failures)


def posted(connection: http.client.HTTPConnection, index: int) -> int:
    """Submit a study with a key of its own."""
    body = json.dumps({"model": "org/model@main", "budget": "4.5bpw"})
    key = f"{index}-{time.perf_counter_ns()}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    connection.request("POST", "/v1/studies", body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def getter(path: str) -> Callable[[http.client.HTTPConnection, int], int]:
    """A GET of a path."""

    def send(connection: http.client.HTTPConnection, index: int) -> int:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return send


def long_study(store: Store, n: int, n_groups: int) -> str:
    """A study of `n` finished trials, put into the table at once."""
    menu = tuple(map(named, ("int2_g64", "int4_g64", "int8_g64")))
    layers = tuple(Layer(f"layers.{i}", (64, 64), f"layers.{i}", i) for i in range(n_groups))
    space = SearchSpace(layers, menu) if n_groups != len(SPACE.layers) else SPACE
    study, _ = store.studies.create(request(n_trials=n + 100), "benchmark")
    claim = claimed(store, study.id)
    store.queue.finish(claim, Outcome(space=space, queue="cpu"))
    claim = claimed(store, study.id)
    first = space.decode(space.uniform(0))
    store.queue.finish(
        claim, Outcome(proposed=(Proposed(Trial(0, first, "calibration", "uniform")),))
    )
    rng = np.random.default_rng(0)
    with store.db.writing() as connection:
        for begin in range(1, n, 500):
            rows = []
            for number in range(begin, min(n, begin + 500)):
                choice = rng.integers(0, len(menu), n_groups).astype(np.uint8)
                values = {"kl": float(rng.random()), "bits": 4.0, "bits_per_weight": 4.0}
                values["bytes"] = float(rng.integers(1000, 9000))
                rows.append(
                    {
                        "study_id": study.id,
                        "number": number,
                        "text": "calibration" if number % 10 else "evaluation",
                        "proposal": number,
                        "origin": "random",
                        "target": "t",
                        "choice": choice.tobytes(),
                        "digest": f"{number:064x}",
                        "state": "COMPLETE",
                        "measured": json.dumps(values),
                    }
                )
            connection.execute(sa.insert(trials), rows)
    return study.id


def lags(port: int, path: str, n: int, seconds: float) -> list[float]:
    """How late `n` watchers saw each event, in a process of their own: the clock is theirs."""
    found: list[float] = []

    def watch() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", f"{path}/events")
        answer = connection.getresponse()
        while True:
            line = answer.readline()
            if line.startswith(b"data:") and b"sent_at" in line:
                found.append(time.time() - json.loads(line[5:])["sent_at"])

    for _ in range(n):
        threading.Thread(target=watch, daemon=True).start()
    time.sleep(seconds)
    return sorted(found)


def watched(store: Store, port: int, n: int, seconds: float) -> tuple[float, float, float]:
    """p99 lag of `n` watchers, and p99 of a GET without and with them."""
    study, _ = store.studies.create(request(), "benchmark")
    path = f"/v1/studies/{study.id}"
    _, idle, _ = hammered(port, 1, seconds, getter(path))
    stopping = threading.Event()

    def write() -> None:
        while not stopping.is_set():
            with store.db.writing() as connection:
                note(connection, study.id, "trial", {"sent_at": time.time()})
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned) as pool:
        watching = pool.submit(lags, port, path, n, seconds + 6.0)
        time.sleep(5.0)
        writer.start()
        _, busy, _ = hammered(port, 1, seconds, getter(path))
        late = watching.result()
        stopping.set()
        writer.join()
    return late[int(0.99 * len(late))], idle, busy


def measure(kind: str, url: str, seconds: float) -> None:
    """Every load on one database."""
    store = Store(url)
    store.db.upgrade()
    limit = {"postgresql": ">= 150", "sqlite": ">= 400"}[kind]
    for n_workers in (2, 8):
        rate, slowest = claims(store, n_workers, 700)
        add("L3", kind, f"claims and results a second, {n_workers} processes", rate, limit)
        add("L3", kind, f"slowest claim of {n_workers} processes, seconds", slowest, "<= 1")
    with served(url) as (port, process, started):
        add("L9", kind, "seconds to the first healthy answer", started, "<= 5")
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
        add("L9", kind, "idle memory of the server, MB", memory, "<= 300")
        rate, p99, n_failed = hammered(port, 8, seconds, posted)
        add("L1", kind, "POST a second, 8 connections", rate, ">= 200")
        add("L1", kind, "POST p99, seconds", p99, "<= 0.25")
        add("L1", kind, "POST answers of 500 and above", n_failed, "<= 0")
        study_id = long_study(store, N_LONG, len(SPACE.layers))
        rate, p99, _ = hammered(port, 8, seconds, getter(f"/v1/studies/{study_id}"))
        add("L2", kind, "GET of a study a second", rate, ">= 250")
        add("L2", kind, "GET of a study p99, seconds", p99, "<= 0.15")
        _, p99, _ = hammered(port, 2, seconds, getter(f"/v1/studies/{study_id}/front"))
        add("L2", kind, "GET of the front of 10,000 trials p99, seconds", p99, "<= 0.3")
    store.db.pool.dispose()


def measure_watchers(kind: str, url: str, seconds: float) -> None:
    """Lag of watchers, and what they cost others."""
    store = Store(url)
    store.db.upgrade()
    with served(url) as (port, _, _):
        lag, idle, busy = watched(store, port, 50, seconds)
        add("L7", kind, "lag of 50 watchers p99, seconds", lag, "<= 1")
        add("L7", kind, "GET p99 beside them over idle", busy / idle, "<= 2")
    store.db.pool.dispose()


def generations() -> None:
    """Processor seconds for 100 proposals after 10,000 trials of 2,000 groups."""
    rng = np.random.default_rng(0)
    menu = tuple(map(named, ("int2_g64", "int3_g64", "int4_g64", "int8_g64")))
    layers = tuple(Layer(f"layers.{i}", (64, 64), f"layers.{i}", i) for i in range(N_GROUPS))
    space = SearchSpace(layers, menu)
    bits = np.array([f.num_bits for f in menu], dtype=float)
    loss = rng.lognormal(size=(N_GROUPS, 1)) * 4.0**-bits
    nbytes = np.array([[f.nbytes(x.shape) for f in menu] for x in layers], dtype=float)
    code = np.tile(bits * layers[0].n_weights, (N_GROUPS, 1))
    costs = (LayerTable(space, nbytes, "bytes"), LayerTable(space, code, "code_bits"))
    limits = Budget.parse("4.5bpw").limits(space)
    problem = Problem(LayerTable(space, loss, "kl"), costs, limits)
    history = []
    for number in range(N_LONG):
        choice = rng.integers(0, len(menu), N_GROUPS)
        each = np.arange(N_GROUPS), choice
        values = {"kl": float(loss[each].sum()), "bytes": float(nbytes[each].sum())}
        values |= {"bits": float(bits[choice].mean()), "bits_per_weight": 5.0}
        # The store knows the digests of what it stored.
        allocation = space.decode(choice, f"{number:064x}")
        history.append(Trial(number, allocation, "calibration", "random", values=values))
    for name in ("random", "sweep", "evolution", "nsga2", "amq", "predictor_ga"):
        search = SEARCHES.build(name)
        for which in ("first", "next"):
            begun = time.process_time()
            search.ask(problem, history, 100, np.random.default_rng(0))
            add("L5", "", f"{which} 100 by {name}, CPU s", time.process_time() - begun, "<= 1")


def resumed(folder: Path) -> None:
    """A cold read of a study of 10,000 trials of 2,000 groups."""
    path = folder / "long.db"
    store = Store(f"sqlite:///{path}")
    store.db.upgrade()
    study_id = long_study(store, N_LONG, N_GROUPS)
    with store.db.writing() as connection:
        connection.exec_driver_sql("select 1")
    store.db.pool.dispose()
    code = (
        "import sys, time, resource\n"
        "begun = time.perf_counter()\n"
        "from bitfront.store import Store\n"
        "found = Store(sys.argv[1]).trials.of(sys.argv[2])\n"
        "assert len(found) > 9_000\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3\n"
        "print(time.perf_counter() - begun, peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.url, study_id],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = map(float, done.stdout.split())
    add("L4", "sqlite", "cold read of 10,000 x 2,000, seconds", seconds, "<= 3")
    add("L4", "sqlite", "its peak memory, MB", peak, "<= 400")
    size = sum(each.stat().st_size for each in folder.glob("long.db*")) / 1e6
    add("L6", "sqlite", "database of 10,000 x 2,000, MB", size, "<= 60")


def main() -> None:
    """Measure everything on both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="sqlite,postgresql,resume,watchers,generations")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with tempfile.TemporaryDirectory() as folder:
        if "resume" in options.only:
            resumed(Path(folder))
        if "generations" in options.only:
            generations()
        with postgres() as server:
            for kind, url in (("sqlite", f"sqlite:///{folder}/loads.db"), ("postgresql", server)):
                if kind in options.only:
                    measure(kind, url, options.seconds)
                if "watchers" in options.only:
                    measure_watchers(kind, url, options.seconds)


if __name__ == "__main__":
    main()
