"""Signing in: a browser keeps an API key in a cookie that scripts cannot read."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import ClassVar
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from bitfront.api.cookie import COOKIE, COOKIE_SECONDS, is_same_origin
from bitfront.dashboard.access import SCOPE, Access, TooManyWrong
from bitfront.errors import Unauthorised

_MAX_BYTES = 1024
_ANSWER = tuple[HTTPStatus, str, tuple[tuple[str, str], ...]]
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in: bitfront dashboard</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 15vh auto 0; }}
main {{ padding: 0 1rem; }}
input, button {{ font: inherit; box-sizing: border-box; width: 100%; padding: .5rem; }}
button {{ margin-top: .5rem; }}
</style>
</head>
<body>
<main>
<h1>Dashboard</h1>
<p role="alert">{message}</p>
<form method="post" action="/sign-in">
<label for="key">API key with the scope {scope}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button>
</form>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class SignIn:
    """The form, and what is done with what is sent from it.

    Args:
        access: who may look.
    """

    access: Access
    paths: ClassVar[tuple[str, ...]] = ("/sign-in", "/sign-out")

    def form(self, message: str = "") -> str:
        """The page that asks for a key."""
        return _PAGE.format(message=escape(message), scope=SCOPE)

    def answer(self, environ: WSGIEnvironment, path: str, method: str) -> _ANSWER:
        """Status, page and headers."""
        if method in {"GET", "HEAD"} and path == "/sign-in":
            return HTTPStatus.OK, self.form(), ()
        if method != "POST":
            allowed = "GET, HEAD, POST" if path == "/sign-in" else "POST"
            return HTTPStatus.METHOD_NOT_ALLOWED, self.form(), (("Allow", allowed),)
        if not is_same_origin(environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST")):
            detail = "Sent from a page of another site: sign in here."
            return HTTPStatus.FORBIDDEN, self.form(detail), ()
        if path == "/sign-out":
            return HTTPStatus.SEE_OTHER, "", (("Location", "/sign-in"), _cookie(environ, "", 0))
        return self._checked(environ)

    def _checked(self, environ: WSGIEnvironment) -> _ANSWER:
        key = _key(environ)
        try:
            known = self.access.verified(key, str(environ.get("REMOTE_ADDR", "")))
        except TooManyWrong:
            detail = "Too many wrong keys from this address: wait a minute."
            return HTTPStatus.TOO_MANY_REQUESTS, self.form(detail), (("Retry-After", "60"),)
        except Unauthorised as error:
            status = HTTPStatus.FORBIDDEN if error.is_known else HTTPStatus.UNAUTHORIZED
            return status, self.form(str(error)), ()
        self.access.store.keys.note(
            known.owner, known.id, "sign_in", "dashboard", HTTPStatus.SEE_OTHER
        )
        return HTTPStatus.SEE_OTHER, "", (("Location", "/"), _cookie(environ, key, COOKIE_SECONDS))


def _key(environ: WSGIEnvironment) -> str:
    try:
        n_bytes = min(int(environ.get("CONTENT_LENGTH") or 0), _MAX_BYTES)
        fields = parse_qs(environ["wsgi.input"].read(n_bytes).decode(), max_num_fields=4)
    except ValueError:
        return ""
    text = fields.get("key", [""])[0].strip()
    # It becomes a header.
    return text if text.isascii() and text.replace("_", "").isalnum() else ""


def _cookie(environ: WSGIEnvironment, value: str, seconds: int) -> tuple[str, str]:
    # Behind a proxy, only the browser knows that it speaks https.
    secure = "; Secure" if environ.get("HTTP_ORIGIN", "").startswith("https:") else ""
    limits = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    return "Set-Cookie", f"{COOKIE}={value}; {limits}"
