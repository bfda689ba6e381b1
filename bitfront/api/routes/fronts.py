"""The front of a study as JSON, CSV or Parquet."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from bitfront.api import media
from bitfront.api.answers import PointAnswer
from bitfront.api.openapi import problems
from bitfront.api.routes.studies import Owned
from bitfront.api.routes.trials import Text
from bitfront.api.site import Here
from bitfront.report.points import encoded

router = APIRouter(tags=["front"])

_CONTENT = {
    "text/csv": {"schema": {"type": "string"}},
    "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
}


@router.get(
    "/v1/studies/{study_id}/front",
    operation_id="get_front",
    summary="Read the front",
    response_model=list[PointAnswer],
    responses={
        200: {"content": _CONTENT, "description": "The points; a study that has none: none."},
        304: {"description": "As before: the ETag of If-None-Match is that of the front."},
        **problems(404, 406),
    },
)
def get_front(
    stored: Owned,
    here: Here,
    request: Request,
    format: Annotated[
        Literal["json", "csv", "parquet"] | None, Query(description="Instead of Accept.")
    ] = None,
    text: Annotated[
        Text, Query(description="`calibration` gives the provisional front of the search.")
    ] = "evaluation",
    allocations: Annotated[
        bool, Query(description="Whether the points have the format of each layer.")
    ] = True,
) -> Response:
    """Measured points that no other beats, with the columns of `bitfront front`."""
    name = format or media.chosen(request.headers.get("accept", ""), media.FORMATS)
    front = here.store.trials.front(stored.id, text)
    data = encoded(front, name, allocations)
    return media.answer(request, data, media.FORMATS[name], f"front-{stored.id}.{name}")
