"""Writing files completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitfront.errors import StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` that takes its place when the block ends without an error.

    >>> from tempfile import mkdtemp
    >>> target = Path(mkdtemp()) / "front.json"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("[]")
    >>> target.read_text()
    '[]'

    Raises:
        StorageError: disk full, no permission, not a file; what was at `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. "
            "Free some space or give another place; what was there before is untouched."
        ) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # Its folder may be missing or a file itself; the first error is the one to show.
        return
