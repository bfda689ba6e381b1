"""Errors as RFC 9457 problem documents, whatever raised them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from bitfront import errors
from bitfront.errors import BitfrontError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""When to ask again after a 503, or while the same request is being answered."""

_STATUS: dict[type[BitfrontError], int] = {
    errors.NotFound: 404,
    errors.KeyReused: 422,
    errors.OverQuota: 429,
    errors.Conflict: 409,
    errors.LostLease: 409,
    errors.StorageError: 503,
    errors.MismatchedArtifact: 500,
}
_CODES = {406: "not_acceptable", 416: "no_such_range", 429: "too_many_wrong_keys"}
_log = logging.getLogger(__name__)


def problem(
    status: int,
    code: str,
    detail: str,
    instance: str,
    headers: Mapping[str, str] | None = None,
    errors: Iterable[Mapping[str, object]] = (),
) -> Response:
    """A response that says what went wrong.

    Args:
        status: of HTTP.
        code: one word for programs.
        detail: one line for people: given, allowed, remedy.
        instance: path of the request.
        headers: such as `Retry-After`.
        errors: places in the request, each with `detail` and `pointer`, `parameter` or `header`.
    """
    body: dict[str, Any] = {
        "type": f"urn:bitfront:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": " ".join(detail.split()),
        "instance": instance,
        "code": code,
        "errors": list(errors),
    }
    # Surrogates that came in a request cannot go out as UTF-8; ASCII escapes can.
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def of(error: Exception, instance: str) -> Response:
    """The problem of an exception."""
    if isinstance(error, errors.Unauthorised):
        if error.is_known:
            return problem(403, "forbidden", str(error), instance)
        challenge = {"WWW-Authenticate": 'Bearer realm="bitfront"'}
        return problem(401, "unauthorised", str(error), instance, challenge)
    if isinstance(error, BitfrontError):
        status = next((s for kind, s in _STATUS.items() if isinstance(error, kind)), 422)
        is_soon = status in {429, 503} or isinstance(error, errors.InFlight)
        retry = {"Retry-After": str(RETRY_SECONDS)} if is_soon else {}
        return problem(status, errors.code_of(type(error)), str(error), instance, retry)
    if isinstance(error, RequestValidationError):
        return _of_validation(error, instance)
    if isinstance(error, HTTPException):
        return _of_http(error, instance)
    _log.error("unexpected %s on %s", type(error).__name__, instance, exc_info=error)
    detail = "An unexpected error; the log of the server has it. Try again, then report it."
    return problem(500, "unexpected", detail, instance)


def _of_http(error: HTTPException, instance: str) -> Response:
    known = {
        400: ("malformed", "The body is not JSON: send UTF-8 JSON of the documented schema."),
        404: ("not_found", f"Nothing is at {instance}: /openapi.json lists what is."),
        405: ("method_not_allowed", "This method is not for this address: see the header Allow."),
    }
    code, detail = known.get(
        error.status_code, (_CODES.get(error.status_code, "refused"), str(error.detail))
    )
    return problem(error.status_code, code, detail, instance, error.headers)


def _of_validation(error: RequestValidationError, instance: str) -> Response:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return _of_http(HTTPException(400), instance)
    if any(each["type"] == "missing" and each["loc"] == ("body",) for each in found):
        detail = "The body is missing: send JSON of the documented schema."
        place = {"detail": detail, "pointer": "#/"}
        return problem(422, "invalid_request", detail, instance, errors=[place])
    places = _innermost([_place(each, error.body) for each in found])
    first = places[0]["detail"] if places else "The request is not valid."
    missing = [each for each in found if each["type"] == "missing" and each["loc"][0] == "header"]
    if missing and len(missing) == len(found):
        name = missing[0]["loc"][1]
        detail = f"The header {name} is missing: send one, new for each request to be made once."
        return problem(400, "header_missing", detail, instance, errors=places)
    if all(each["loc"][0] == "path" for each in found):
        return problem(404, "not_found", f"Nothing can be at {instance}.", instance)
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return problem(422, "invalid_request", f"{first}{more}", instance, errors=places)


def _place(found: Mapping[str, Any], body: object) -> dict[str, str]:
    site, *rest = found["loc"]
    if site == "body":
        rest = list(_pointer(rest, body, found["type"] == "missing"))
    where = "/".join(str(part).replace("~", "~0").replace("/", "~1")[:80] for part in rest)
    # Not what was given: a body may be a megabyte, or hold a secret.
    detail = f"{where or site}: {str(found['msg']).removeprefix('Value error, ')[:400]}"
    key = {"body": "pointer", "header": "header"}.get(site, "parameter")
    return {"detail": detail, key: f"#/{where}" if key == "pointer" else where}


def _innermost(places: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without those around another: there another branch of a union came further."""
    pointers = [place.get("pointer", "") for place in places]
    return [
        place
        for place, pointer in zip(places, pointers, strict=True)
        if not pointer or not any(other.startswith(f"{pointer}/") for other in pointers)
    ]


def _pointer(parts: Sequence[int | str], body: object, is_missing: bool) -> Iterator[int | str]:
    """Of a place, what is in the body, not which branch of a union was tried."""
    for index, part in enumerate(parts):
        try:
            body = body[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            if not (is_missing and index == len(parts) - 1):
                continue
        yield part


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of an application end as a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            allowed = {"Allow": ", ".join(sorted(_methods(app, request.url.path)))}
            error = HTTPException(405, headers=allowed)
        return of(error, request.url.path)

    for kind in (BitfrontError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _methods(app: FastAPI, path: str) -> set[str]:
    """Every method that some route of the path has: a router names those of the first only."""
    scope = {"type": "http", "path": path, "root_path": "", "headers": []}
    found: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for route in app.router.routes:
            match, _ = route.matches({**scope, "method": method})
            if match.name == "FULL":
                found.add(method)
    return found | {"HEAD"} if "GET" in found else found
