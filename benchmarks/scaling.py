"""How many workers one study can keep busy, and what the service costs beside a run in one process.

    python benchmarks/scaling.py simulated --workers 1,4,8,16,64 --seconds 4 [--postgresql]
    python benchmarks/scaling.py real MODEL CALIBRATION EVALUATION --workers 0,1,2

`simulated`: a measurement sleeps, everything else is the service's own: database, leases, proposals
by `sweep` over 224 layers. Workers are threads, several to a process, because on two cores 64
interpreters would measure the machine. Efficiency is trials a second and worker over those of the
first count of workers. `--postgresql` starts one from a wheel; else each count has an SQLite file.

`real`: the same study once in this process (0 workers) and with local workers; `overhead` is the
time a trial takes with one worker over that in one process, less one.

Writes `results/scaling.csv`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import Record

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from servers import postgres

from bitfront import Budget, Study, TextSource, run_study
from bitfront.allocation import Allocation
from bitfront.formats import named
from bitfront.plugins import Choice
from bitfront.problem import Problem
from bitfront.search import SEARCHES
from bitfront.settings import Settings
from bitfront.space import Layer, SearchSpace
from bitfront.store import Store
from bitfront.store.records import Claim, Outcome, Proposed, Stage
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState
from bitfront.workers.child import loop
from bitfront.workers.lease import Lease
from bitfront.workers.local import LocalWorkers

MENU = ("int2_g64", "int3_g64", "int4_g64", "int8_g64")
N_LAYERS = 224
THREADS_PER_PROCESS = 8
ALONE: dict[str, float] = {}
"""Trials a second of one worker among the fewest."""
RECORD = Record(
    "scaling",
    (
        "kind",
        "database",
        "workers",
        "seconds",
        "trials",
        "trials_per_second",
        "efficiency",
        "idle_share",
        "propose_seconds",
        "propose_share",
        "overhead",
    ),
)


@dataclass
class Bench:
    """A worker's place, with a made-up model on it."""

    store: Store
    settings: Settings
    problem: Problem
    seconds: float
    warm: str | None = None

    def cool(self) -> None:
        """Nothing is loaded."""


def made_up() -> Problem:
    """224 layers whose losses fall fourfold a bit."""
    rng = np.random.default_rng(0)
    space = SearchSpace(
        tuple(Layer(f"layers.{i}.proj", (512, 512), f"layers.{i}", i) for i in range(N_LAYERS)),
        tuple(map(named, MENU)),
    )
    bits = np.array([f.num_bits for f in space.formats], dtype=float)
    loss = rng.lognormal(size=(N_LAYERS, 1)) * 4.0**-bits
    nbytes = np.array([[f.nbytes(x.shape) for f in space.formats] for x in space.layers], float)
    code = np.array(
        [[f.num_bits * x.n_weights for f in space.formats] for x in space.layers], float
    )
    costs = (LayerTable(space, nbytes, "bytes"), LayerTable(space, code, "code_bits"))
    limits = Budget.parse("4bpw").limits(space)
    return Problem(LayerTable(space, loss, "kl"), costs, limits)


