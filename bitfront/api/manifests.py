"""What deployment needs to know of a front or a checkpoint, as plain data."""

from __future__ import annotations

from typing import Any

from bitfront.api.records import request_of
from bitfront.api.site import Site
from bitfront.pareto import ParetoFront
from bitfront.report.points import Point, points
from bitfront.store.records import Checkpoint, StoredStudy
from bitfront.version import __version__


def of_study(stored: StoredStudy) -> dict[str, Any]:
    """A study as it was asked for, with where it stands."""
    return {
        "id": stored.id,
        "state": str(stored.state),
        "request": request_of(stored.study),
        "digest": stored.study.digest,
    }


def of_checkpoint(here: Site, stored: StoredStudy, checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint: the point, what was measured of it, and every file with its digest."""
    trial = here.store.trials.get(stored.id, checkpoint.trial)
    found = files(here, checkpoint)
    return {
        "bitfront": __version__,
        "study": of_study(stored),
        "checkpoint": checkpoint.number,
        "exporter": checkpoint.exporter,
        "trial": trial.number,
        "text": trial.text,
        "origin": trial.origin,
        "values": dict(trial.values),
        "allocation": dict(trial.allocation.formats),
        "files": [
            {"name": name, "sha256": digest, "size": here.artifacts.size(digest)}
            for name, digest in found.items()
        ],
    }


def of_front(stored: StoredStudy, front: ParetoFront, text: str) -> dict[str, Any]:
    """A front: the study and every point of it."""
    found: list[Point] = points(front)
    return {"bitfront": __version__, "study": of_study(stored), "text": text, "points": found}


def files(here: Site, checkpoint: Checkpoint) -> dict[str, str]:
    """Files of a checkpoint: name within it to digest."""
    root = f"checkpoints/{checkpoint.number}/"
    found = here.store.files.of(checkpoint.study_id, root)
    return {name.removeprefix(root): digest for name, digest in found.items()}
