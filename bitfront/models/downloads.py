"""Downloading a model of the hub; torch is not needed for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bitfront.errors import BitfrontError, InvalidModel, StorageError, first_line

_GB = 1e9
HUB_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""Files of a hub model that are downloaded: none of them can run code."""


def downloaded(source: str, revision: str | None, max_gb: float = 0.0) -> Path:
    """The folder of a hub model in the local cache; its name is the commit.

    Args:
        source: id of the model.
        revision: branch, tag or commit.
        max_gb: largest sum of its files, in units of 10^9 bytes; 0 for no bound.

    Raises:
        InvalidModel: the hub and the cache have no such model or revision, or no safetensors of it,
            or it is too large.
        StorageError: what is not in the cache is more than its disk has free.
    """
    from huggingface_hub import snapshot_download  # only hub models need it

    download = partial(
        snapshot_download,
        source,
        revision=revision,
        allow_patterns=HUB_PATTERNS,
        ignore_patterns=["*/*"],
    )
    try:
        with _without_bars():
            _check_size(_at(source, revision), download, max_gb)
            folder = Path(download())
    except BitfrontError:
        raise
    except Exception as error:
        raise InvalidModel(
            f"Cannot get {_at(source, revision)!r} from the hub ({first_line(error)}): "
            "check the name and the network, or give a local folder."
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise InvalidModel(
            f"{source} has no safetensors on the hub, and pickled weights are not loaded, for they "
            "can run code: take a repository or revision with safetensors, or download its GGUF "
            "file and give that."
        )
    return folder


def _check_size(name: str, download: Callable[..., Any], max_gb: float) -> None:
    """Refuse what is too large before any of it is downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import DryRunError

    try:
        files = download(dry_run=True)
    except DryRunError:  # no hub: the cache may have it
        return
    size = sum(file.file_size or 0 for file in files)
    if max_gb and size > max_gb * _GB:
        raise InvalidModel(
            f"{name} has {size / _GB:.3g} GB on the hub, of at most {max_gb:g}: "
            "take a smaller model or raise BITFRONT_MAX_MODEL_GB."
        )
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    cache = Path(HF_HUB_CACHE).absolute()
    place = next(path for path in (cache, *cache.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise StorageError(
            f"Cannot download {name}: {missing / _GB:.3g} GB are missing, {cache} has "
            f"{free / _GB:.3g} GB free. Free some space, or set HF_HOME to another disk."
        )


def _at(source: str, revision: str | None) -> str:
    return f"{source}@{revision}" if revision else source


@contextmanager
def _without_bars() -> Iterator[None]:
    """Progress bars of the hub's library off inside the block."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
