"""Where models and samples may come from: names of the hub, or folders that the operator named.

Nothing else that a request says is ever taken for a place: no URL, no path outside the roots, no
link that leaves them. What is accepted is stored resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bitfront.api import weights
from bitfront.errors import InvalidArgument
from bitfront.notes import base_of
from bitfront.pictures import Album, check_labels, check_number
from bitfront.seeing import FED, IMAGES, kind_of
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
                inside = islice(path.rglob("*"), _MAX_FILES)
                _check_links("model", inside, self.settings.model_roots)
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
        """Folder or GGUF file of a base, or `org/name@revision` of the hub.

        Raises:
            InvalidArgument: neither, or offsets to a base that is not below a model folder.
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
        if not first and self.settings.hub and re.fullmatch(HUB_MODEL, text):
            return text
        self._check_revision("Base", text)
        raise InvalidArgument(
            f"Base {_shown(text)} cannot be used: give {self._allowed('org/name@revision')}"
            f"a folder or .gguf file below {_roots(self.settings.model_roots)}, whose own base, if "
            "it has one, is there too."
        )

    def kind(self, text: str) -> str:
        """What a request names: `"images"`, `"image-text"` or `"text"`, by its looks."""
        path = _inside(text, self.settings.data_roots)
        return (kind_of(str(path)) if path else None) or "text"

    def images(self, text: str, n_images: int, classes: Mapping[int, str]) -> str:
        """Folder of images.

        Args:
            text: names it.
            n_images: how many are needed.
            classes: of the model by number; empty where they are not known.

        Raises:
            InvalidArgument: it is none, has too few, or a link leads out of it.
            InvalidText: a label is no class of the model, or a file of labels cannot be read.
        """
        path = _inside(text, self.settings.data_roots)
        if path is None or not path.is_dir():
            raise InvalidArgument(
                f"Images {_shown(text)} cannot be used: the model reads {FED[IMAGES]}, give one "
                f"below {_roots(self.settings.data_roots)}."
            )
        album = Album.of(path)
        _check_links("image", album.links, self.settings.data_roots)
        check_number(str(path), album.n_images, n_images)
        if classes:
            check_labels(path, album, classes)
        return str(path)

    def samples(self, text: str, n_samples: int) -> str:
        """File of image-text samples.

        Args:
            text: names it.
            n_samples: how many are needed.

        Raises:
            InvalidArgument: it is none, or has too few.
        """
        place = self._file("Samples", text, ".safetensors")
        try:
            shapes = weights.header(Path(place))
            n_found, _ = shapes["input_ids"]
            n_images = shapes["pixel_values"][0]
        except weights.UNREADABLE as error:
            raise InvalidArgument(
                f"Samples {_shown(text)} cannot be used ({weights.reason(error)}): give "
                "safetensors with input_ids and pixel_values, as the model's processor makes them."
            ) from error
        if min(n_found, n_images) < n_samples:
            raise InvalidArgument(
                f"Samples {_shown(text)} cannot be used: there are {n_found:,}, {n_samples:,} are "
                "needed."
            )
        return place

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
        else:
            self._check_revision("Text", text)
        raise InvalidArgument(
            f"Text {_shown(text)} cannot be used: "
            f"give {self._allowed('org/name@revision:config:split')}"
            f"a {', '.join(sorted(_TEXTS))} file below {_roots(self.settings.data_roots)}; for a "
            "model that sees, a folder of images or a .safetensors file of samples there."
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


def _check_links(what: str, paths: Iterable[Path], roots: Sequence[Path]) -> None:
    """Refuse a folder in which a link leads out of every root.

    Args:
        what: it is a folder of.
        paths: of its files, or of the links among them.
        roots: that they may lead to.

    Raises:
        InvalidArgument: names the link.
    """
    allowed = [root.resolve() for root in roots]
    for path in paths:
        if not path.is_symlink():
            continue
        end = _resolved(path)
        if end is None or not any(end.is_relative_to(root) for root in allowed):
            raise InvalidArgument(
                f"{path.name} in the {what} folder is a link that leads out of it: copy the file."
            )


def _roots(roots: Sequence[Path]) -> str:
    if roots:
        return "a folder that this installation reads from"
    return "a folder of BITFRONT_MODEL_ROOTS or BITFRONT_DATA_ROOTS, which are not set"


def _shown(text: str) -> str:
    return ascii(text[:80]) + ("..." if len(text) > 80 else "")
