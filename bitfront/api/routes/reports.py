"""The page of a study as one file."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from bitfront.api.downloads import sent
from bitfront.api.openapi import problems
from bitfront.api.routes.studies import Owned
from bitfront.api.site import Here
from bitfront.errors import NotFound

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
        206: {"description": "The range that was asked for."},
        304: {"description": "As before."},
        **problems(404, 416),
    },
)
def get_report(stored: Owned, here: Here, request: Request) -> Response:
    """One HTML page with front, bit map and sensitivities, once workers have written it."""
    digest = here.store.files.of(stored.id, "report.html").get("report.html")
    if digest is None:
        raise NotFound(f"Study {stored.id} has no report yet: it is written when the study ends.")
    headers = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return sent(request, here.artifacts, digest, "text/html; charset=utf-8", headers)
