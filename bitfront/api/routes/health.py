"""Whether the process lives, and whether it can work."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response

from bitfront.api.answers import Answer
from bitfront.api.openapi import problems
from bitfront.api.problems import RETRY_SECONDS, problem
from bitfront.api.site import Here
from bitfront.errors import MismatchedArtifact

router = APIRouter(tags=["health"])


class Health(Answer):
    """That all is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="get_health", summary="Does the process live?")
async def get_health() -> Health:
    """Answers whenever the process does."""
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can it work?",
    response_model=Health,
    responses={503: problems()[503]},
)
def get_readiness(here: Here, request: Request) -> Health | Response:
    """Whether the database answers and has the schema of this version."""
    try:
        here.store.db.check_schema()
    except MismatchedArtifact as error:
        retry = {"Retry-After": str(RETRY_SECONDS)}
        return problem(503, "not_ready", str(error), request.url.path, retry)
    return Health()
