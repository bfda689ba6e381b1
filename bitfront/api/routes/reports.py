"""The page of a study as one file."""

from __future__ import annotations

from fastapi import APIRouter, Response

from bitfront.api.openapi import problems
from bitfront.api.routes.studies import Owned
from bitfront.api.site import Here
from bitfront.api.study_report import report_page

router = APIRouter(tags=["report"])

# The page has its scripts in it; it gets an origin of its own, so none of them reaches the API.
_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)


@router.get(
    "/v1/studies/{study_id}/report",
    operation_id="get_report",
    summary="Read the report",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **problems(404),
    },
)
def get_report(stored: Owned, here: Here) -> Response:
    """One HTML page with front, bit map and sensitivities, of what is measured by now."""
    headers = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "SAMEORIGIN"}
    page = report_page(here, stored)
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)
