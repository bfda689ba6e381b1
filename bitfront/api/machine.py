"""Whether a host is this machine: without keys, nobody else is served."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bitfront.errors import InvalidArgument

if TYPE_CHECKING:
    from bitfront.store import Store

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


def check_host(host: str, store: Store, setting: str) -> None:
    """Refuse to listen beyond this machine while anyone could look.

    Args:
        host: address to listen at.
        store: with the keys.
        setting: what the address was given by.

    Raises:
        InvalidArgument: no key exists, and the address is not of this machine alone.
    """
    if not is_loopback(host) and not store.keys.exist():
        raise InvalidArgument(
            f"Host {host} can be reached from other machines and there is no API key yet: make one "
            f"with `bitfront key create OWNER`, or give {setting} 127.0.0.1."
        )
