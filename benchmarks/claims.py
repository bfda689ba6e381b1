"""How many tasks a second processes claim and finish that do nothing else; see `loads.py`."""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from store.studies import SPACE, request

from bitfront.store import Store
from bitfront.store.records import Claim, Outcome, Proposed, Stage
from bitfront.trial import Trial

_MEETING: list[Barrier] = []


def claimed(store: Store, study_id: str) -> Claim:
    """The latest task of a study, taken."""
    claim = store.queue.claim("b", ["cpu"], task=store.activity.tasks(study_id)[-1].id)
    assert claim is not None
    return claim


def claims(store: Store, n_workers: int, n: int) -> tuple[float, float]:
    """Claims and results a second of tasks that are all there, by so many processes.

    Also the longest time that one of them waited for a claim.
    """
    study, _ = store.studies.create(request(n_trials=n + 3, n_parallel=n), "benchmark")
    for stage in (Stage.PREPARE, Stage.ESTIMATE):
        claim = claimed(store, study.id)
        assert claim.stage is stage
        proposed = ()
        if stage is Stage.ESTIMATE:
            choices = np.array(np.unravel_index(np.arange(n), (3,) * len(SPACE.groups))).T
            new = [Trial(0, SPACE.decode(c), "calibration", "random") for c in choices]
            proposed = tuple(Proposed(trial) for trial in new)
        store.queue.finish(claim, Outcome(space=SPACE, proposed=proposed))
    spawned = multiprocessing.get_context("spawn")
    together = spawned.Barrier(n_workers)
    with ProcessPoolExecutor(
        n_workers, spawned, initializer=_meet_at, initargs=(together,)
    ) as pool:
        names = [f"w{index}" for index in range(n_workers)]
        each = [pool.submit(worked, store.url, study.id, name) for name in names]
        done, begun, ended, slowest = zip(*(future.result() for future in each), strict=True)
    return sum(done) / (max(ended) - min(begun)), max(slowest)


def _meet_at(together: Barrier) -> None:
    _MEETING.append(together)


def worked(url: str, study_id: str, name: str) -> tuple[int, float, float, float]:
    """What one process did, from when until when, and its slowest claim."""
    store, done, slowest = Store(url), 0, 0.0
    store.db.time()
    _MEETING[0].wait()
    begun = time.time()
    while True:
        asked = time.perf_counter()
        claim = store.queue.claim(name, ["cpu"], study_id)
        slowest = max(slowest, time.perf_counter() - asked)
        if claim is None or claim.stage is not Stage.EVALUATE:
            break
        trial = store.trials.get(study_id, claim.number)
        values = {"kl": 1.0, "bits": 4.0, "bits_per_weight": 4.0, "bytes": 1.0}
        made = Trial(0, trial.allocation, trial.text, trial.origin, values=values)
        store.queue.finish(claim, Outcome(measured=made))
        done += 1
    ended = time.time()
    store.db.pool.dispose()
    return done, begun, ended, slowest
