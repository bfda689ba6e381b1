"""Artifacts: files by what is in them, in a folder or in any store that fsspec knows."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from bitfront.errors import (
    BitfrontError,
    InvalidArgument,
    MismatchedArtifact,
    NotFound,
    StorageError,
)
from bitfront.files import link_or_copy, replacing

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Artifacts:
    """A store of files named by their SHA-256.

    Every method raises `StorageError` where the store cannot be reached or refuses: what its
    library raises then need not even be an `OSError` (s3fs).

    Args:
        url: a folder, or a URL such as `s3://bucket/prefix`.
    """

    url: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        # A cached listing would hide what other machines stored since.
        try:
            return cast(
                "tuple[Any, str]", fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            )
        except (ImportError, ValueError) as error:
            raise InvalidArgument(
                f"Cannot keep artifacts at {self.url!r}: {error}. "
                "Give a folder, or s3://bucket/prefix with s3fs installed."
            ) from error

    def check(self) -> None:
        """Refuse a place where nothing can be kept, before there is anything to keep.

        Raises:
            InvalidArgument: nothing that is installed knows such a place.
            StorageError: it cannot be reached or written to.
        """
        try:
            system, root = self._place
            if self._folder is not None:
                system.makedirs(root, exist_ok=True)
            # No digest: what is left of it where this is killed is no artifact.
            probe = f"{root}/check-{secrets.token_hex(8)}"
            system.pipe_file(probe, b"bitfront")
            system.rm_file(probe)
        except InvalidArgument:
            raise
        except Exception as error:
            raise StorageError(
                f"Cannot keep artifacts at {self.url} ({str(error) or type(error).__name__}): set "
                "BITFRONT_ARTIFACTS_URL to a folder or a store that can be written to."
            ) from error

    @property
    def _folder(self) -> Path | None:
        """The folder, where it is one of this machine."""
        system, root = self._place
        return Path(root) if "file" in _protocols(system) else None

    def put(self, path: Path) -> str:
        """Store a file; one that is there is not written again.

        Returns:
            Its digest.

        Raises:
            StorageError: it cannot be written; nothing half written is left.
        """
        digest = digest_of(path)
        if self.has(digest):
            return digest
        folder = self._folder
        if folder is not None:
            target = folder / _name(digest)
            with replacing(target) as temporary:
                link_or_copy(path, temporary)
            return digest
        system, root = self._place
        with self._reached():
            system.put_file(str(path), f"{root}/{_name(digest)}")
        return digest

    def has(self, digest: str) -> bool:
        """Whether an artifact is there."""
        system, root = self._place
        with self._reached():
            return bool(system.exists(f"{root}/{_name(digest)}"))

    def fetch(self, digest: str, path: Path) -> None:
        """Bring an artifact to `path` unless it is there; a link where a folder allows one.

        Raises:
            NotFound: there is no such artifact.
            MismatchedArtifact: what is there is damaged.
            StorageError: `path` cannot be written.
        """
        if path.exists() and digest_of(path) == digest:
            return
        folder = self._folder
        source = self._existing(digest)
        with replacing(path) as temporary:
            if folder is not None:
                link_or_copy(Path(source), temporary)
            else:
                with self._reached():
                    self._place[0].get_file(source, str(temporary))
            if digest_of(temporary) != digest:
                raise MismatchedArtifact(f"Artifact {digest} is damaged: remove it and run again.")

    def open(self, digest: str) -> BinaryIO:
        """An artifact's bytes, seekable.

        Raises:
            NotFound: there is no such artifact.
        """
        with self._reached():
            return cast("BinaryIO", self._place[0].open(self._existing(digest), "rb"))

    def size(self, digest: str) -> int:
        """Bytes of an artifact.

        Raises:
            NotFound: there is no such artifact.
        """
        with self._reached():
            return int(self._place[0].size(self._existing(digest)))

    def age(self, digest: str) -> float:
        """Seconds since an artifact was stored; 0 for one that is gone."""
        system, root = self._place
        try:
            with self._reached():
                stored_at: datetime = system.modified(f"{root}/{_name(digest)}")
        except FileNotFoundError:
            return 0.0
        return (datetime.now(UTC) - stored_at.astimezone(UTC)).total_seconds()

    def remove(self, digest: str) -> None:
        """Drop an artifact; one that is gone is as good."""
        system, root = self._place
        with suppress(FileNotFoundError), self._reached():
            system.rm_file(f"{root}/{_name(digest)}")

    def all(self) -> Iterator[str]:
        """Digests of everything stored."""
        system, root = self._place
        with suppress(FileNotFoundError):
            with self._reached():
                paths = system.find(root)
            for path in paths:
                name = path.rpartition("/")[2]
                if _DIGEST.fullmatch(name):
                    yield name

    def _existing(self, digest: str) -> str:
        _, root = self._place
        if not self.has(digest):
            raise NotFound(f"No artifact {digest}.")
        return f"{root}/{_name(digest)}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (BitfrontError, FileNotFoundError):
            raise
        except Exception as error:
            raise StorageError(f"Cannot use the artifacts at {self.url}: {error}.") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{digest[:80]!r} is not a digest: give 64 hexadecimal digits.")
    # Thousands of files in one folder are slow to list.
    return f"{digest[:2]}/{digest}"


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
