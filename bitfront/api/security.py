"""Who calls, what they may do, what is written down of it, and the headers of every answer."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitfront.api import problems
from bitfront.api.machine import is_loopback, is_named
from bitfront.api.site import Here, Site
from bitfront.errors import BitfrontError, Unauthorised
from bitfront.store.keys import LOCAL, SCOPES
from bitfront.store.quotas import Quota
from bitfront.store.records import ApiKey

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_log = logging.getLogger(__name__)
_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="A key of `bitfront key create`."
)


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Args:
        owner: whose studies they make.
        scopes: what they may do.
        key_id: of their key; `None` on a machine without keys.
        quota: what the owner may have.
    """

    owner: str
    scopes: tuple[str, ...]
    key_id: str | None = None
    quota: Quota = Quota()

    @property
    def sees(self) -> str | None:
        """Whose studies they see; `None` for everyone's."""
        return None if "admin" in self.scopes else self.owner


async def caller(
    request: Request,
    here: Here,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Who sent the request.

    Raises:
        Unauthorised: no key or a wrong one.
        HTTPException: 429 after too many wrong keys of this address.
    """
    if credentials is None:
        return await _without_key(request, here)
    key = credentials.credentials
    if not here.recent.has(key):
        asked_at = time.monotonic()
        here.recent.add(key, await run_in_threadpool(verified, request, here, key), asked_at)
    found = here.recent.key(key)
    assert found is not None
    quota = Quota(found.max_running, found.max_device_hours)
    return Caller(found.owner, found.scopes, found.id, quota)


async def is_still_known(request: Request, here: Site) -> bool:
    """Whether the caller of a request that is being answered would be answered now.

    Raises:
        StorageError: the database does not say.
    """
    credentials = await _bearer(request)
    try:
        if credentials is None:
            await _without_key(request, here)
        elif not here.recent.has(credentials.credentials):
            asked_at = time.monotonic()
            # Nobody guesses here: a key that was right is not counted among the wrong ones.
            found = await run_in_threadpool(here.store.keys.verified, credentials.credentials)
            here.recent.add(credentials.credentials, found, asked_at)
    except Unauthorised:
        return False
    return True


def verified(request: Request, here: Site, key: str) -> ApiKey:
    """The key of a request, as the database has it now.

    Raises:
        Unauthorised: a wrong one.
        HTTPException: 429 after too many wrong keys of this address.
    """
    address = request.client.host if request.client else ""
    if seconds := here.refusals.seconds_left(address, key):
        detail = f"Too many wrong keys from this address: wait {seconds} s."
        raise HTTPException(429, detail, {"Retry-After": str(seconds)})
    try:
        found = here.store.keys.verified(key)
    except Unauthorised:
        here.refusals.wrong(address, key)
        raise
    here.refusals.right(key)
    return found


async def _without_key(request: Request, here: Site) -> Caller:
    if request.headers.get("authorization"):
        raise Unauthorised("This Authorization is not `Bearer KEY`: send a key that way.")
    if not here.recent.has(""):
        asked_at = time.monotonic()
        if await run_in_threadpool(here.store.keys.exist):
            raise Unauthorised("A key is needed: send Authorization: Bearer KEY.")
        here.recent.add("", None, asked_at)
    if not _is_of_this_machine(request):
        raise Unauthorised(
            "Without any key, only this machine is served, by the name localhost or 127.0.0.1: "
            "make a key with `bitfront key create`."
        )
    return Caller(LOCAL, SCOPES)


def _is_of_this_machine(request: Request) -> bool:
    """Whether a program or page of this machine asks, and no page from elsewhere through it.

    A page of another site may send simple requests here, and one whose name resolves to this
    machine may read the answers; neither can choose `Host` or leave out `Origin`.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    try:
        is_ours = origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False
    is_near = request.client is not None and is_loopback(request.client.host)
    return is_near and is_named(host) and is_ours


Known = Annotated[Caller, Depends(caller)]


def _allowed(known: Caller, scope: str) -> Caller:
    if scope not in known.scopes:
        raise Unauthorised(
            f"This key has the scopes {', '.join(known.scopes)}, and {scope} is needed: "
            "ask for a key that has it.",
            is_known=True,
        )
    return known


async def reader(known: Known) -> Caller:
    """A caller who may read."""
    return _allowed(known, "read")


async def writer(known: Known, request: Request) -> Caller:
    """A caller who may change studies; what they do is written down."""
    request.state.writer = known
    return _allowed(known, "write")


async def admin(known: Known) -> Caller:
    """A caller who may see what belongs to everyone."""
    return _allowed(known, "admin")


Reader = Annotated[Caller, Depends(reader)]
Writer = Annotated[Caller, Depends(writer)]


@dataclass
class Protection:
    """ASGI middleware: security headers on every answer, a problem for what nobody expected.

    Args:
        app: what answers.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request and complete its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def protected(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, protected)
        except Exception as error:
            if begun:
                raise
            await problems.of(error, scope["path"])(scope, receive, protected)


@dataclass
class Audit:
    """ASGI middleware that writes down each change before its answer goes out.

    Args:
        app: what answers.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request; note what came of it where a route asked for a `Writer`."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = scope.get("state", {}).get("writer")
                if known is not None:
                    await run_in_threadpool(_note, scope, known, message)
            await send(message)

        await self.app(scope, receive, noting if scope["type"] == "http" else send)


def _note(scope: Scope, known: Caller, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    action = getattr(scope.get("route"), "operation_id", None) or scope["method"]
    target, status = headers.get("location", scope["path"]), message["status"]
    if status == 503:
        # Its client would wait once more for what did not answer just now.
        _log.error("audit of %s by %s not stored: it ended in a 503", action, known.owner)
        return
    try:
        scope["app"].state.site.store.keys.note(
            known.owner, known.key_id, action[:64], target, status
        )
    except Exception as error:
        # The change is made: an answer that denies it would have it made again.
        is_known = isinstance(error, BitfrontError)
        told = "audit of %s by %s not stored: %s"
        _log.error(told, action, known.owner, error, exc_info=None if is_known else error)
