"""Stored files sent as they are, whole or a range of their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from bitfront.artifacts import Artifacts

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def sent(
    request: Request,
    artifacts: Artifacts,
    digest: str,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """An artifact as a response; 206 where one range is asked for, 304 where it is known.

    Several ranges at once are answered with the whole, as RFC 9110 allows.

    Raises:
        NotFound: the artifact is gone.
        HTTPException: 416 where the range begins behind the end.
    """
    size = artifacts.size(digest)
    tag = f'"{digest}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", **headers}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    first, last = 0, size - 1
    asked = _asked(request.headers.get("range", ""), size)
    is_same = request.headers.get("if-range", tag) == tag
    if asked is not None and is_same:
        first, last = asked
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    return StreamingResponse(
        _chunks(artifacts, digest, first, last),
        206 if "Content-Range" in headers else 200,
        headers,
        media_type,
    )


def _asked(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a range; `None` where there is none that can be read."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return None
    if first >= size or last < first:
        detail = f"Range {text[:40]} is not within the {size:,} bytes of the file."
        raise HTTPException(416, detail, {"Content-Range": f"bytes */{size}"})
    return first, last


def _chunks(artifacts: Artifacts, digest: str, first: int, last: int) -> Iterator[bytes]:
    with artifacts.open(digest) as file:
        file.seek(first)
        left = last - first + 1
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
