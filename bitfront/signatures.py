"""Signatures of manifests: who has the public key of a server can tell what that server wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bitfront.errors import InvalidArgument

ALGORITHM = "Ed25519"
"""Of RFC 8032."""
KEY_BYTES = 32
"""Of a private key and of a public one."""


def key_id(public_key: bytes) -> str:
    """Tells public keys apart: the first 16 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def canonical(manifest: Mapping[str, Any]) -> bytes:
    """What is signed: JSON without the field `signature`, sorted keys, no spaces, ASCII."""
    plain = {name: value for name, value in manifest.items() if name != "signature"}
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def parse_key(text: str) -> bytes:
    """A public key from hexadecimal.

    Raises:
        InvalidArgument: something else.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidArgument(
            f"Public key {text[:80]!r} is not {2 * KEY_BYTES} hexadecimal digits: give that of "
            "GET /v1/manifests/key."
        )
    return key


def is_signed(manifest: Mapping[str, Any], public_key: bytes) -> bool:
    """Whether a manifest is, field by field, what the owner of a key signed.

    Args:
        manifest: with its field `signature`.
        public_key: 32 bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = manifest.get("signature")
    if not isinstance(signature, Mapping) or signature.get("algorithm") != ALGORITHM:
        return False
    try:
        value = bytes.fromhex(str(signature.get("value", "")))
        Ed25519PublicKey.from_public_bytes(public_key).verify(value, canonical(manifest))
    except (ValueError, InvalidSignature):
        return False
    return True
