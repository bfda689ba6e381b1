"""The OpenAPI document: problems of every route, links from a study to what can be done with it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from bitfront.api.answers import Problem
from bitfront.api.problems import MEDIA_TYPE
from bitfront.version import __version__

_REF = {"$ref": "#/components/schemas/Problem"}
_WHY = {
    400: "Not JSON, or a header is missing.",
    401: "No key, or a wrong one.",
    403: "The key lacks the scope.",
    404: "Nothing there, or nothing of yours.",
    406: "No such media type.",
    409: "Does not go with the state of the study.",
    413: "The body is too large.",
    415: "The body is not application/json, or packed.",
    416: "No such range.",
    422: "A value is not allowed.",
    429: "Too much at once: wait.",
    503: "The database or the disk cannot be used now: try again.",
}
_ALWAYS = (400, 401, 403, 422, 429, 503)
_SAME_ID = {"study_id": "$response.body#/id"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem responses of a route: those of every route, and more."""
    content = {MEDIA_TYPE: {"schema": _REF}}
    return {
        status: {"description": _WHY[status], "content": content}
        for status in sorted({*_ALWAYS, *statuses})
    }


def to_study(*operations: str) -> dict[str, Any]:
    """Links from an answer with a study's `id` to operations on it."""
    return {name: {"operationId": name, "parameters": _SAME_ID} for name in operations}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="bitfront",
            version=__version__,
            summary="Search jobs for mixed-precision bit allocation.",
            description=(app.description or "").strip(),
            routes=app.routes,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        whole = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(whole.pop("$defs", {}))
        schemas["Problem"] = whole
        app.openapi_schema = made
    return app.openapi_schema
