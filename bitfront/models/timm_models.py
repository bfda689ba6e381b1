"""Models of timm, through transformers' `timm_wrapper`: what they need, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from bitfront.errors import InvalidArgument, InvalidModel

_ARCHITECTURE = re.compile(r"\w+(\.\w+)?")
"""A name of timm, with the tag of its weights; others name a folder or a hub."""
_PLACES = re.compile(r"checkpoint|pretrained|cache_dir|features_only")
"""Arguments of timm that load files, pickled ones too, or leave the classes out."""


def check_timm(config: Mapping[str, Any], source: str) -> None:
    """Refuse a model of timm that cannot be built here, or would read other files than its own.

    Args:
        config: its config.json.
        source: what the user gave, for the message.

    Raises:
        InvalidArgument: timm or torchvision is not installed.
        InvalidModel: it names a place where timm would look for files.
    """
    arguments = config.get("model_args") or {}
    named, plain = config.get("architecture"), isinstance(arguments, dict)
    if not isinstance(named, str) or not _ARCHITECTURE.fullmatch(named) or not plain:
        raise InvalidModel(
            f"config.json of {source} has the architecture {named!r} with model_args "
            f"{arguments!r}: give a name of timm, and an object or nothing."
        )
    if refused := [name for name in arguments if _PLACES.search(name)]:
        raise InvalidModel(
            f"model_args in config.json of {source} have {refused[0]!r}, which is not for a model "
            "whose weights are in its folder: remove it."
        )
    if missing := [name for name in ("timm", "torchvision", "PIL") if find_spec(name) is None]:
        raise InvalidArgument(
            f"{source} is a model of timm, which needs {', '.join(missing)}, not installed: "
            "pip install 'bitfront[timm]'."
        )