def stage(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    """Any stage of a study whose measurements sleep."""
    bench.warm = claim.study_id
    space = bench.problem.space
    study = bench.store.studies.get(claim.study_id).study
    if claim.stage is Stage.PREPARE:
        return Outcome(space=space, queue="cpu")
    if claim.stage is Stage.ESTIMATE:
        uniform = [space.decode(space.uniform(c)) for c in range(len(MENU))]
        return Outcome(proposed=tuple(_to_measure(a, "uniform") for a in uniform))
    if claim.stage is Stage.PROPOSE:
        return _proposed(bench, study, claim)
    if claim.stage is Stage.EVALUATE:
        return _slept(bench, claim, lease)
    return Outcome()


def _to_measure(allocation: Allocation, origin: str) -> Proposed:
    return Proposed(Trial(0, allocation, "calibration", origin), origin != "uniform")


def _proposed(bench: Bench, study: Study, claim: Claim) -> Outcome:
    history = bench.store.trials.of(claim.study_id, "calibration")
    proposals = [t for t in history if t.origin != "uniform"]
    left = study.n_trials - len(history)
    waited = proposals[: max(0, len(proposals) - study.n_parallel + 1)]
    n_due = study.n_parallel - sum(t.state is TrialState.RUNNING for t in proposals)
    if left <= 0:
        return Outcome(search_ended=True)
    assert all(t.state is not TrialState.RUNNING for t in waited)
    rng = np.random.default_rng((study.seed, len(history)))
    n = max(1, min(left, n_due, 16))
    asked = SEARCHES.build("sweep").ask(bench.problem, history, n, rng)
    if not asked:
        asked = SEARCHES.build("random").ask(bench.problem, history, n, rng)
    return Outcome(proposed=tuple(_to_measure(a, "sweep") for a in asked))


def _slept(bench: Bench, claim: Claim, lease: Lease) -> Outcome:
    end = time.monotonic() + bench.seconds
    while (left := end - time.monotonic()) > 0:
        lease.check()
        time.sleep(min(0.5, left))
    trial = bench.store.trials.get(claim.study_id, claim.number)
    choice = bench.problem.space.encode(trial.allocation)
    kl = float(bench.problem.loss.total(choice))
    values = {"kl": kl, "bits": 4.0, "bits_per_weight": 4.0, "bytes": 1.0, "seconds": bench.seconds}
    return Outcome(measured=Trial(0, trial.allocation, trial.text, trial.origin, values=values))


def threads(url: str, n: int, seconds: float, name: str) -> None:
    """Work with `n` threads until standard input closes."""
    problem, settings = made_up(), Settings()
    stopping = threading.Event()
    store = Store(url, lease_seconds=60.0)
    stages = dict.fromkeys(Stage, stage)
    running = [
        threading.Thread(
            target=loop,
            args=(
                f"{name}-{index}",
                ["cpu"],
                Bench(store, settings, problem, seconds),
                stages,
                stopping.is_set,
            ),
        )
        for index in range(n)
    ]
    for thread in running:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in running:
        thread.join()


def simulated(url: str, n_workers: int, seconds: float, n_trials: int) -> dict[str, float]:
    """Trials a second of one study, between its first and last measurement."""
    store = Store(url)
    store.db.upgrade()
    asked = Study(
        "made/up", Budget.parse("4bpw"), formats=MENU, n_trials=n_trials, n_parallel=2 * n_workers
    )
    study, _ = store.studies.create(asked, "benchmark")
    n_processes = -(-n_workers // THREADS_PER_PROCESS)
    command = [sys.executable, __file__, "threads", "--database", url, "--seconds", str(seconds)]
    processes = []
    for index in range(n_processes):
        n = n_workers // n_processes + (index < n_workers % n_processes)
        arguments = ["--workers", str(n), "--name", str(index)]
        processes.append(subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE))
    while not store.studies.get(study.id).state.is_final:
        time.sleep(0.5)
    for process in processes:
        process.communicate()
    return _figures(store, study.id, n_workers)


def _figures(store: Store, study_id: str, n_workers: int) -> dict[str, float]:
    tasks = store.activity.tasks(study_id)
    evaluated = [t for t in tasks if t.stage is Stage.EVALUATE]
    proposing = [t.finished_at - t.started_at for t in tasks if t.stage is Stage.PROPOSE]
    # The baselines come before anything can run beside them.
    steady = evaluated[len(MENU) :]
    wall = max(t.finished_at for t in steady) - min(t.started_at for t in steady)
    busy = sum(t.finished_at - t.started_at for t in steady)
    store.db.pool.dispose()
    return {
        "trials": len(steady),
        "trials_per_second": len(steady) / wall,
        "idle_share": 1 - busy / wall / n_workers,
        "propose_seconds": statistics.median(proposing),
        "propose_share": sum(proposing) / wall,
    }


def real(study: Study, n_workers: int, folder: Path) -> float:
    """Seconds a trial, between the first measurement's beginning and the last one's end."""
    if n_workers == 0:
        times: list[float] = []
        begun = time.perf_counter()

        def note(event: object) -> None:
            if getattr(event, "stage", "") in {"search", "evaluate"}:
                times.append(time.perf_counter() - begun)

        run_study(study, folder / "alone", note)
        from bitfront.results import Results

        return (times[-1] - times[0]) / len(Results(folder / "alone").trials())
    url = f"sqlite:///{folder}/{n_workers}.db"
    store = Store(url)
    store.db.upgrade()
    made, _ = store.studies.create(study, "benchmark")
    environment = {
        "BITFRONT_HOME": str(folder / f"home-{n_workers}"),
        "BITFRONT_DATABASE_URL": url,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    with LocalWorkers(n_workers, ["cpu"], environment):
        while not (now := store.studies.get(made.id)).state.is_final:
            time.sleep(0.5)
    assert now.error is None, now.error
    tasks = [t for t in store.activity.tasks(made.id) if t.stage is Stage.EVALUATE]
    wall = max(t.finished_at for t in tasks) - min(t.started_at for t in tasks)
    return wall / len(tasks)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["simulated", "real", "threads"])
    parser.add_argument("paths", nargs="*", help="model, calibration text, evaluation text")
    parser.add_argument("--workers", default="1,4,8,16,64")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--database", default="", help="of `threads`")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--n-trials", type=int, default=24)
    parser.add_argument("--name", default="")
    options = parser.parse_args()
    counts = [int(each) for each in options.workers.split(",")]
    if options.kind == "threads":
        threads(options.database, counts[0], options.seconds, options.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.kind == "real":
            _real_rows(options, counts, Path(folder))
        elif options.postgresql:
            for n in counts:
                with postgres() as url:
                    _simulated_row(url, n, options.seconds)
        else:
            for n in counts:
                _simulated_row(f"sqlite:///{folder}/{n}.db", n, options.seconds)


def _simulated_row(url: str, n: int, seconds: float) -> None:
    found = simulated(url, n, seconds, max(24, 12 * n))
    each = found["trials_per_second"] / n
    alone = ALONE.setdefault("rate", each)
    rounded = {name: round(value, 4) for name, value in found.items()}
    RECORD.add(
        kind="simulated",
        database=url.partition(":")[0].partition("+")[0],
        workers=n,
        seconds=seconds,
        efficiency=round(each / alone, 4),
        **rounded,
    )
    print(n, round(each / alone, 4), rounded, flush=True)


def _real_rows(options: argparse.Namespace, counts: list[int], folder: Path) -> None:
    model, calibration, evaluation = (str(Path(each).resolve()) for each in options.paths)
    study = Study(
        model,
        Budget.parse("4.5bpw"),
        TextSource(calibration, 8, 256),
        TextSource(evaluation, 8, 256),
        searches=(Choice("posterior_ilp"),),
        n_trials=options.n_trials,
        n_parallel=max(1, *counts),
        pinned=None,
        formats=("int2_g32", "int3_g32", "int4_g32", "int8_g32"),
        dtype="float32",
        device="cpu",
    )
    alone = None
    for n in counts:
        seconds = real(study, n, folder)
        alone = seconds if n == 0 else alone
        RECORD.add(
            kind="real",
            database="sqlite",
            workers=n,
            seconds=round(seconds, 4),
            trials=options.n_trials,
            trials_per_second=round(1 / seconds, 4),
            overhead=round(seconds / alone - 1, 4) if n == 1 and alone else "",
        )
        print(n, round(seconds, 3), flush=True)


if __name__ == "__main__":
    main()
