"""Models of timm, through transformers' `timm_wrapper`: what they need, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.seeing import is_timm

_ARCHITECTURE = re.compile(r"\w+(\.\w+)?")
"""A name of timm, with the tag of its weights; others name a folder or a hub."""
_PLACES = re.compile(r"checkpoint|pretrained|cache_dir|features_only")
"""Arguments of timm that load files, pickled ones too, or leave the classes out."""
_ELSEWHERE = ("use_timm_backbone", "use_pretrained_backbone")
"""Entries that, when true, make transformers load a part of the model from a hub."""
_MOST_CLASSES = 1_000_000


def check_timm(config: Mapping[str, Any], source: str) -> None:
    """Refuse models with parts of timm that cannot be built here, or would read files of others.

    Args:
        config: its config.json, of timm or not: any part of a model may be.
        source: what the user gave, for the message.

    Raises:
        InvalidArgument: timm or torchvision is not installed.
        InvalidModel: it names a place where timm would look for files, or too many classes.
    """
    for part in _parts(config):
        of_timm, named = is_timm(part), part.get("architecture")
        if part.get("model_type") == "timm_backbone" or any(part.get(x) for x in _ELSEWHERE):
            raise InvalidModel(
                f"config.json of {source} takes a backbone from elsewhere: bitfront reads weights "
                "from the model's own folder alone."
            )
        if of_timm or "model_args" in part or ":" in str(named):
            _check_names(named, part.get("model_args") or {}, source)
        if of_timm:
            _check_classes(part.get("num_classes"), source)
            _check_installed(source)


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A configuration and all that are nested in it, however deep."""
    found = [config]
    for part in found:  # it grows on the way
        found += [value for value in part.values() if isinstance(value, dict)]
    return found


def _check_names(named: object, arguments: object, source: str) -> None:
    known = isinstance(named, str) and _ARCHITECTURE.fullmatch(named)
    if not known or not isinstance(arguments, dict):
        raise InvalidModel(
            f"config.json of {source} has the architecture {named!r} with model_args "
            f"{arguments!r}: give a name of timm, and an object or nothing."
        )
    if refused := [name for name in arguments if _PLACES.search(name)]:
        raise InvalidModel(
            f"model_args in config.json of {source} have {refused[0]!r}, which is not for a model "
            "whose weights are in its folder: remove it."
        )


def _check_classes(n: object, source: str) -> None:
    if n is not None and not (isinstance(n, int) and 0 < n <= _MOST_CLASSES):
        raise InvalidModel(
            f"num_classes in config.json of {source} is {n!r}: give 1 to {_MOST_CLASSES:,}."
        )


def _check_installed(source: str) -> None:
    if missing := [name for name in ("timm", "torchvision", "PIL") if find_spec(name) is None]:
        raise InvalidArgument(
            f"{source} is a model of timm, which needs {', '.join(missing)}, not installed: "
            "pip install 'bitfront[timm]'."
        )
