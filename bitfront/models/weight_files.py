"""Weight files of a model folder: safetensors that are whole, and their digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from bitfront.errors import InvalidModel

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CHUNK = 1 << 24
_MAX_HEADER_BYTES = 6_000_000
"""Of a safetensors file; a model of 65,536 layers has five sixths."""
_VOLATILE = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
"""Fields of config.json that change between equal models."""


def check(folder: Path) -> None:
    """Check that the weights are safetensors, complete, and readable.

    Raises:
        InvalidModel: none, only pickles, a shard missing, or a truncated or corrupt file.
    """
    for path in paths(folder):
        try:
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
            if size > _MAX_HEADER_BYTES:
                raise SafetensorError(f"its header has {size:,} bytes")
            with safe_open(path, framework="pt") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            raise InvalidModel(
                f"{path} is truncated or corrupt ({error}): download it again."
            ) from error


def paths(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the model, sorted.

    Raises:
        InvalidModel: there are none, or one that the index names is missing.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return (whole,)
    if index.exists():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            found = tuple(sorted(folder / str(name) for name in names))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidModel(f"Cannot read {index}: {error}. Download it again.") from error
        if outside := [name for name in sorted(names) if Path(name).name != name]:
            raise InvalidModel(
                f"{index} names {outside[0]!r}, which is not a file beside it: download it again."
            )
        if missing := [path for path in found if not path.exists()]:
            raise InvalidModel(f"{missing[0]} is missing: download it again.")
        return found
    if any(True for pattern in _PICKLES for _ in folder.glob(pattern)):
        raise InvalidModel(
            f"{folder} has pickled weights, which can run code: "
            "convert them to safetensors with save_pretrained."
        )
    raise InvalidModel(f"{folder} has no model.safetensors: give a folder with weights.")


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model folder, by name."""
    tensors: dict[str, torch.Tensor] = {}
    for path in paths(folder):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def digest(path: Path) -> str:
    """SHA-256 of a GGUF file, or of a folder's configuration, tensor names and stored weights.

    Paths, the order of shards and the padding of headers do not enter.
    """
    sha = hashlib.sha256()
    if path.is_file():
        _update(sha, path, 0, path.stat().st_size)
        return sha.hexdigest()
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _VOLATILE}
    sha.update(json.dumps(kept, sort_keys=True).encode())
    places = {name: (file, *place) for file in paths(path) for name, place in _places(file).items()}
    for name in sorted(places):
        file, kind, start, end = places[name]
        sha.update(f"{name} {kind}\n".encode())
        _update(sha, file, start, end)
    return sha.hexdigest()


def _places(file: Path) -> dict[str, tuple[str, int, int]]:
    """Dtype with shape, first byte and end of each tensor of a safetensors file."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    return {
        name: (f"{entry['dtype']} {entry['shape']}", *(8 + size + x for x in entry["data_offsets"]))
        for name, entry in header.items()
    }


def _update(sha: hashlib._Hash, file: Path, start: int, end: int) -> None:
    with file.open("rb") as stream:
        stream.seek(start)
        while start < end:
            chunk = stream.read(min(_CHUNK, end - start))
            sha.update(chunk)
            start += len(chunk)
