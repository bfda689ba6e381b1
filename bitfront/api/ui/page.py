"""A page from a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, Response

from bitfront.api.cookie import COOKIE
from bitfront.api.security import Caller, Reader
from bitfront.api.ui.environment import environment
from bitfront.version import __version__


def base(request: Request) -> str:
    """Where the pages are, such as `/ui`."""
    return str(request.scope.get("root_path", ""))


async def viewer(request: Request, known: Reader) -> Caller:
    """Who looks; kept so that every page can say it."""
    request.state.viewer = known
    return known


Viewer = Annotated[Caller, Depends(viewer)]


def page(
    request: Request,
    template: str,
    /,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Fill a template with values and with what every page has."""
    root = base(request)
    text = (
        environment()
        .get_template(template)
        .render(
            base=root,
            api=f"{root.removesuffix('/ui')}/v1",
            version=__version__,
            viewer=getattr(request.state, "viewer", None),
            is_signed_in=COOKIE in request.cookies,
            **values,
        )
    )
    return HTMLResponse(text, status, dict(headers or {}))


def unchanged(request: Request, tag: str) -> Response | None:
    """An answer without a body for a browser that has the page of this tag."""
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag, "Vary": "Cookie"})
    return None
