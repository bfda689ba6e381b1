"""Signed manifests: who has the secret of the server can tell that it wrote them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitfront.errors import StorageError

ALGORITHM = "HMAC-SHA256"
_NAME = "signing.key"


def secret(home: Path) -> bytes:
    """The secret of an installation, made on first use, which only its user can read.

    Raises:
        StorageError: it can be neither read nor written.
    """
    path = home / _NAME
    try:
        if not path.exists():
            _make(path)
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Cannot use {_NAME} in the folder of this installation: {error}."
        ) from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        # Unlike a rename, a link leaves the one that another process made first.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def key_id(key: bytes) -> str:
    """Tells secrets apart and tells nothing of them."""
    return hashlib.sha256(key).hexdigest()[:16]


def signed(manifest: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """A manifest with its signature.

    The signature is over the manifest without the field `signature`, as JSON with sorted keys, no
    spaces, and non-ASCII escaped.
    """
    signature = {
        "algorithm": ALGORITHM,
        "key_id": key_id(key),
        "value": hmac.new(key, _canonical(manifest), hashlib.sha256).hexdigest(),
    }
    return {**manifest, "signature": signature}


def is_signed(manifest: Mapping[str, Any], key: bytes) -> bool:
    """Whether a manifest is as it was when it was signed.

    >>> made = signed({"trial": 3}, b"secret")
    >>> is_signed(made, b"secret"), is_signed({**made, "trial": 4}, b"secret")
    (True, False)
    """
    plain = {name: value for name, value in manifest.items() if name != "signature"}
    expected = signed(plain, key)["signature"]["value"]
    signature = manifest.get("signature")
    given = str(signature.get("value", "")) if isinstance(signature, Mapping) else ""
    # Encoded: it compares no others but ASCII texts.
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
