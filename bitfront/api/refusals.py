"""Who sent wrong keys lately, so that guessing is slow."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

N_ALLOWED = 10
"""Wrong keys of one address within `SECONDS`."""
SECONDS = 60.0
_N_REMEMBERED = 10_000


@dataclass
class Refusals:
    """Wrong keys by address and keys that were right, of this process.

    A key that was right lately stays usable from an address that guesses: behind a proxy, all
    clients have one address, and one of them must not lock the others out.
    """

    _wrong: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _right: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seconds_left(self, address: str, key: str) -> int:
        """How long this key from this address is not looked at; 0 if it is."""
        with self._lock:
            times = self._wrong.get(address, deque())
            while times and times[0] < time.monotonic() - SECONDS:
                times.popleft()
            if len(times) < N_ALLOWED or secret_digest(key) in self._right:
                return 0
            return math.ceil(times[0] + SECONDS - time.monotonic())

    def wrong(self, address: str, key: str) -> None:
        """Count a wrong key."""
        with self._lock:
            self._right.pop(secret_digest(key), None)
            self._wrong.setdefault(address, deque(maxlen=N_ALLOWED)).append(time.monotonic())
            self._wrong.move_to_end(address)
            _shorten(self._wrong)

    def right(self, key: str) -> None:
        """Remember a right key."""
        with self._lock:
            self._right[secret_digest(key)] = None
            self._right.move_to_end(secret_digest(key))
            _shorten(self._right)


def secret_digest(key: str) -> bytes:
    """What is remembered in place of a key."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _shorten(remembered: OrderedDict[str, deque[float]] | OrderedDict[bytes, None]) -> None:
    while len(remembered) > _N_REMEMBERED:
        remembered.popitem(last=False)
