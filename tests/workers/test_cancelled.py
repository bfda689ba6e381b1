"""Cancelling: whatever is measured, and however it is held, it ends within seconds."""

import time

import psutil
import pytest
from soak import n
from store.studies import request
from waiting import until
from workers.parts import installed
from workers.simulated import LONG

from bitfront.client import Client
from bitfront.errors import Conflict
from bitfront.store.records import Stage, StudyState, TaskState

TRIAL = 4


def cancelled(client, store, study_id):
    """Seconds until it is."""
    begun = time.monotonic()
    client.cancel(study_id)
    until(lambda: store.studies.get(study_id).state is StudyState.CANCELLED)
    return time.monotonic() - begun


def measures(store, study_id):
    """Whether the measurement that does not end is being made."""
    running = store.activity.tasks(study_id, [TaskState.RUNNING])
    return [t for t in running if (t.stage, t.number) == (Stage.EVALUATE, TRIAL)]


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("database_url", "transport"),
    n(
        [("sqlite", "local"), ("postgresql", "celery")],
        [(d, t) for d in ("sqlite", "postgresql") for t in ("local", "celery")],
    ),
    indirect=True,
)
def test_what_is_cancelled_ends_within_seconds(tmp_path, store, transport, record_property):
    """F12: 2 seconds while it waits, 5 while it is measured, even in a library that never returns.

    Its process is gone then, and with it what it had of a GPU.
    """
    waits, _ = store.studies.create(request(), "local")
    made = {how: store.studies.create(request(), "local")[0].id for how in LONG}
    poison = " ".join(f"{study_id}:{TRIAL}:{how}" for how, study_id in made.items())
    with installed(tmp_path, store, transport, seconds=0.0, n_processes=len(made)) as parts:
        parts.worker.environment |= {"SIMULATED_POISON": poison, "BITFRONT_LEASE_SECONDS": "60"}
        with parts.running(parts.api), Client(parts.url) as client:
            assert cancelled(client, store, waits.id) < n(8, 2)
            with parts.running(parts.worker):
                until(lambda: all(measures(store, study_id) for study_id in made.values()))
                working = psutil.Process(parts.worker.process.pid).children(recursive=True)
                seconds = [cancelled(client, store, study_id) for study_id in made.values()]
                until(lambda: sum(not process.is_running() for process in working) >= 2)
            with pytest.raises(Conflict):
                client.cancel(made["slow"])
    assert store.activity.n_stale() == 0
    record_property("rounds", len(seconds))
    record_property("slowest_seconds", round(max(seconds), 1))
    assert max(seconds) < n(20, 5)
