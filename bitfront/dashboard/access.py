"""Who may look: this machine while there are no keys, then keys that see everyone's studies."""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from bitfront.errors import InvalidArgument, Unauthorised
from bitfront.store import Store
from bitfront.store.records import ApiKey

COOKIE = "bitfront_key"
"""The web page's own cookie: who signed in there is signed in here, on any port of the host."""

SCOPE = "admin"
N_WRONG, WRONG_SECONDS = 10, 60.0
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}
_N_REMEMBERED = 10_000

Environ = Mapping[str, Any]


class TooManyWrong(Exception):
    """An address sent too many wrong keys."""


@dataclass(eq=False)
class Access:
    """Decides on each request.

    Args:
        store: where keys are.
    """

    store: Store
    _wrong: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, init=False)
    _right: OrderedDict[bytes, None] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def check(self, environ: Environ) -> ApiKey | None:
        """The key of a request; `None` where none is needed.

        Raises:
            Unauthorised: no key, a wrong one, or one that sees its owner's studies only.
            TooManyWrong: keys are guessed.
        """
        if not self.store.keys.exist():
            if not _is_of_this_machine(environ):
                raise Unauthorised(
                    "Without any key, only this machine is served, by the name localhost or "
                    "127.0.0.1: make a key with `bitfront key create`."
                )
            return None
        text = _sent(environ)
        if not text:
            raise Unauthorised(f"A key with the scope {SCOPE} is needed: sign in at /sign-in.")
        return self.verified(text, str(environ.get("REMOTE_ADDR", "")))

    def verified(self, text: str, address: str) -> ApiKey:
        """The key of a secret text, if it may look.

        Raises:
            Unauthorised: a wrong key, or one that sees its owner's studies only.
            TooManyWrong: keys are guessed from that address. One that was right before is still
                looked at: behind a proxy, all clients have one address.
        """
        digest = hashlib.sha256(text.encode(errors="replace")).digest()
        with self._lock:
            times = self._wrong.get(address, deque())
            n_late = sum(at > time.monotonic() - WRONG_SECONDS for at in times)
            if n_late >= N_WRONG and digest not in self._right:
                raise TooManyWrong
        try:
            key = self.store.keys.verified(text)
        except Unauthorised:
            with self._lock:
                self._right.pop(digest, None)
                self._wrong.setdefault(address, deque(maxlen=N_WRONG)).append(time.monotonic())
                _shorten(self._wrong)
            raise
        with self._lock:
            self._right[digest] = None
            _shorten(self._right)
        if SCOPE not in key.scopes:
            raise Unauthorised(
                f"This key has the scopes {', '.join(key.scopes)}, and {SCOPE} is needed, because "
                "everyone's studies are here: ask for a key that has it.",
                is_known=True,
            )
        return key


def check_host(host: str, store: Store) -> None:
    """Refuse to listen beyond this machine while anyone could look.

    Raises:
        InvalidArgument: no key exists, and the address is not of this machine alone.
    """
    if not _is_loopback(host) and not store.keys.exist():
        raise InvalidArgument(
            f"The dashboard cannot listen at {host} without keys: make one with "
            "`bitfront key create`, or set BITFRONT_DASHBOARD_HOST to 127.0.0.1."
        )


def is_same_origin(environ: Environ) -> bool:
    """Whether the page that sent a form is of this very host and port; a browser says so."""
    try:
        origin = urlsplit(environ.get("HTTP_ORIGIN", "")).netloc
    except ValueError:
        return False
    return bool(origin) and origin == environ.get("HTTP_HOST", "")


def _sent(environ: Environ) -> str:
    scheme, _, text = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme:
        return text.strip() if scheme.lower() == "bearer" else ""
    try:
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _is_of_this_machine(environ: Environ) -> bool:
    # A page from elsewhere whose name resolves to this machine cannot choose `Host`.
    try:
        name = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname
    except ValueError:
        return False
    return name in _LOCAL_NAMES and _is_loopback(str(environ.get("REMOTE_ADDR", "")))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shorten(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > _N_REMEMBERED:
        remembered.popitem(last=False)
