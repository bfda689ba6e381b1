"""The key of a browser: a cookie in the place of the header that programs send."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from bitfront.api.cookie import COOKIE, is_same_origin
from bitfront.api.problems import problem

_SAFE = {"GET", "HEAD", "OPTIONS"}


@dataclass
class SignedIn:
    """ASGI middleware that sends the cookie's key on as `Authorization: Bearer`.

    A request that changes something is sent on only from a page of this very site: the cookie is
    `SameSite=Strict`, but what is on another port of this host is the same site.

    Args:
        app: what answers.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the key if it has one."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if key and "authorization" not in headers:
            if scope["method"] not in _SAFE and not is_same_origin(
                headers.get("origin"), headers.get("host")
            ):
                detail = "This was sent from a page of another site: use the pages of this one."
                await problem(403, "forbidden", detail, scope["path"])(scope, receive, send)
                return
            bearer = (b"authorization", b"Bearer " + key.encode("latin-1", "replace"))
            scope = {**scope, "headers": [*scope["headers"], bearer]}
        await self.app(scope, receive, send)
