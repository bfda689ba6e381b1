"""Times, sizes and states in words."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import PurePath

from bitfront.store.records import StoredEvent, StoredStudy, StudyState
from bitfront.study import Study
from bitfront.trial import LOSSES, loss_name

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """The two largest units of a time.

    >>> duration(0.2), duration(61), duration(7300), duration(90_000)
    ('0 s', '1 min 1 s', '2 h 1 min', '1 d 1 h')
    """
    left = max(int(seconds), 0)
    parts = []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def moment(at: float | None) -> str:
    """A time of day, in UTC.

    >>> moment(0.0), moment(None)
    ('1970-01-01 00:00:00 UTC', '–')
    """
    return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at: float) -> str:
    """A time for programs.

    >>> iso(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(int(at), UTC).isoformat()


def figure(value: float | None, spec: str = ".4g") -> str:
    """A number, or a dash where there is none.

    >>> figure(0.01234), figure(None), figure(float("nan"))
    ('0.01234', '–', '–')
    """
    return "–" if value is None or not math.isfinite(value) else format(value, spec)


def standing(stored: StoredStudy, n_failed: int = 0, n_workers: int = 1) -> str:
    """Where a study stands, in a sentence."""
    counted = f"{stored.done} of {stored.total}" if stored.total else ""
    doing = {
        "prepare": "Preparing the model",
        "fetch": "Fetching model and texts from the hub",
        "text": "Reading texts or images",
        "load": "Loading the model",
        "quantize": "Quantizing each layer in each format",
        "estimate": "Estimating how sensitive each layer is",
        "search": "Searching: allocations measured on the calibration text",
        "evaluate": "Measuring finalists on the evaluation text",
    }.get(stored.stage, f"Estimating: {stored.stage}")
    unheard = " No worker was heard of in the last minute: if none is starting, start one."
    idle = "" if n_workers else unheard
    if stored.state is StudyState.WAITING:
        return f"Waiting for a worker.{idle}"
    if stored.state is StudyState.RUNNING:
        return f"{doing}{f', {counted}' if counted else ''}.{idle}"
    plural = "measurement" if n_failed == 1 else "measurements"
    return {
        StudyState.CANCELLING: "Being cancelled: what runs is given up within seconds.",
        StudyState.CANCELLED: "Cancelled. What was measured stays; resume it to go on.",
        StudyState.FAIL: "Failed. What was measured stays; resume it to try again.",
        StudyState.PARTIAL: "Stopped on its way; the front is of what was measured."
        if stored.error
        else f"Ended without {n_failed} {plural} that failed; the front is of all others.",
        StudyState.COMPLETE: "Complete.",
    }[stored.state]


def told(event: StoredEvent) -> str:
    """An event in words."""
    body = json.loads(event.body)
    what = f"trial {body.get('number')} ({body.get('text')}, {body.get('origin')})"
    error = f": {body['error']}" if body.get("error") else ""
    if event.kind == "state":
        return f"state {body['state']}{error}"
    if event.kind == "stage":
        return f"stage {body['stage']}"
    if event.kind == "proposed":
        return f"{what} proposed"
    if event.kind == "trial":
        values = body.get("values", {})
        name = loss_name(values)
        if name not in values:
            return f"{what} failed{error}"
        return f"{what} measured: {LOSSES[name]} {values[name]:.4g}"
    if event.kind == "checkpoint":
        return f"checkpoint {body['number']} {body['state']}{error}"
    if event.kind == "stale":
        return f"a late result of {body.get('stage')} was refused"
    return event.kind


def model_name(study: Study) -> str:
    """A model by its hub id, or by the last part of its path."""
    path = PurePath(study.model)
    return path.name if path.is_absolute() else study.model
