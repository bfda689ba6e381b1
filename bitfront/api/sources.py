"""Where models and texts may come from: names of the hub, or folders that the operator named.

Nothing else that a request says is ever taken for a place: no URL, no path outside the roots, no
link that leaves them. What is accepted is stored resolved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bitfront.errors import InvalidArgument
from bitfront.notes import base_of
from bitfront.settings import Settings

MAX_LENGTH = 300
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,95}"
_NAME = rf"{_PART}/{_PART}"
_REVISION = rf"@{_PART}(?:/{_PART})?"
HUB_MODEL = rf"^{_NAME}{_REVISION}$"
"""`org/name@revision`."""
HUB_TEXT = rf"^{_NAME}{_REVISION}(?::{_PART}){{0,2}}$"
"""`org/name@revision`, with `:config` or `:config:split` after it."""
_UNPINNED = re.compile(rf"({_NAME})((?::{_PART}){{0,2}})")
_PATH = re.compile(r"/?(?:[A-Za-z0-9_][A-Za-z0-9_ .+=-]*/)*[A-Za-z0-9_][A-Za-z0-9_ .+=-]*/?")
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npy", ".npz"}
_TEXTS = {".txt", ".md", ".json", ".jsonl"}
_MAX_FILES = 10_000
_MAX_BASES = 8


@dataclass(frozen=True)
class Sources:
    """What requests may name.

    Args:
        settings: of the installation: the roots, and whether the hub is open.
    """

    settings: Settings

    def model(self, text: str) -> tuple[str, str | None]:
        """Folder, GGUF file or hub id of a model, and the revision that its name had.

        Raises:
            InvalidArgument: neither.
        """
        if path := _inside(text, self.settings.model_roots):
            if path.is_dir():
                _check_links(path, self.settings.model_roots)
                return str(path), None
            if path.suffix == ".gguf":
                return str(path), None
        elif self.settings.hub and re.fullmatch(HUB_MODEL, text):
            name, _, revision = text.partition("@")
            return name, revision
        self._check_revision("Model", text)
        raise InvalidArgument(
            f"Model {_shown(text)} cannot be used: give {self._allowed('org/name@revision')}"
            f"a folder or .gguf file below {_roots(self.settings.model_roots)}."
        )

    def base(self, text: str) -> str:
        """Folder or GGUF file of a base; those of the hub are not fetched.

        Raises:
            InvalidArgument: no such place below a model folder.
        """
        first, place = "", text
        for _ in range(_MAX_BASES):
            if not _inside(place, self.settings.model_roots):
                break
            found = self.model(place)[0]
            first = first or found
            if (note := base_of(Path(found))) is None:
                return first
            place = note["source"]  # offsets are added to a base in their turn
        raise InvalidArgument(
            f"Base {_shown(text)} cannot be used: give a folder or .gguf file below "
            f"{_roots(self.settings.model_roots)}, whose own base, if it has one, is there too."
        )

    def text(self, text: str) -> str:
        """File or hub data set of a text.

        Raises:
            InvalidArgument: neither.
        """
        if path := _inside(text, self.settings.data_roots):
            if path.is_file() and path.suffix in _TEXTS:
                return str(path)
        elif self.settings.hub and re.fullmatch(HUB_TEXT, text):
            return text
        self._check_revision("Text", text)
        raise InvalidArgument(
            f"Text {_shown(text)} cannot be used: "
            f"give {self._allowed('org/name@revision:config:split')}"
            f"a {', '.join(sorted(_TEXTS))} file below {_roots(self.settings.data_roots)}."
        )

    def table(self, text: str) -> str:
        """File of a table of latencies.

        Raises:
            InvalidArgument: it is none.
        """
        return self._file("Table", text, ".json")

    def items(self, text: str) -> str:
        """File of multiple-choice items.

        Raises:
            InvalidArgument: it is none.
        """
        return self._file("Items", text, ".jsonl")

    def _file(self, what: str, text: str, suffix: str) -> str:
        path = _inside(text, self.settings.data_roots)
        if path is None or not path.is_file() or path.suffix != suffix:
            raise InvalidArgument(
                f"{what} {_shown(text)} cannot be used: "
                f"give a {suffix} file below {_roots(self.settings.data_roots)}."
            )
        return str(path)

    def _check_revision(self, what: str, text: str) -> None:
        """Refuse a name that means something else on another day.

        Raises:
            InvalidArgument: a name of the hub without a revision.
        """
        if self.settings.hub and (found := _UNPINNED.fullmatch(text)):
            name, rest = found.groups()
            raise InvalidArgument(
                f"{what} {_shown(text)} names no revision: give {name}@COMMIT{rest}, or a branch "
                "or tag such as @main, of which the study keeps the commit."
            )

    def _allowed(self, pattern: str) -> str:
        return f"{pattern} of the hub, or " if self.settings.hub else ""


def _inside(text: str, roots: Sequence[Path]) -> Path | None:
    """The existing file or folder below a root that a text names, resolved."""
    is_clean = _PATH.fullmatch(text) and ".." not in text and len(text) <= MAX_LENGTH
    if not is_clean or Path(text).suffix.lower() in _PICKLED:
        return None
    for root in roots:
        # An absolute path replaces the root here, and is held to it below.
        path = _resolved(root / text)
        if path is not None and path != root.resolve() and path.is_relative_to(root.resolve()):
            return path
    return None


def _resolved(path: Path) -> Path | None:
    """Where a path leads; `None` where nothing is, or links lead in a circle."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _check_links(folder: Path, roots: Sequence[Path]) -> None:
    """Refuse a folder in which a link leads out of every root.

    Raises:
        InvalidArgument: names the link.
    """
    allowed = [root.resolve() for root in roots]
    for path in islice(folder.rglob("*"), _MAX_FILES):
        if not path.is_symlink():
            continue
        end = _resolved(path)
        if end is None or not any(end.is_relative_to(root) for root in allowed):
            raise InvalidArgument(
                f"{path.name} in the model folder is a link that leads out of it: copy the file."
            )


def _roots(roots: Sequence[Path]) -> str:
    if roots:
        return "a folder that this installation reads from"
    return "a folder of BITFRONT_MODEL_ROOTS or BITFRONT_DATA_ROOTS, which are not set"


def _shown(text: str) -> str:
    return ascii(text[:80]) + ("..." if len(text) > 80 else "")
