"""Pictures: image files of a folder, and the labels that subfolders or a file state."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.errors import InvalidText

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
LABEL_FILES = ("labels.json", "labels.csv")
MAX_FILES = 2_000_000
"""Of one folder: as many as of the training images of ImageNet, and some."""
_MAX_LABEL_BYTES = 50_000_000


@dataclass(frozen=True)
class Album:
    """What a folder of images holds, by names alone: no file of it was read.

    Args:
        n_images: how many images `image_files` finds.
        folders: its own subfolders that hold some.
        links: what is a link anywhere in it.
    """

    n_images: int
    folders: frozenset[str]
    links: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path) -> Album:
        """Look through a folder.

        Raises:
            InvalidText: it has more than `MAX_FILES` files.
        """
        n_images = 0
        folders: set[str] = set()
        links: list[Path] = []
        for n_files, (top, entry) in enumerate(_entries(root), start=1):
            if n_files > MAX_FILES:
                raise InvalidText(
                    f"{root} has more than {MAX_FILES:,} files: give a folder with fewer images."
                )
            if entry.is_symlink():
                links.append(Path(entry.path))
            if _is_image(Path(entry.path)):
                n_images += 1
                folders |= {top} - {""}
        return cls(n_images, frozenset(folders), tuple(links))


def _entries(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry with the subfolder of `root` that it is in; what cannot be read has none."""
    waiting = [("", str(root))]
    while waiting:
        top, folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((top or entry.name, entry.path))
                    yield top, entry
        except OSError:
            continue


def _is_image(path: Path) -> bool:
    """Whether a path looks like an image; links that go in a circle are none."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def image_files(root: Path, n_images: int) -> list[Path]:
    """The image files below a folder, sorted; those below a linked folder are none of it.

    Raises:
        InvalidText: no such folder, or fewer than `n_images`.
    """
    if not root.is_dir():
        raise InvalidText(
            f"No folder of images at {root}: give one, with a subfolder for each label, or with "
            f"{' or '.join(LABEL_FILES)}."
        )
    paths = sorted(p for p in root.rglob("*") if _is_image(p))
    check_number(str(root), len(paths), n_images)
    return paths


def check_number(name: str, n_found: int, n_images: int) -> None:
    """Refuse a folder with too few images.

    Raises:
        InvalidText: fewer than `n_images` were found.
    """
    if n_found < n_images:
        raise InvalidText(
            f"{name} has {n_found:,} images ({', '.join(sorted(SUFFIXES))}), {n_images:,} "
            "are needed: give more, or fewer sequences (one is one image)."
        )


def labels_of(
    root: Path, paths: Sequence[Path], chosen: Sequence[Path], classes: Mapping[int, str]
) -> list[int] | None:
    """The class of each chosen image; `None` where nothing states labels.

    Args:
        root: the folder.
        paths: all its images.
        chosen: those that are wanted.
        classes: name of each class by number.

    Raises:
        InvalidText: a label is unknown or missing, or stated twice.
    """
    stated = stated_labels(root)
    if stated is not None:
        numbers = _numbers({str(x) for x in stated.values()}, classes, str(_label_file(root)))
        files = [path.relative_to(root).as_posix() for path in chosen]
        if missing := [file for file in files if file not in stated]:
            raise InvalidText(f"{_label_file(root)} has no label for {missing[0]!r}: add it.")
        return [numbers[str(stated[file])] for file in files]
    folders = {path.relative_to(root).parts[0] for path in paths if path.parent != root}
    if not folders:
        return None
    numbers = folder_numbers(root, folders, classes)
    if alone := [path for path in chosen if path.parent == root]:
        raise InvalidText(f"{alone[0]} is in no subfolder, which are the labels: move it into one.")
    return [numbers[path.relative_to(root).parts[0]] for path in chosen]


def check_labels(root: Path, album: Album, classes: Mapping[int, str]) -> None:
    """Refuse labels that a model lacks, before any image is chosen.

    Raises:
        InvalidText: names one.
    """
    stated = stated_labels(root)
    if stated is not None:
        _numbers({str(x) for x in stated.values()}, classes, str(_label_file(root)))
    elif album.folders:
        folder_numbers(root, album.folders, classes)


def folder_numbers(
    root: Path, folders: Collection[str], classes: Mapping[int, str]
) -> dict[str, int]:
    """The class of each subfolder: by its name, or in order where none is named like one.

    Raises:
        InvalidText: one of them is no class.
    """
    names = by_name(classes)
    named = (number_of(folder, classes, names) is not None for folder in folders)
    if len(folders) == len(classes) and not any(named):
        return {name: index for index, name in enumerate(sorted(folders))}
    return _numbers(set(folders), classes, f"subfolders of {root}")


def _label_file(root: Path) -> Path | None:
    """The file in a folder that states labels.

    Raises:
        InvalidText: there are two.
    """
    found = [root / name for name in LABEL_FILES if (root / name).is_file()]
    if len(found) > 1:
        raise InvalidText(f"{root} has {' and '.join(LABEL_FILES)}: remove one of them.")
    return found[0] if found else None


def stated_labels(root: Path) -> dict[str, Any] | None:
    """Label of each file that a label file of a folder names; `None` where there is no such file.

    Raises:
        InvalidText: it cannot be read, or states two labels of one file.
    """
    path = _label_file(root)
    if path is None:
        return None
    stated: dict[str, Any] = {}
    for file, label in _pairs(path):
        if str(stated.setdefault(file, label)) != str(label):
            raise InvalidText(
                f"{path} has two labels for {file[:200]!r}, {str(stated[file])[:60]!r} and "
                f"{str(label)[:60]!r}: remove one."
            )
    return stated


def _pairs(path: Path) -> Iterator[tuple[str, Any]]:
    """File and label of each line."""
    try:
        if path.stat().st_size > _MAX_LABEL_BYTES:
            raise ValueError(f"it has more than {_MAX_LABEL_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            # As pairs, because of two equal keys an object keeps the last.
            found = json.loads(text, object_pairs_hook=_Pairs)
            if not isinstance(found, _Pairs):
                raise ValueError("it is no object from file to label")
            yield from found
            return
        for number, row in enumerate(csv.reader(text.splitlines()), start=1):
            if len(row) != 2:
                raise ValueError(f"line {number} is not `file,label`")
            if [x.strip().lower() for x in row] != ["file", "label"]:
                yield row[0].strip(), row[1].strip()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise InvalidText(f"Cannot read labels from {path}: {error}.") from error


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object."""


