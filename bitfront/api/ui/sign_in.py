"""Signing in: a browser keeps an API key in a cookie that scripts cannot read."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from bitfront.api.cookie import COOKIE, COOKIE_SECONDS, is_same_origin
from bitfront.api.security import verified
from bitfront.api.site import Here
from bitfront.api.ui.page import base, page
from bitfront.errors import Unauthorised

router = APIRouter()
_PLACE = re.compile(r"(?:[a-z0-9]+(?:/[a-z0-9.]+)*)?(?:\?[A-Za-z0-9=&_%+.-]*)?")


def address(request: Request, place: str) -> str:
    """Where a key is asked for; `place` is where to go then, below the pages."""
    return f"{base(request)}/sign-in?{urlencode({'place': _known(place)})}"


def _known(place: str) -> str:
    """A place of ours, or none."""
    return place if _PLACE.fullmatch(place) and "sign-" not in place else ""


def _form(request: Request, error: str = "", place: str = "", status: int = 200) -> Response:
    return page(request, "sign_in.html", status=status, error=error, place=_known(place))


@router.get("/sign-in")
def ask(request: Request, here: Here, place: str = "") -> Response:
    """Ask for a key, unless there are none."""
    if not here.store.keys.exist():
        return page(
            request,
            "error.html",
            title="No key is needed",
            detail="This installation has no keys: it serves this machine alone, and everything "
            "here is yours. An operator makes keys with `bitfront key create`.",
        )
    return _form(request, place=place)


@router.post("/sign-in")
def sign_in(
    request: Request,
    here: Here,
    key: Annotated[str, Form(max_length=500)],
    place: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Check the key and keep it."""
    if not is_same_origin(request.headers.get("origin"), request.headers.get("host")):
        raise HTTPException(403, "Sent from a page of another site: refused.")
    text = key.strip()
    try:
        verified(request, here, text)
    except Unauthorised as error:
        return _form(request, str(error), place, 401)
    except HTTPException as error:
        return _form(request, str(error.detail), place, error.status_code)
    answer = RedirectResponse(f"{base(request)}/{_known(place)}", 303)
    answer.set_cookie(
        COOKIE,
        text,
        max_age=COOKIE_SECONDS,
        path=base(request).removesuffix("/ui") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """Forget the key."""
    if not is_same_origin(request.headers.get("origin"), request.headers.get("host")):
        raise HTTPException(403, "Sent from a page of another site: refused.")
    answer = RedirectResponse(f"{base(request)}/sign-in", 303)
    path = base(request).removesuffix("/ui") or "/"
    answer.delete_cookie(COOKIE, path=path, httponly=True, samesite="strict")
    return answer
