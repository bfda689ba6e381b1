"""Loading what exporters wrote, through transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bitfront.errors import InvalidModel, first_line
from bitfront.models.load import AUTO_CLASSES, give_task, quiet
from bitfront.models.offset import is_offset, load_offset
from bitfront.models.tasks import task_named
from bitfront.models.timm_models import check_timm
from bitfront.seeing import config_of

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
        InvalidArgument: it needs a package that is not installed.
        InvalidModel: it cannot be loaded.
        MismatchedArtifact: it holds offsets to another base than is there.
    """
    if is_offset(folder):
        return load_offset(folder, str(dtype).removeprefix("torch."), device).module
    # A folder of a GGUF file alone has none: a language model.
    config = config_of(folder, str(folder)) if (folder / "config.json").exists() else {}
    task = task_named(config)
    check_timm(config, str(folder))
    file = {"gguf_file": _GGUF} if (folder / _GGUF).exists() else {}
    try:
        with quiet():
            module: nn.Module = AUTO_CLASSES[task].from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **file
            )
            give_task(module, task, folder)
            return module.to(device).eval()
    except Exception as error:
        raise InvalidModel(f"Cannot load {folder}: {first_line(error)}.") from error
