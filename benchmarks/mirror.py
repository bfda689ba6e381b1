"""What does the Optuna mirror cost, and how long does its page take, for a long study?

    python benchmarks/mirror.py [--trials 10000] [--layers 224] [--postgresql] [--page]

Made-up finished trials, in a new database.
`mirror_seconds` is the first update, `again_seconds` one after as many trials as a study may have
above its cap (the copy is made anew), `add_seconds` one of 10 trials, `idle_seconds` one without
any. `detail_seconds` is the first answer for the study's page from a new process,
`detail_again_seconds` a later one; `page_seconds` is until Chromium has drawn the last plot of it.
`beside_ms` is how long other readers of the database wait meanwhile for a page of 50 trials (99th
percentile), `alone_ms` without that. `api_alone_ms` is the 99th percentile of a GET of the study
from the API's own process while nothing else is done, `api_copy_ms` while it is mirrored,
`api_page_ms` while its page is made. Wall seconds unless they are called `cpu`; `load` is the
machine's, averaged over 5 minutes.
Appends to `benchmarks/results/mirror.csv`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from loads import served
from record import Record
from stopwatch import cpu_seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers import postgres
from store.finished import add_finished, end, prepared

from bitfront import Budget, Study, formats
from bitfront.mirror import LAST, Mirror
from bitfront.plugins import Choice
from bitfront.settings import Settings
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store

COLUMNS = (
    "database",
    "n_trials",
    "n_layers",
    "n_mirrored",
    "mirror_seconds",
    "mirror_cpu_seconds",
    "again_seconds",
    "add_seconds",
    "idle_seconds",
    "detail_seconds",
    "detail_cpu_seconds",
    "detail_again_seconds",
    "detail_mb",
    "page_seconds",
    "alone_ms",
    "beside_ms",
    "load",
    "api_alone_ms",
    "api_copy_ms",
    "api_page_ms",
)
MENU = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]


def main() -> None:
    """One row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=224)
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--page", action="store_true", help=f"with {CHROMIUM}")
    arguments = parser.parse_args()
    record = Record("mirror", COLUMNS)
    server = postgres() if arguments.postgresql else nullcontext("")
    with tempfile.TemporaryDirectory() as folder, server as url, ExitStack() as stack:
        settings = Settings(home=Path(folder), database_url=url)
        store = Store(settings.database)
        store.db.upgrade()
        study_id = filled(store, arguments.trials, arguments.layers)
        api = stack.enter_context(served(store.url))[0]
        path, waits = f"/v1/studies/{study_id}", dict[str, object]()
        with asking(api, path, waits, "api_alone_ms"):
            time.sleep(10)
        with asking(api, path, waits, "api_copy_ms"):
            row = mirrored(store, settings, study_id)
        row |= waits
        with dashboard(settings) as (port, pid):
            with asking(api, path, row, "api_page_ms"):
                row |= shown(store, port, pid, study_id)
            if arguments.page:
                row["page_seconds"] = page_seconds(f"http://127.0.0.1:{port}/study/{study_id}")
        store.db.pool.dispose()
    row |= {"database": store.db.pool.dialect.name, "n_layers": arguments.layers}
    row["load"] = round(os.getloadavg()[1], 1)
    record.add(**row)
    sys.stdout.write(f"{row}\n")


