"""The pages as an application of their own, below /ui of the API's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitfront.api import problems
from bitfront.api.site import Site
from bitfront.api.ui import compare, listing, new, sign_in, study, workers
from bitfront.api.ui.environment import STATIC
from bitfront.api.ui.page import base, page
from bitfront.api.ui.session import SignedIn
from bitfront.errors import BitfrontError, Unauthorised

_ROUTERS = (listing, study, compare, workers, new, sign_in)
# Plotly and nothing else makes a style element; it is empty and filled by script, so the digest of
# no text lets it be, and no other.
_EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY}; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # Without a referrer, browsers leave out which page a form was sent from.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


def mount_ui(app: FastAPI, site: Site) -> None:
    """Add the pages to the application of the API, and let its routes take their cookie."""

    async def to_list(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/ui/", 307)

    app.add_route("/ui", to_list, include_in_schema=False)
    app.mount("/ui", PageHeaders(create_ui(site)), name="ui")
    app.add_middleware(SignedIn)


def create_ui(site: Site) -> FastAPI:
    """The pages over what the API works with."""
    ui = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    ui.state.site = site
    for routes in _ROUTERS:
        ui.include_router(routes.router)
    # A map of thousands of layers says almost the same in every cell, and no page holds a secret.
    ui.add_middleware(GZipMiddleware, minimum_size=4_096, compresslevel=5)
    ui.mount("/static", StaticFiles(directory=STATIC), name="static")
    for kind in (BitfrontError, RequestValidationError, HTTPException, Exception):
        ui.add_exception_handler(kind, _refused)
    return ui


async def _refused(request: Request, error: Exception) -> Response:
    """What went wrong, as a page; who has no key is sent to where one is asked for."""
    if isinstance(error, Unauthorised) and not error.is_known:
        place = request.url.path.removeprefix(f"{base(request)}/")
        query = f"?{request.url.query}" if request.url.query else ""
        if request.method == "GET" and place.rpartition(".")[2] != "json":
            return RedirectResponse(sign_in.address(request, f"{place}{query}"), 303)
    answer = problems.of(error, request.url.path)
    status = answer.status_code
    return page(
        request,
        "error.html",
        status=status,
        title=HTTPStatus(status).phrase,
        detail=json.loads(bytes(answer.body))["detail"],
        headers={k: v for k, v in answer.headers.items() if k in {"retry-after", "allow"}},
    )


@dataclass
class PageHeaders:
    """ASGI middleware: what browsers are told of every page.

    Args:
        app: what answers.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request and complete its answer."""

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if b"v=" in scope.get("query_string", b"") and "/static/" in scope["path"]:
                    headers["Cache-Control"] = "public, max-age=31536000, immutable"
            await send(message)

        await self.app(scope, receive, completed if scope["type"] == "http" else send)
