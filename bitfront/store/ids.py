"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import secrets
import time


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of milliseconds, then 80 random ones (RFC 9562, section 5.7).

    >>> first, second = new_id(), new_id()
    >>> len(first), first == second
    (32, False)
    """
    # The sites of version and variant are left random: nothing reads them.
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