def filled(store: Store, n_trials: int, n_layers: int) -> str:
    """A study of made-up measurements that is over."""
    kinds = ("q", "k", "v", "o", "gate", "up", "down")
    layers = tuple(
        Layer(f"layers.{i // 7}.{kinds[i % 7]}", (512, 512), f"{i}", i // 7, kinds[i % 7])
        for i in range(n_layers)
    )
    space = SearchSpace(layers, tuple(map(formats.named, MENU)))
    request = Study("made/up", Budget.parse("4.25bpw"), formats=MENU, searches=(Choice("sweep"),))
    study_id = prepared(store, request, space)
    add_finished(store, study_id, n_trials)
    return study_id


def mirrored(store: Store, settings: Settings, study_id: str) -> dict[str, object]:
    """Times of the mirror's updates."""
    mirror = Mirror(store, settings.optuna)
    row: dict[str, object] = {}
    cpu = cpu_seconds()
    row["mirror_seconds"], n_first = timed(mirror)
    row["mirror_cpu_seconds"] = round(cpu_seconds() - cpu, 2)
    add_finished(store, study_id, 10)
    row["add_seconds"], _ = timed(mirror)
    add_finished(store, study_id, LAST)
    row["again_seconds"], n_again = timed(mirror)
    row["idle_seconds"], _ = timed(mirror)
    assert n_again >= LAST
    end(store, study_id)
    mirror.update()
    mirror.close()
    return row | {"n_mirrored": n_first, "n_trials": len(store.finished.since(study_id))}


def timed(mirror: Mirror) -> tuple[float, int]:
    """Seconds of an update, and how many trials it wrote."""
    start = time.perf_counter()
    n = mirror.update()
    return round(time.perf_counter() - start, 4), n


@contextmanager
def dashboard(settings: Settings) -> Iterator[tuple[int, int]]:
    """Port and number of a dashboard process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    named = {"HOME": settings.home, "DATABASE_URL": settings.database, "DASHBOARD_PORT": port}
    environment = os.environ | {f"BITFRONT_{name}": str(value) for name, value in named.items()}
    process = subprocess.Popen([sys.executable, "-m", "bitfront.dashboard"], env=environment)
    try:
        while True:
            try:
                asked(port, "/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def asked(port: int, path: str) -> bytes:
    """The body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def asking(port: int, path: str, row: dict[str, object], name: str) -> Iterator[None]:
    """Note the 99th percentile of GETs that another process sends meanwhile, in ms."""
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawned) as pool:
        begun, over = Path(folder, "begun"), Path(folder, "over")
        found = pool.submit(asked_until, port, path, begun, over)
        while not begun.exists():
            time.sleep(0.05)
        try:
            yield
        finally:
            over.touch()
        row[name] = found.result()


def asked_until(port: int, path: str, begun: Path, over: Path) -> float:
    """The 99th percentile of GETs until a file is there, in ms."""
    connection, waits = http.client.HTTPConnection("127.0.0.1", port, timeout=60), []
    while not over.exists():
        start = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        waits.append(1000 * (time.perf_counter() - start))
        begun.touch()
        time.sleep(0.02)
    connection.close()
    return round(sorted(waits)[int(0.99 * (len(waits) - 1))], 1)


def shown(store: Store, port: int, pid: int, study_id: str) -> dict[str, object]:
    """Times of the answer that the study's page is made of."""
    listed = json.loads(asked(port, "/api/studies"))["study_summaries"]
    number = next(x["study_id"] for x in listed if x["study_name"] == study_id)
    row: dict[str, object] = {"alone_ms": slowest(store, study_id, lambda: time.sleep(5))}
    path = f"/api/studies/{number}"

    def twice() -> None:
        cpu = process_seconds(pid)
        for name in ("detail_seconds", "detail_again_seconds"):
            start = time.perf_counter()
            row["detail_mb"] = round(len(asked(port, path)) / 1e6, 3)
            row[name] = round(time.perf_counter() - start, 3)
            row.setdefault("detail_cpu_seconds", round(process_seconds(pid) - cpu, 2))

    row["beside_ms"] = slowest(store, study_id, twice)
    return row


def process_seconds(pid: int) -> float:
    """Processor seconds of another process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def slowest(store: Store, study_id: str, work: Callable[[], object]) -> float:
    """The 99th percentile of reading a page of trials while something else goes on, in ms."""
    thread, waits = threading.Thread(target=work), []
    thread.start()
    while thread.is_alive():
        start = time.perf_counter()
        store.trials.of(study_id, n=50)
        waits.append(1000 * (time.perf_counter() - start))
        time.sleep(0.02)
    return round(sorted(waits)[int(0.99 * (len(waits) - 1))], 1)


def page_seconds(address: str) -> float:
    """From the address to the last plot."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(address)
        page.locator(".heatmaplayer image").first.wait_for(state="attached", timeout=600_000)
        seconds = time.perf_counter() - start
        browser.close()
    return round(seconds, 2)


if __name__ == "__main__":
    main()
