"""Files written completely or not at all, and read with one line about what is wrong with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitfront.errors import BitfrontError, InvalidText, MismatchedArtifact, StorageError


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


def link_or_copy(source: Path, target: Path) -> None:
    """Have the bytes of a file at another place, which is free, without a copy where possible."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # Its folder may be missing or a file itself; the first error is the one to show.
        return


@contextmanager
def reading(path: Path, replaceable: bool = True, line: int | None = None) -> Iterator[Path]:
    """The block reads `path`; whatever it meets there becomes one line that names the file.

    Args:
        path: what is read.
        replaceable: whether a search makes the file anew when it is missing.
        line: number of the line, where one can be removed without the rest.

    Raises:
        MismatchedArtifact: the file cannot be read, or what is in it cannot be understood.
    """
    try:
        yield path
    except OSError as error:
        raise MismatchedArtifact(
            f"{path} cannot be read ({error.strerror or error}): give another folder with --out."
        ) from error
    # Zip, npy and JSON readers raise a dozen types on garbage, and which ones is not documented.
    except Exception as error:
        kind = "" if isinstance(error, BitfrontError) else f"{type(error).__name__}: "
        place = f"line {line}: " if line else ""
        reason = " ".join(f"{place}{kind}{error}".split()).rstrip(".")
        remedy = ", or remove the file and search again" if replaceable else ""
        if line:
            remedy = f", or remove line {line} of it and search again, which keeps the others"
        raise MismatchedArtifact(
            f"{path} is damaged ({reason}): give another folder with --out{remedy}."
        ) from error


@contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """The block reads a text that a user gave.

    Raises:
        InvalidText: it cannot be read, or is not UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from error
    except OSError as error:
        raise InvalidText(f"Cannot read {path}: {error.strerror}.") from error


def drop_cut_line(file: int) -> None:
    """Truncate an append-only file to its last newline: a kill may have cut the last line short."""
    size = os.fstat(file).st_size
    position = size
    while position and os.pread(file, 1, position - 1) != b"\n":
        position -= 1
    if position < size:
        os.ftruncate(file, position)
