"""Images of a folder as pixels, with the labels that subfolders or a file state."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from bitfront.errors import InvalidArgument, InvalidModel, InvalidText, first_line
from bitfront.pictures import image_files, labels_of
from bitfront.seeing import is_timm

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What Pillow may take a file for, whatever its name says: others start programs (PostScript)."""
_MAX_PIXELS = 89_478_485
"""Of one image; decoded it takes 268 MB, from a file that may have a few thousand bytes."""
_MAX_EDGE = 8192
"""Of what an image processor may scale images to: 805 MB an image as float32."""


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
    paths = image_files(root, n_images)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))
    chosen = [paths[i] for i in order[:n_images]]
    labels = labels_of(root, paths, chosen, classes)
    pixels = [_pixels(path, pixels_of) for path in chosen]
    for path, each in zip(chosen, pixels, strict=True):
        if each.shape != pixels[0].shape:
            raise InvalidText(
                f"{path} comes to {tuple(each.shape[1:])} pixels, {chosen[0]} to "
                f"{tuple(pixels[0].shape[1:])}: give images of one size, or a preprocessor_config "
                "that crops them."
            )
    return torch.cat(pixels), None if labels is None else torch.tensor(labels)


def image_reader(path: Path, source: str, config: Mapping[str, Any]) -> Any:
    """The image processor of a model folder.

    Args:
        path: the folder. Models of timm have theirs in `config.json`.
        source: what the user gave, for messages.
        config: its config.json.

    Raises:
        InvalidArgument: Pillow is missing.
        InvalidModel: none that can be loaded, or it makes images too large.
    """
    of_timm = is_timm(config) and "pretrained_cfg" in config
    if not of_timm and not (path / "preprocessor_config.json").exists():
        raise InvalidModel(
            f"{source} has no preprocessor_config.json, which says how images become pixels: "
            "put it beside the weights."
        )
    if find_spec("PIL") is None:
        raise InvalidArgument(
            "Images need Pillow, which is not installed: pip install 'bitfront[vision]'."
        )
    try:
        reader = transformers.AutoImageProcessor.from_pretrained(
            path, backend="pil", trust_remote_code=False
        )
    except Exception as error:
        raise InvalidModel(
            f"Cannot load the image processor of {source}: {first_line(error)}."
        ) from error
    check_sizes(reader, source)
    return reader


def check_sizes(reader: Any, source: str) -> None:
    """Refuse an image processor that makes images too large for memory.

    Args:
        reader: of transformers.
        source: of the model, for the message.

    Raises:
        InvalidModel: says how large.
    """
    sizes = (dict(getattr(reader, name, None) or {}) for name in ("size", "crop_size", "pad_size"))
    edges = [x for size in sizes for x in size.values() if isinstance(x, int)]
    if of_timm := getattr(reader, "data_config", None):  # cut from a larger image
        edges += [int(x / max(of_timm["crop_pct"], 1e-9)) for x in of_timm["input_size"][1:]]
    longest = max(edges, default=0)
    if longest > _MAX_EDGE:
        raise InvalidModel(
            f"{source} scales images to {longest:,} pixels an edge, of at most {_MAX_EDGE:,}: "
            f"correct its {'config.json' if of_timm else 'preprocessor_config.json'}."
        )


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
    from PIL import Image, UnidentifiedImageError  # only images need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            opened = Image.open(path, formats=_FORMATS)
        with opened as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(
                    f"{image.width:,} x {image.height:,} pixels, of at most {_MAX_PIXELS:,}"
                )
            if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip to 8
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            made = pixels_of(images=[image.convert("RGB")], return_tensors="pt")
    except Exception as error:  # decoders raise errors of many kinds
        reason = first_line(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(_FORMATS)}"
        raise InvalidText(f"{path} cannot be read as an image ({reason}): remove it.") from error
    pixels: torch.Tensor = made["pixel_values"].float()
    return pixels
