"""Allocation: the format of each layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Allocation:
    """Layer name to format name, for every quantized layer of a model, pinned ones included.

    >>> Allocation({"b": "int4_g64", "a": "bf16"}).to_json()
    '{"a":"bf16","b":"int4_g64"}'
    """

    formats: Mapping[str, str]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; equal allocations give equal text."""
        return json.dumps(dict(self.formats), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Allocation:
        """Inverse of `to_json`."""
        return cls(json.loads(text))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)