def _numbers(labels: set[str], classes: Mapping[int, str], where: str) -> dict[str, int]:
    names = by_name(classes)
    found = {label: number_of(label, classes, names) for label in labels}
    if unknown := sorted(label for label, number in found.items() if number is None):
        few = ", ".join(list(classes.values())[:3])
        raise InvalidText(
            f"Label {unknown[0][:80]!r} ({where}) is no class of the model: "
            f"give a number from 0 to {len(classes) - 1}, or a name such as {few}."
        )
    return {label: number for label, number in found.items() if number is not None}


def number_of(
    label: str, classes: Mapping[int, str], names: Mapping[str, Sequence[int]]
) -> int | None:
    """The class that a label is, by its number or name; `None` where it is none.

    Args:
        label: of an image.
        classes: name of each class by number.
        names: the classes of each name, as `by_name` has them.

    Raises:
        InvalidText: several classes are named so.
    """
    if re.fullmatch(r"\d{1,9}", label):
        return int(label) if int(label) in classes else None
    found = names.get(_bare(label), ())
    if len(found) > 1:
        raise InvalidText(
            f"Label {label!r} is the name of classes {', '.join(map(str, found))} of the model: "
            "give the number."
        )
    return found[0] if found else None


def by_name(classes: Mapping[int, str]) -> dict[str, list[int]]:
    """Classes by their bare names: labels are many, and so are classes."""
    found: dict[str, list[int]] = {}
    for number, name in classes.items():
        found.setdefault(_bare(name), []).append(number)
    return found


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
