"""Exporter: a chosen allocation as a checkpoint on disk."""

from __future__ import annotations

import copy
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bitfront.allocation import Allocation
from bitfront.errors import StorageError
from bitfront.models.bank import WeightBank
from bitfront.models.layers import fixed_tensors, stored_dtype
from bitfront.models.load import LoadedModel

MARK = "bitfront.json"
"""File with the allocation; a folder that has it may be written again."""


class Exporter(ABC):
    """Writes checkpoints. Subclasses are frozen dataclasses."""

    @abstractmethod
    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write a folder that `from_pretrained` loads; all of it or nothing.

        Args:
            model: the unquantized model.
            allocation: the format of every quantized layer, pinned ones included.
            bank: the quantized weights.
            directory: a new or empty folder, or an earlier checkpoint, which is replaced.

        Raises:
            StorageError: the folder could not be written; nothing half-written is left.
        """


def write_checkpoint(
    directory: Path,
    model: LoadedModel,
    allocation: Allocation,
    tensors: Mapping[str, torch.Tensor],
    quantization_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a Hugging Face folder: given tensors, all others in bfloat16, configuration, tokenizer.

    Args:
        directory: see `Exporter.write`.
        model: gives the tensors that no format touches, configuration and tokenizer.
        allocation: kept in `bitfront.json`.
        tensors: weights of the allocated layers, by name in the checkpoint.
        quantization_config: goes into config.json.

    Raises:
        StorageError: disk full, no permission, a folder with other files, or the model's own.
    """
    check_target(directory, model.source)
    fixed = fixed_tensors(model.module, allocation.formats)
    plain = {name: t.detach().to("cpu", stored_dtype(t)) for name, t in fixed.items()}
    with replacing_folder(directory) as folder:
        stored = {name: t.contiguous() for name, t in (plain | dict(tensors)).items()}
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        _save_configuration(folder, model, quantization_config)
        _save_tokenizer(folder, model)
        (folder / MARK).write_text(
            json.dumps(
                {"model_digest": model.digest, "formats": dict(allocation.formats)}, indent=2
            )
        )


def _save_configuration(
    folder: Path, model: LoadedModel, quantization_config: Mapping[str, Any] | None
) -> None:
    module: Any = model.module
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    config.dtype = torch.bfloat16
    if quantization_config is not None:
        config.quantization_config = dict(quantization_config)
    config.save_pretrained(folder)
    if getattr(module, "generation_config", None) is not None:
        # Not save_pretrained: it refuses odd settings that many published models have.
        module.generation_config.to_json_file(folder / "generation_config.json")


def _save_tokenizer(folder: Path, model: LoadedModel) -> None:
    try:
        model.tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error  # tokenizers has no class for a full disk


@contextmanager
def replacing_folder(directory: Path) -> Iterator[Path]:
    """A temporary neighbour of `directory` that takes its place when the block ends well.

    What was there is renamed aside first and deleted last: a kill loses neither.

    Raises:
        StorageError: it could not be written. `check_target` says what may be replaced.
    """
    directory = Path(directory).resolve()
    temporary, aside = (
        directory.with_name(f".{directory.name}.{os.getpid()}.{end}") for end in ("tmp", "old")
    )
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _swap(temporary, directory, aside)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise StorageError(
            f"Cannot write {directory}: {reason}. Free some space or give another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, directory: Path, aside: Path) -> None:
    if not directory.exists():
        temporary.replace(directory)
        return
    directory.replace(aside)
    try:
        temporary.replace(directory)
    except BaseException:
        aside.replace(directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def check_target(directory: Path, source: str) -> None:
    """Refuse a folder that a checkpoint must not replace.

    Args:
        directory: where the checkpoint is to go.
        source: the model; an exported checkpoint may be that of a new study.

    Raises:
        StorageError: a file, a folder of something else, or of the model itself.
    """
    model, target = Path(source).expanduser().resolve(), Path(directory).resolve()
    if model.exists() and target in (model, *model.parents):
        raise StorageError(f"{directory} is the folder of the model itself: give another folder.")
    if target.is_file():
        raise StorageError(f"{directory} is a file: give the name of a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).exists():
        raise StorageError(f"{directory} has files of something else: give another folder.")
