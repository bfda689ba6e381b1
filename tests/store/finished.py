"""Thousands of finished trials, written at once and not one by one."""

import json

import numpy as np
import sqlalchemy as sa

from bitfront import Study
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.store.records import Outcome, StudyState
from bitfront.store.tables import events, studies, trials
from bitfront.trial import TrialState


def prepared(store: Store, request: Study, space: SearchSpace, owner: str = "ann") -> str:
    """A stored study that is prepared and waits to be estimated."""
    stored, _ = store.studies.create(request, owner)
    (task,) = store.activity.tasks(stored.id)
    claim = store.queue.claim("by hand", ["cpu"], task=task.id)
    store.queue.finish(claim, Outcome(space=space, queue="cpu"))
    return stored.id


def add_finished(
    store: Store, study_id: str, n: int, text: str = "calibration", origin: str = "sweep"
) -> None:
    """Add so many measured trials with their events; earlier ones of a number stay."""
    space = store.trials.space(study_id)
    first = len(store.trials.of(study_id))
    rng = np.random.default_rng(first)
    rows, told = [], []
    for number in range(first, first + n):
        choice = rng.integers(0, len(space.formats), len(space.groups))
        bits = float(
            np.array([f.bits_per_weight((1024, 1024)) for f in space.formats])[choice].mean()
        )
        values = {
            "kl": float(np.exp(-bits) * (1 + rng.random())),
            "kl_stderr": 0.001,
            "perplexity": 17.0,
            "bits": bits,
            "bits_per_weight": bits,
            "bytes": float(round(bits * space.n_weights / 8)),
            "seconds": 0.5,
        }
        row = {"study_id": study_id, "number": number, "text": text, "origin": origin}
        row |= {
            "target": "t",
            "choice": choice.astype("uint8").tobytes(),
            "digest": f"{number:064x}",
        }
        row |= {"state": TrialState.COMPLETE, "measured": json.dumps(values)}
        rows.append(row)
        body = {"number": number, "text": text, "origin": origin, "state": "COMPLETE"}
        body |= {"values": values, "error": None}
        told.append(
            {"study_id": study_id, "kind": "trial", "body": json.dumps(body), "at": 1e9 + number}
        )
    with store.db.writing() as connection:
        connection.execute(sa.insert(trials), rows)
        connection.execute(sa.insert(events), told)


def end(store: Store, study_id: str) -> None:
    """Call a study complete."""
    with store.db.writing() as connection:
        change = sa.update(studies).where(studies.c.id == study_id)
        connection.execute(change.values(state=StudyState.COMPLETE))
