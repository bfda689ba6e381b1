"""Who may look: this machine while there are no keys, then keys that see everyone's studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

from bitfront.api.cookie import COOKIE
from bitfront.api.machine import is_loopback, is_named
from bitfront.api.refusals import Refusals
from bitfront.errors import Unauthorised
from bitfront.store import Store
from bitfront.store.records import ApiKey

SCOPE = "admin"

Environ = Mapping[str, Any]


class TooManyWrong(Exception):
    """An address sent too many wrong keys."""


@dataclass(eq=False)
class Access:
    """Decides on each request.

    Args:
        store: where keys are.
        refusals: who sent wrong ones lately, to this process.
    """

    store: Store
    refusals: Refusals = field(default_factory=Refusals)

    def check(self, environ: Environ) -> ApiKey | None:
        """The key of a request; `None` where none is needed.

        Raises:
            Unauthorised: no key, a wrong one, or one that sees its owner's studies only.
            TooManyWrong: keys are guessed.
        """
        if not self.store.keys.exist():
            is_near = is_loopback(str(environ.get("REMOTE_ADDR", "")))
            if not (is_near and is_named(str(environ.get("HTTP_HOST", "")))):
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
        if self.refusals.seconds_left(address, text):
            raise TooManyWrong
        try:
            key = self.store.keys.verified(text)
        except Unauthorised:
            self.refusals.wrong(address, text)
            raise
        self.refusals.right(text)
        if SCOPE not in key.scopes:
            raise Unauthorised(
                f"This key has the scopes {', '.join(key.scopes)}, and {SCOPE} is needed, because "
                "everyone's studies are here: ask for a key that has it.",
                is_known=True,
            )
        return key


def _sent(environ: Environ) -> str:
    scheme, _, text = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme:
        return text.strip() if scheme.lower() == "bearer" else ""
    try:
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""
