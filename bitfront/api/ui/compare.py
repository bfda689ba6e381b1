"""Two points of a study side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bitfront.api.routes.studies import StudyPath
from bitfront.api.schemas import MAX_INT
from bitfront.api.site import Here
from bitfront.api.ui import maps
from bitfront.api.ui.measurements import measurements
from bitfront.api.ui.page import Viewer, page
from bitfront.api.ui.words import model_name
from bitfront.errors import NotFound
from bitfront.report.columns import measured_columns, mix
from bitfront.report.points import MEASURED
from bitfront.space import Layer, SearchSpace
from bitfront.trial import Trial

router = APIRouter()
MAX_LAYERS = 500
Number = Annotated[int | None, Query(ge=0, le=MAX_INT)]


@dataclass(frozen=True)
class Difference:
    """A layer that two points give different formats.

    Args:
        layer: which one.
        a: format of the first point.
        b: format of the second.
    """

    layer: Layer
    a: str
    b: str


def differences(space: SearchSpace, a: Trial, b: Trial) -> list[Difference]:
    """Searched layers whose formats differ, in the order of the model."""
    found = (
        Difference(layer, a.allocation.formats[layer.name], b.allocation.formats[layer.name])
        for layer in space.layers
    )
    return [each for each in found if each.a != each.b]


@router.get("/studies/{study_id}/compare")
def compare(
    request: Request,
    study_id: StudyPath,
    known: Viewer,
    here: Here,
    a: Number = None,
    b: Number = None,
) -> Response:
    """Values, differing layers and both maps; without two numbers, the best and its neighbour."""
    stored = here.store.studies.get(study_id, known.sees)
    measured = measurements(here.store, study_id, stored.study)
    if measured.space is None or not measured.front:
        raise NotFound("Nothing is measured yet: there are no points to compare.")
    best = measured.best or measured.front[0]
    others = [row for row in measured.front if row.number != best.number] or [best]
    rows = (
        best if a is None else measured.row(a),
        others[-1] if b is None else measured.row(b),
    )
    pair = [measured.trial(row) for row in rows]
    differing = differences(measured.space, *pair)
    options = {row.number: row for row in (*rows, *measured.front, *measured.uniforms)}
    return page(
        request,
        "compare.html",
        stored=stored,
        name=model_name(stored.study),
        pair=pair,
        options=sorted(options.values(), key=lambda row: row.values["bytes"]),
        quantities=[q for q in MEASURED if all(q in t.values for t in pair)],
        differing=differing[:MAX_LAYERS],
        n_differing=len(differing),
        n_weights=sum(each.layer.n_weights for each in differing),
        space=measured.space,
        maps=[maps.bit_map(measured.space, trial) for trial in pair],
        swatches=maps.swatches(measured.space.formats),
        columns=measured_columns(pair[0].values),
        mix=mix,
    )
