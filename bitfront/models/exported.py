"""Loading what exporters wrote, through transformers."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from torch import nn

from bitfront.errors import InvalidModel
from bitfront.models.load import first_line, quiet
from bitfront.models.offset import is_offset, load_offset

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_GGUF = "model.gguf"


def holds_weights(folder: Path) -> bool:
    """Whether a folder has a model, not only a recipe for one."""
    return any((folder / name).exists() for name in (*_WEIGHTS, _GGUF))


def load_exported(folder: Path, dtype: torch.dtype, device: str) -> nn.Module:
    """The model of a checkpoint, in evaluation mode.

    Args:
        folder: what an exporter wrote.
        dtype: of what is no packed code.
        device: where it runs.

    Raises:
        InvalidModel: it cannot be loaded.
        MismatchedArtifact: it holds offsets to another base than is there.
    """
    if is_offset(folder):
        return load_offset(folder, str(dtype).removeprefix("torch."), device).module
    file = {"gguf_file": _GGUF} if (folder / _GGUF).exists() else {}
    try:
        with quiet():
            module: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **file
            )
            return module.to(device).eval()
    except Exception as error:
        raise InvalidModel(f"Cannot load {folder}: {first_line(error)}.") from error
