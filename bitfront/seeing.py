"""Models that see: the task that a configuration speaks of, and what such models are fed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitfront.errors import InvalidModel, InvalidText, first_line

IMAGES, IMAGE_TEXT = "images", "image-text"
SEEING = (IMAGES, IMAGE_TEXT)
"""Tasks of models that see."""
_STAGES = ("depths", "hidden_sizes", "embed_dims", "neck_hidden_sizes")
"""What models of several stages have one number a stage of; later ones see fewer positions."""
FED = {IMAGES: "a folder of images", IMAGE_TEXT: "a .safetensors file of images with text"}
"""What their samples come from; those of other models come from a text."""
SAMPLES = ".safetensors"
TIMM = "timm_wrapper"
"""`model_type` of models of timm in transformers."""
_CLASSIFIES, _TELLS = "ForImageClassification", "ForConditionalGeneration"
_MAX_BYTES = 10_000_000
"""Of a configuration; one with 21,841 classes has 1,400,000."""


def task_that_sees(config: Mapping[str, Any]) -> str | None:
    """The task of a model that sees, as its config.json speaks of it; `None` of other models."""
    names = architectures(config)
    if any(_CLASSIFIES in name for name in names) or is_timm(config):
        return IMAGES
    if "vision_config" in config and any(name.endswith(_TELLS) for name in names):
        return IMAGE_TEXT
    return None


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of a model of timm; what timm itself writes has no `model_type`."""
    kind = config.get("model_type", TIMM if "pretrained_cfg" in config else None)
    return bool(kind == TIMM)


def architectures(config: Mapping[str, Any]) -> list[str]:
    """Names of the classes that a config.json is of."""
    named = config.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def config_of(folder: Path, source: str, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """The config.json of a model folder.

    Args:
        folder: of the model.
        source: what the user gave, for messages.
        max_bytes: no longer one is read.

    Raises:
        InvalidModel: there is none, or none that can be read.
    """
    try:
        with (folder / "config.json").open("rb") as file:
            text = file.read(max_bytes + 1)
        if len(text) > max_bytes:
            raise ValueError(f"it has more than {max_bytes:,} bytes")
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except FileNotFoundError:
        raise InvalidModel(f"{source} has no config.json: give a Hugging Face folder.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"Cannot read config.json of {source}: {first_line(error)}.") from error
    return config


def read_config(folder: Path, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """The config.json of a model folder; empty where there is none that can be read."""
    try:
        return config_of(folder, str(folder), max_bytes)
    except InvalidModel:
        return {}


def classes_of(config: Mapping[str, Any]) -> dict[int, str]:
    """Name of each class by number, as a config.json has them; empty where it has none.

    >>> classes_of({"id2label": {"0": "cat", "1": "dog"}})
    {0: 'cat', 1: 'dog'}
    """
    if is_timm(config) and isinstance(names := config.get("label_names"), list):
        return {key: str(name) for key, name in enumerate(names)}
    named = config.get("id2label")
    if not isinstance(named, dict) or not all(str(key).isdecimal() for key in named):
        return {}
    return {int(key): str(name) for key, name in named.items()}


def n_classes(config: Mapping[str, Any]) -> int:
    """How many classes a config.json speaks of; 0 where it says nothing."""
    stated = config.get("num_classes") if is_timm(config) else None
    return stated if isinstance(stated, int) else len(classes_of(config))


def n_patches(config: Mapping[str, Any]) -> int | None:
    """Patches that every block of a model reads; `None` where stages differ or nothing says it."""
    if any(isinstance(value, list) for key, value in config.items() if key in _STAGES):
        return None
    whole, patch = config.get("image_size"), config.get("patch_size")
    if not (isinstance(whole, int) and isinstance(patch, int) and 0 < patch <= whole < 2**16):
        return None
    return (whole // patch) ** 2


def kind_of(source: str) -> str | None:
    """The task whose samples a source holds by its looks; `None` for a text.

    Args:
        source: a whole path, or a name of the hub.
    """
    path = Path(source)
    if not path.is_absolute():
        return None
    if path.is_dir():
        return IMAGES
    return IMAGE_TEXT if path.suffix == SAMPLES else None


def check_fed(task: str, model: str, source: str) -> None:
    """Refuse what models of a task are not fed.

    Args:
        task: of the model.
        model: its name, for the message.
        source: of its samples.

    Raises:
        InvalidText: it is of another kind.
    """
    kind = kind_of(source)
    if kind != (task if task in SEEING else None):
        raise InvalidText(
            f"{source} is {FED.get(kind or '', 'a text')}, and {model} reads "
            f"{FED.get(task, 'a text')}: give that for calibration and evaluation."
        )
