"""Images of a folder as pixels, with the labels that subfolders or a file state."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitfront.errors import InvalidText

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_LABEL_FILES = ("labels.json", "labels.csv")


def read_images(
    folder: str, pixels_of: Any, classes: Mapping[int, str], n_images: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random images of a folder, float32 `[n_images, channels, height, width]`, and their labels.

    The files are sorted, the seed puts them in an order, and the first are taken.

    Args:
        folder: images; labels are the names of its subfolders, or stand in `labels.json` (an object
            from file to label) or `labels.csv` (lines `file,label`) in it, else there are none. A
            label is a class of the model, its number or its name; where no subfolder is named so
            and there are as many as classes, they are the classes in the order of their names.
        pixels_of: image processor of the model.
        classes: name of each class by number.
        n_images: how many.
        seed: which.

    Returns:
        Pixels, and int64 `[n_images]`, or `None` where no labels are stated.

    Raises:
        InvalidText: no such folder, too few images, one that is none, or a label that is unknown or
            missing.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InvalidText(
            f"No folder of images at {folder}: give one, with a subfolder for each label, or with "
            f"{' or '.join(_LABEL_FILES)}."
        )
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if len(paths) < n_images:
        raise InvalidText(
            f"{folder} has {len(paths):,} images ({', '.join(sorted(_SUFFIXES))}), {n_images:,} "
            "are needed: give more, or fewer sequences (one is one image)."
        )
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))
    chosen = [paths[i] for i in order[:n_images]]
    labels = _labels(root, paths, chosen, classes)
    pixels = [_pixels(path, pixels_of) for path in chosen]
    for path, each in zip(chosen, pixels, strict=True):
        if each.shape != pixels[0].shape:
            raise InvalidText(
                f"{path} comes to {tuple(each.shape[1:])} pixels, {chosen[0]} to "
                f"{tuple(pixels[0].shape[1:])}: give images of one size, or a preprocessor_config "
                "that crops them."
            )
    return torch.cat(pixels), labels


def check_different(
    calibration: torch.Tensor, evaluation: torch.Tensor, sources: Sequence[str]
) -> None:
    """Check that no image is in both sets.

    Args:
        calibration: pixels, `[n_images, channels, height, width]`.
        evaluation: those of the other set.
        sources: where both came from, for the message.

    Raises:
        InvalidText: they share images.
    """
    ours, theirs = ({image.numpy().tobytes() for image in x} for x in (calibration, evaluation))
    if n_shared := len(ours & theirs):
        raise InvalidText(
            f"Calibration images {sources[0]!r} and evaluation images {sources[1]!r} share "
            f"{n_shared:,}: give two folders with different images."
        )


def _pixels(path: Path, pixels_of: Any) -> torch.Tensor:
    """Float32 `[1, channels, height, width]`."""
    from PIL import Image  # only images need it

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip to 8
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            made = pixels_of(images=[image.convert("RGB")], return_tensors="pt")
    except Exception as error:  # decoders raise errors of many kinds
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InvalidText(f"{path} cannot be read as an image ({reason}): remove it.") from error
    pixels: torch.Tensor = made["pixel_values"].float()
    return pixels


def _labels(
    root: Path, paths: Sequence[Path], chosen: Sequence[Path], classes: Mapping[int, str]
) -> torch.Tensor | None:
    for name in _LABEL_FILES:
        if (root / name).is_file():
            stated = dict(_stated(root / name))
            numbers = _numbers({str(x) for x in stated.values()}, classes, str(root / name))
            files = [path.relative_to(root).as_posix() for path in chosen]
            if missing := [file for file in files if file not in stated]:
                raise InvalidText(f"{root / name} has no label for {missing[0]!r}: add it.")
            return torch.tensor([numbers[str(stated[file])] for file in files])
    folders = {path.relative_to(root).parts[0] for path in paths if path.parent != root}
    if not folders:
        return None
    if len(folders) == len(classes) and not any(_number(x, classes) is not None for x in folders):
        numbers = {name: index for index, name in enumerate(sorted(folders))}
    else:
        numbers = _numbers(folders, classes, f"subfolders of {root}")
    if alone := [path for path in chosen if path.parent == root]:
        raise InvalidText(f"{alone[0]} is in no subfolder, which are the labels: move it into one.")
    return torch.tensor([numbers[path.relative_to(root).parts[0]] for path in chosen])


def _stated(path: Path) -> Iterator[tuple[str, Any]]:
    """File and label of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            yield from json.loads(text).items()
            return
        for number, row in enumerate(csv.reader(text.splitlines()), start=1):
            if len(row) != 2:
                raise ValueError(f"line {number} is not `file,label`")
            if [x.strip().lower() for x in row] != ["file", "label"]:
                yield row[0].strip(), row[1].strip()
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidText(f"Cannot read labels from {path}: {error}.") from error


def _numbers(labels: set[str], classes: Mapping[int, str], where: str) -> dict[str, int]:
    found = {label: _number(label, classes) for label in labels}
    if unknown := sorted(label for label, number in found.items() if number is None):
        names = ", ".join(list(classes.values())[:3])
        raise InvalidText(
            f"Label {unknown[0]!r} ({where}) is no class of the model: "
            f"give a number from 0 to {len(classes) - 1}, or a name such as {names}."
        )
    return {label: number for label, number in found.items() if number is not None}


def _number(label: str, classes: Mapping[int, str]) -> int | None:
    if re.fullmatch(r"\d{1,9}", label):
        return int(label) if int(label) in classes else None
    found = [number for number, name in classes.items() if _bare(name) == _bare(label)]
    if len(found) > 1:
        raise InvalidText(
            f"Label {label!r} is the name of classes {', '.join(map(str, found))} of the model: "
            "give the number."
        )
    return found[0] if found else None


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
