"""Guard: WSGI in front of optuna-dashboard, which itself lets anyone delete a study."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeAlias
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from bitfront.dashboard.access import Access, TooManyWrong
from bitfront.dashboard.sign_in import SignIn
from bitfront.errors import BitfrontError, NotFound, Unauthorised

READS = ("GET", "HEAD")

_SHOWN = re.compile(
    r"/dashboard(/[\w/-]*)?|/api/meta|/api/studies(/\d{1,9}(/param_importances)?)?"
    r"|/csv/\d{1,9}|/static/bundle\.js(\.LICENSE\.txt)?|/favicon\.ico",
    re.ASCII,
)
_STUDY = re.compile(r"/study/([0-9a-f]{32})")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

_log = logging.getLogger(__name__)
Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


@dataclass(frozen=True)
class Answer:
    """What the guard says itself."""

    status: HTTPStatus
    body: str = ""
    kind: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Guard:
    """Lets reads of known paths through, to whom may look; nothing else.

    Args:
        shown: the application that is guarded.
        access: who may look.
        sign_in: the form for browsers.
        find: number of a study in the mirror by its id.
    """

    shown: WSGIApplication
    access: Access
    sign_in: SignIn
    find: Callable[[str], int]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]

        def begin(status: str, headers: Headers, error: ExcInfo | None = None) -> Any:
            return start_response(status, protected(path, headers), error)

        try:
            answer = self._refusal(environ, path, method)
            if answer is None:
                # Its static files fail where a client says nothing about encodings.
                read = {**environ, "HTTP_ACCEPT_ENCODING": environ.get("HTTP_ACCEPT_ENCODING", "")}
                return self.shown(read, begin)
        except BitfrontError as error:
            answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:
            _log.exception("the dashboard failed", extra={"path": path})
            detail = "The Optuna mirror cannot be read now: try again in a minute."
            answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        body = answer.body.encode()
        headers = [("Content-Type", answer.kind), ("Content-Length", str(len(body)))]
        begin(f"{answer.status.value} {answer.status.phrase}", [*headers, *answer.headers])
        return [] if method == "HEAD" else [body]

    def _refusal(self, environ: WSGIEnvironment, path: str, method: str) -> Answer | None:
        """An answer of the guard's own; `None` to pass the request on."""
        if path == "/healthz" and method in READS:
            return Answer(HTTPStatus.OK, "ok\n")
        if path in self.sign_in.paths:
            status, body, headers = self.sign_in.answer(environ, path, method)
            return Answer(status, body, "text/html; charset=utf-8", headers)
        if method not in READS:
            detail = f"{method} is not allowed: the dashboard only shows."
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, ("Allow", "GET, HEAD"))
        refused = self._unknown(environ)
        if refused is not None:
            return refused
        if path == "/":
            return Answer(HTTPStatus.FOUND, headers=(("Location", "/dashboard"),))
        if named := _STUDY.fullmatch(path):
            return self._found(named[1])
        if not _SHOWN.fullmatch(path):
            return problem(HTTPStatus.NOT_FOUND, "Nothing is here: begin at /.")
        return None

    def _unknown(self, environ: WSGIEnvironment) -> Answer | None:
        try:
            self.access.check(environ)
        except TooManyWrong:
            detail = "Too many wrong keys from this address: wait a minute."
            return problem(HTTPStatus.TOO_MANY_REQUESTS, detail, ("Retry-After", "60"))
        except Unauthorised as error:
            status = HTTPStatus.FORBIDDEN if error.is_known else HTTPStatus.UNAUTHORIZED
            if "text/html" in environ.get("HTTP_ACCEPT", ""):
                page, kind = self.sign_in.form(str(error)), "text/html; charset=utf-8"
                return Answer(status, page, kind, (("WWW-Authenticate", "Bearer"),))
            return problem(status, str(error), ("WWW-Authenticate", "Bearer"))
        return None

    def _found(self, study_id: str) -> Answer:
        try:
            place = f"/dashboard/studies/{self.find(study_id)}"
        except NotFound as error:
            return problem(HTTPStatus.NOT_FOUND, str(error))
        return Answer(HTTPStatus.FOUND, headers=(("Location", place),))


def problem(status: HTTPStatus, detail: str, *headers: tuple[str, str]) -> Answer:
    """A refusal as a problem document (RFC 9457)."""
    body = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    return Answer(status, json.dumps(body), "application/problem+json", headers)


def protected(path: str, headers: Headers) -> Headers:
    """The headers of an answer with those that protect the browser."""
    given = {name.lower() for name, _ in headers}
    added = [(name, value) for name, value in _HEADERS.items() if name.lower() not in given]
    policy = _POLICY
    if "content-security-policy" not in given:
        policy = f"default-src 'none'; style-src 'unsafe-inline'; {_POLICY}"
    if path.startswith("/static/"):
        # 6 MB that change with the version of optuna-dashboard; who left may not see more by it.
        added = [x for x in added if x[0] != "Cache-Control"] + [("Cache-Control", "no-cache")]
    return [*headers, *added, ("Content-Security-Policy", policy)]
