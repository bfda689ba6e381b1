"""What the table of keys said a moment ago, so that not every request asks it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from bitfront.api.refusals import secret_digest
from bitfront.store.records import ApiKey

SECONDS = 1.0
"""How long a key that was revoked may still be good, and a first key not needed yet."""
_N_REMEMBERED = 1_000


@dataclass
class Recent:
    """Keys that were right and, as `None`, that there was no key at all, of this process.

    Only the event loop touches it.
    """

    _said: OrderedDict[bytes, tuple[float, ApiKey | None]] = field(default_factory=OrderedDict)

    def has(self, text: str) -> bool:
        """Whether the table, asked within the last second, had this key, or for `""` none."""
        said = self._said.get(secret_digest(text))
        return said is not None and time.monotonic() - said[0] < SECONDS

    def key(self, text: str) -> ApiKey | None:
        """The key of a text that is there."""
        return self._said[secret_digest(text)][1]

    def add(self, text: str, key: ApiKey | None, asked_at: float) -> None:
        """Remember what the table said; it was asked at a time of `time.monotonic`."""
        self._said[secret_digest(text)] = asked_at, key
        self._said.move_to_end(secret_digest(text))
        while len(self._said) > _N_REMEMBERED:
            self._said.popitem(last=False)
