"""The page of a study, and what its plots draw."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from bitfront.api import kinds
from bitfront.api.pace import seconds_left
from bitfront.api.records import request_of
from bitfront.api.routes.studies import StudyPath
from bitfront.api.schemas import MAX_INT
from bitfront.api.site import Here, Site
from bitfront.api.ui import maps
from bitfront.api.ui.measurements import Agreement, Measurements, measurements
from bitfront.api.ui.page import Viewer, page, unchanged
from bitfront.api.ui.plots import plotted
from bitfront.api.ui.tables import loss_table
from bitfront.api.ui.words import model_name, standing
from bitfront.errors import BitfrontError, NotFound
from bitfront.report.columns import columns_of, measured_columns, mix
from bitfront.store.records import StoredStudy, TrialRow
from bitfront.table import LayerTable
from bitfront.trial import Trial
from bitfront.version import __version__

router = APIRouter()
TrialNumber = Annotated[int, Path(ge=0, le=MAX_INT)]
N_EVENTS = 40


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss table of a study as a page shows it.

    Args:
        table: `None` while there is none.
        error: why it cannot be read.
    """

    table: LayerTable | None
    error: str | None = None


@router.get("/studies/{study_id}")
def show_study(
    request: Request,
    study_id: StudyPath,
    known: Viewer,
    here: Here,
    point: Annotated[int | None, Query(ge=0, le=MAX_INT)] = None,
    shown: Annotated[str, Query(max_length=80)] = "",
) -> Response:
    """Progress, front, one point in detail, audit, checkpoints, events.

    Args:
        request: of the browser.
        study_id: which study.
        known: who looks.
        here: what the site works with.
        point: the trial to show; without one, the best within the budget.
        shown: format and unit of the sensitivity map, such as `int4_g64 weight`.
    """
    stored = here.store.studies.get(study_id, known.sees)
    tag = _tag(here, stored, f"{point} {shown} {known.owner}")
    if (same := unchanged(request, tag)) is not None:
        return same
    measured = measurements(here.store, study_id, stored.study)
    loss = _loss(here, stored, measured)
    row = measured.best if point is None else measured.row(point)
    chosen = None if row is None else measured.trial(row)
    front = [measured.trial(each) for each in measured.front]
    n_workers = len(here.store.activity.workers(within=60.0))
    return page(
        request,
        "study.html",
        headers={"ETag": tag, "Vary": "Cookie"},
        stored=stored,
        name=model_name(stored.study),
        standing=standing(stored, len(measured.failed), n_workers),
        seconds=seconds_left(here.store, stored),
        measured=measured,
        front=front,
        columns=columns_of(front),
        mix=mix,
        chosen=chosen,
        neighbour=_neighbour(measured, row),
        bits=_bits(measured, chosen),
        swatches=maps.swatches(measured.space.formats) if measured.space else (),
        sensitivity=_sensitivity(loss, shown),
        loss=loss,
        agreement=_agreement(loss, measured),
        exporters=kinds.names("exporters"),
        checkpoints=here.store.checkpoints.of(study_id),
        files=_written(here, study_id),
        has_report=_has_report(loss, measured),
        events=here.store.activity.latest(study_id, N_EVENTS),
        request_json=json.dumps(request_of(stored.study), indent=2),
    )


@router.get("/studies/{study_id}/data.json")
def study_data(request: Request, study_id: StudyPath, known: Viewer, here: Here) -> Response:
    """What the plots draw."""
    stored = here.store.studies.get(study_id, known.sees)
    tag = _tag(here, stored, known.owner)
    if (same := unchanged(request, tag)) is not None:
        return same
    measured = measurements(here.store, study_id, stored.study)
    agreement = _agreement(_loss(here, stored, measured), measured)
    body = json.dumps(plotted(measured, agreement), allow_nan=False, separators=(",", ":"))
    headers = {"ETag": tag, "Vary": "Cookie"}
    return Response(body, media_type="application/json", headers=headers)


@router.get("/studies/{study_id}/strips/{number}")
def strip(
    request: Request, study_id: StudyPath, number: TrialNumber, known: Viewer, here: Here
) -> Response:
    """The bit strip of a point: what is shown while the pointer is on it."""
    stored = here.store.studies.get(study_id, known.sees)
    trial = here.store.trials.get(study_id, number)
    space = here.store.trials.space(study_id)
    if space is None or not math.isfinite(trial.loss):
        raise NotFound(f"Trial {number} is not measured.")
    return page(
        request,
        "strip.html",
        headers={"Cache-Control": "private, max-age=3600"},
        stored=stored,
        trial=trial,
        columns=measured_columns(trial.values),
        mix=mix,
        bits=maps.bit_map(space, trial),
    )


def _tag(here: Site, stored: StoredStudy, view: str) -> str:
    """Changes with whatever the pages of a study show, and every 10 seconds while it goes on."""
    last = here.store.activity.latest(stored.id, 1)
    clock = 0 if stored.state.is_final else int(here.store.db.time()) // 10
    parts = (__version__, last[0].id if last else 0, stored.state, stored.stage, stored.done)
    written = [each.state for each in here.store.checkpoints.of(stored.id)]
    text = " ".join(map(str, (*parts, stored.total, clock, view, *written)))
    return f'"{text.encode().hex()}"'


def _loss(here: Site, stored: StoredStudy, measured: Measurements) -> Loss:
    if measured.space is None:
        return Loss(None)
    try:
        return Loss(loss_table(here.store, here.artifacts, stored, measured.space))
    except BitfrontError as error:
        return Loss(None, str(error))


def _has_report(loss: Loss, measured: Measurements) -> bool:
    """Whether `study_report.report_page` would make one."""
    is_evaluated = measured.text == "evaluation" and measured.best is not None
    return loss.table is not None and is_evaluated


def _bits(measured: Measurements, chosen: Trial | None) -> maps.LayerMap | None:
    if chosen is None or measured.space is None:
        return None
    return maps.bit_map(measured.space, chosen)


def _agreement(loss: Loss, measured: Measurements) -> Agreement | None:
    return None if loss.table is None else Agreement.of(measured, loss.table)


def _sensitivity(loss: Loss, shown: str) -> dict[str, Any] | None:
    """The map of one format, and the choices there are."""
    if loss.table is None or not (columns := maps.sensitive_columns(loss.table)):
        return None
    names = [loss.table.space.formats[j].name for j in columns]
    choices = [f"{name} {unit}" for unit in ("weight", "layer") for name in names]
    wanted = shown if shown in choices else choices[0]
    name, _, unit = wanted.partition(" ")
    map_, span = maps.sensitivity_map(loss.table, columns[names.index(name)], unit == "weight")
    return {"map": map_, "span": span, "choices": choices, "shown": wanted}


def _written(here: Site, study_id: str) -> dict[int, list[str]]:
    """Files of each checkpoint by its number."""
    written: dict[int, list[str]] = defaultdict(list)
    for name in here.store.files.of(study_id, "checkpoints/"):
        _, number, file = name.split("/", 2)
        written[int(number)].append(file)
    return written


def _neighbour(measured: Measurements, row: TrialRow | None) -> int | None:
    """The next larger point of the front, to compare with; of the largest, the one before it."""
    sizes = [each for each in measured.front if row is None or each.number != row.number]
    if row is None or not sizes:
        return None
    larger = [each for each in sizes if each.values["bytes"] >= row.values["bytes"]]
    return (larger[0] if larger else sizes[-1]).number
