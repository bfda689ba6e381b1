"""Whether a host is this machine: without keys, nobody else is served."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_NAMES = {"localhost", "127.0.0.1", "::1"}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host, or sends from an address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, False, True)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_named(header: str) -> bool:
    """Whether the header `Host` names this machine as only a program or page of it can.

    A page from elsewhere whose name resolves to this machine cannot choose that header.

    >>> is_named("localhost:8765"), is_named("evil.example"), is_named("[::1")
    (True, False, False)
    """
    try:
        return urlsplit(f"//{header}").hostname in _NAMES
    except ValueError:
        return False
