"""Which of several media types an answer has, and bytes that need not be sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fastapi import Request, Response
from starlette.exceptions import HTTPException

FORMATS = {
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
"""Media type of each format of a front."""


def chosen(accept: str, types: Mapping[str, str]) -> str:
    """The name whose media type a client likes best; of equals, the first.

    >>> chosen("text/csv;q=0.5, application/json;q=0.4", FORMATS)
    'csv'
    >>> chosen("*/*", FORMATS)
    'json'

    Raises:
        HTTPException: 406 where it takes none.
    """
    weights = dict(_weights(accept or "*/*"))

    def liking(media_type: str) -> float:
        main = media_type.partition("/")[0]
        for pattern in (media_type, f"{main}/*", "*/*"):
            if pattern in weights:
                return weights[pattern]
        return 0.0

    best = max(types, key=lambda name: liking(types[name]))
    if not liking(types[best]):
        allowed = ", ".join(types.values())
        raise HTTPException(406, f"Accept names none of {allowed}: name one, or give ?format=.")
    return best


def _weights(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.split(",")[:50]:
        media_type, *params = (each.strip().lower() for each in part.split(";"))
        weight = 1.0
        for param in params:
            name, _, value = param.partition("=")
            if name.strip() == "q":
                try:
                    weight = min(1.0, max(0.0, float(value)))
                except ValueError:
                    weight = 0.0
        found.append((media_type, weight))
    return found


def answer(request: Request, data: bytes, media_type: str, name: str) -> Response:
    """Bytes with their digest as ETag; 304 where the client has them already."""
    headers = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
        "Vary": "Accept, Authorization",
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "private, no-cache",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type)
