"""The cookie that keeps an API key in a browser, for the pages and for the dashboard."""

from __future__ import annotations

from urllib.parse import urlsplit

COOKIE = "bitfront_key"
"""Of both: who signed in at one is signed in at the other, on any port of the host."""
COOKIE_SECONDS = 12 * 3600
"""How long a browser keeps it."""


def is_same_origin(origin: str | None, host: str | None) -> bool:
    """Whether the page that sent a request is of the host and port that gets it; a browser says so.

    Args:
        origin: the header `Origin`.
        host: the header `Host`.

    >>> is_same_origin("http://here:8765", "here:8765"), is_same_origin("http://here", "here:8765")
    (True, False)
    >>> is_same_origin(None, None), is_same_origin("http://[::1", "here")
    (False, False)
    """
    try:
        place = urlsplit(origin or "").netloc
    except ValueError:
        return False
    return bool(place) and place == host
