"""The studies of whoever looks, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bitfront.api.pace import seconds_left
from bitfront.api.site import Here
from bitfront.api.ui.measurements import Measurements, measurements
from bitfront.api.ui.page import Viewer, page
from bitfront.api.ui.words import model_name
from bitfront.store import Store
from bitfront.store.records import StoredStudy, StudyState, TrialRow

router = APIRouter()
N_ROWS = 25


@dataclass(frozen=True)
class Line:
    """A study in the list.

    Args:
        stored: the study.
        name: of its model.
        seconds: it will still take; `None` where that is not known.
        text: what `best` was measured on.
        best: the smallest KL within the budget; `None` where nothing is.
        n_measured: complete trials of that text.
    """

    stored: StoredStudy
    name: str
    seconds: float | None
    text: str
    best: TrialRow | None
    n_measured: int


@router.get("/")
def list_studies(
    request: Request,
    known: Viewer,
    here: Here,
    state: str = "",
    before: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None,
) -> Response:
    """A page of the list; an unknown state is none."""
    wanted = next((each for each in StudyState if each == state), None)
    found = here.store.studies.page(known.sees, wanted, before, N_ROWS + 1)
    return page(
        request,
        "studies.html",
        lines=[_line(here.store, stored) for stored in found[:N_ROWS]],
        older=found[N_ROWS - 1].id if len(found) > N_ROWS else None,
        states=tuple(StudyState),
        state=wanted,
        is_first=before is None,
    )


def _line(store: Store, stored: StoredStudy) -> Line:
    measured = measurements(store, stored.id, stored.study, "evaluation")
    if not measured.rows:
        measured = measurements(store, stored.id, stored.study, "calibration")
    seconds = seconds_left(store, stored)
    return Line(stored, model_name(stored.study), seconds, measured.text, *_counted(measured))


def _counted(measured: Measurements) -> tuple[TrialRow | None, int]:
    return measured.best, len(measured.on(measured.text))
