"""Signed manifests: the private key of an installation, and what it signs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfront.errors import StorageError
from bitfront.signatures import ALGORITHM, KEY_BYTES, canonical, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_NAME = "signing.key"


def private_key(home: Path) -> bytes:
    """The private key of an installation, made on first use, which only its user can read.

    Raises:
        StorageError: it can be neither read nor written, or is no key.
    """
    path = home / _NAME
    try:
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        if len(key) != KEY_BYTES:
            raise ValueError(f"{len(key)} bytes, not {KEY_BYTES}")
        return key
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Cannot use {_NAME} in the folder of this installation: {error}."
        ) from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # Unlike a rename, a link leaves the one that another process made first.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def public_key(key: bytes) -> bytes:
    """What everybody may know: it checks signatures and makes none."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _private(key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def signed(manifest: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """A manifest with its signature, which `signatures.is_signed` checks.

    >>> from bitfront.signatures import is_signed
    >>> made = signed({"trial": 3}, bytes(32))
    >>> public = public_key(bytes(32))
    >>> is_signed(made, public), is_signed({**made, "trial": 4}, public)
    (True, False)
    """
    signature = {
        "algorithm": ALGORITHM,
        "key_id": key_id(public_key(key)),
        "value": _private(key).sign(canonical(manifest)).hex(),
    }
    return {**manifest, "signature": signature}


def _private(key: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key)
