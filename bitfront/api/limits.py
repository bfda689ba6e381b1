"""What of a request is refused before any route sees it: too large, packed, nested, not JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitfront.api.problems import problem

MAX_BODY_BYTES = 1_000_000
MAX_DEPTH = 24
"""Of brackets in brackets; the deepest request of ours has 4."""
MAX_URL_BYTES = 8_192

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


@dataclass
class RequestLimits:
    """ASGI middleware that reads the whole body, within limits, before anything else runs.

    Args:
        app: what gets the request.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on with its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refused_by_headers(scope)
        body = b""
        if refusal is None:
            body, refusal = await _read(scope, receive)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self.app(scope, _replayed(body, receive), send)


def _refused_by_headers(scope: Scope) -> Response | None:
    path, headers = scope["path"], Headers(scope=scope)
    if len(scope.get("raw_path") or path) + len(scope["query_string"]) > MAX_URL_BYTES:
        detail = f"The address is longer than {MAX_URL_BYTES:,} bytes: ask for less at once."
        return problem(414, "address_too_long", detail, path[:200])
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        detail = f"Content-Encoding {headers['content-encoding'][:40]!r}: send the body unpacked."
        return problem(415, "encoding_not_supported", detail, path, {"Accept-Encoding": "identity"})
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        return problem(400, "malformed", "Content-Length is not a number: give one.", path)
    return _too_large(path) if int(length[:20]) > MAX_BODY_BYTES else None


async def _read(scope: Scope, receive: Receive) -> tuple[bytes, Response | None]:
    parts, n_bytes, path = [], 0, scope["path"]
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
        if n_bytes > MAX_BODY_BYTES:
            return b"", _too_large(path)
        if not message.get("more_body", False):
            break
    body = b"".join(parts)
    # Pages of a mounted site may send forms.
    if not body or not path.startswith("/v1/"):
        return body, None
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = f"Content-Type {kind[:60]!r}: send application/json."
        return b"", problem(415, "media_type_not_supported", detail, path)
    # Every other encoding of JSON has a NUL within its first four bytes, and UTF-8 has none.
    if b"\0" in body[:4]:
        return b"", problem(400, "malformed", "The body is not UTF-8: send UTF-8 JSON.", path)
    if _depth(body) > MAX_DEPTH:
        detail = f"The JSON is nested deeper than {MAX_DEPTH} levels: send it flatter."
        return b"", problem(422, "nested_too_deep", detail, path)
    return body, None


def _too_large(path: str) -> Response:
    detail = f"The body is larger than {MAX_BODY_BYTES:,} bytes: send less."
    return problem(413, "body_too_large", detail, path, {"Connection": "close"})


def _depth(body: bytes) -> int:
    """Deepest nesting of brackets outside strings.

    >>> _depth(b'{"a": ["]]", [1]]}')
    3
    """
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
