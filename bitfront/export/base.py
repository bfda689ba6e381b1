"""Exporter: a chosen allocation as a checkpoint on disk."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, StorageError, first_line
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.experts import restacked
from bitfront.models.layers import fixed_tensors, stored_dtype
from bitfront.models.load import LoadedModel, quiet
from bitfront.models.sentences import save_pooling
from bitfront.models.tasks import SentenceEmbedding, task_of
from bitfront.notes import MARK, added
from bitfront.space import SearchSpace

_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""What errors of a full disk say, those of libraries too, which have no number."""


class Exporter(ABC):
    """Writes checkpoints. Subclasses are frozen dataclasses."""

    carries_caches: ClassVar[bool] = False
    """Whether it writes the formats of a KV cache."""

    carries_inputs: ClassVar[bool] = False
    """Whether it says what the inputs of layers are rounded to."""

    carries_offsets: ClassVar[bool] = False
    """Whether it writes what quantized differences from a base come to."""

    def check_base(self, base: str | None) -> None:
        """Refuse a base whose differences were quantized where weights are expected.

        Raises:
            InvalidArgument: says what to take.
        """
        if base is not None and not self.carries_offsets:
            raise InvalidArgument(
                f"{type(self).__name__} stores quantized weights, and this point has quantized "
                f"differences from {base}: take packed for the offset alone, or fake_quant for "
                "plain weights."
            )

    def writable(self, allocation: Allocation, space: SearchSpace) -> Allocation:
        """What of an allocation is to be written: caches only where the exporter knows of them.

        Raises:
            InvalidArgument: some are quantized, and it does not; or inputs of layers are rounded.
        """
        rounded = {f for f in allocation.formats.values() if named(f).input_format is not None}
        if rounded and not self.carries_inputs:
            raise InvalidArgument(
                f"This point rounds inputs of layers ({', '.join(sorted(rounded))}), which only "
                "packed, compressed_tensors and llm_compressor write: take one of these exporters."
            )
        if self.carries_caches or space.kv_cache is None:
            return allocation
        of_weights = {x: f for x, f in allocation.formats.items() if not space.is_cache(x)}
        caches = sorted({allocation.formats[x] for x in allocation.formats if space.is_cache(x)})
        if caches != ["bf16"]:
            raise InvalidArgument(
                f"This point has a KV cache in {', '.join(caches)}, which only the exporter packed "
                "writes: take it, or a point whose caches are bf16."
            )
        return Allocation(of_weights)

    @abstractmethod
    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write a folder for one engine or tool; all of it or nothing.

        Args:
            model: the unquantized model.
            allocation: the format of every quantized layer, pinned ones included.
            bank: the quantized weights.
            directory: a new or empty folder, or an earlier checkpoint, which is replaced.

        Raises:
            InvalidArgument: the engine has no such format; names the layer.
            InvalidModel: the engine has no such layer or architecture.
            StorageError: the folder could not be written; nothing half-written is left.
        """


@dataclass(frozen=True)
class HuggingFaceFolder(Exporter):
    """Exporters of folders that `from_pretrained` loads.

    Args:
        max_shard_size: largest file of weights, such as `"5GB"` (units of 10^9 bytes); a larger
            checkpoint is several files and `model.safetensors.index.json`.
    """

    max_shard_size: str = "5GB"

    def __post_init__(self) -> None:
        try:
            split_torch_state_dict_into_shards({}, max_shard_size=self.max_shard_size)
            is_size = float(self.max_shard_size.strip()[:-2]) > 0  # two letters of a unit
        except (ValueError, OverflowError):
            is_size = False
        if not is_size:
            raise InvalidArgument(
                f"max_shard_size is {self.max_shard_size!r}: give a size such as 5GB or 500MB."
            )

    def write_folder(
        self,
        directory: Path,
        model: LoadedModel,
        allocation: Allocation,
        tensors: Mapping[str, torch.Tensor],
        quantization_config: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
        as_published: bool = False,
        base: nn.Module | None = None,
    ) -> None:
        """Write given tensors, all others in bfloat16, configuration and tokenizer.

        Args:
            directory: see `Exporter.write`.
            model: gives the tensors that no format touches, configuration and tokenizer.
            allocation: kept in `bitfront.json`.
            tensors: weights of the allocated layers, by name in the checkpoint.
            quantization_config: goes into config.json.
            notes: see `writing`.
            as_published: with the names that checkpoints of this family have, as `save_pretrained`
                writes them, where transformers has others in memory (stacked experts).
            base: leave out tensors that are as in this model.

        Raises:
            StorageError: disk full, no permission, a folder with other files, or the model's own.
        """
        fixed = fixed_tensors(model.module, allocation.formats, base)
        plain = {name: t.detach().to("cpu", stored_dtype(t)) for name, t in fixed.items()}
        stored = plain | dict(tensors)
        if as_published:
            stored = restacked(model.module, stored)
            # Experts are slices of their stack: without a copy they would count as one tensor.
            published = revert_weight_conversion(model.module, stored)
            stored = {
                name: stored[name] if name in stored else t.clone() for name, t in published.items()
            }
        with writing(directory, model, allocation, notes) as folder:
            _save_tensors(folder, stored, self.max_shard_size)
            _save_configuration(folder, model, quantization_config)
            _save_tokenizer(folder, model)
            if isinstance(task := task_of(model.module), SentenceEmbedding):
                save_pooling(folder, task)


@contextmanager
def writing(
    directory: Path,
    model: LoadedModel,
    allocation: Allocation,
    notes: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """A folder to fill; with `bitfront.json` it takes the place of `directory` at the end.

    Args:
        directory: see `Exporter.write`.
        model: what is exported.
        allocation: kept in `bitfront.json`.
        notes: what else is to stand there.

    Raises:
        StorageError: disk full, no permission, a folder with other files, or the model's own.
    """
    check_target(directory, model.source)
    made = {"model_digest": model.digest, "formats": dict(allocation.formats), **(notes or {})}
    with replacing_folder(directory) as folder:
        yield folder
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        (folder / MARK).write_text(json.dumps(made | {"files": files}, indent=2))


def _save_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], max_size: str) -> None:
    stored = {name: t.contiguous() for name, t in tensors.items()}
    split = split_torch_state_dict_into_shards(stored, max_shard_size=max_size)
    for file, names in split.filename_to_tensors.items():
        path = folder / file
        path.touch()
        mode = path.stat().st_mode
        save_file({name: stored[name] for name in names}, path, {"format": "pt"})
        path.chmod(mode)  # save_file's own is for the owner alone
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _save_configuration(
    folder: Path, model: LoadedModel, quantization_config: Mapping[str, Any] | None
) -> None:
    module: Any = model.module
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    config.dtype = torch.bfloat16
    head = module.get_output_embeddings()
    if head is not None and head.weight is not module.get_input_embeddings().weight:
        config.tie_word_embeddings = False  # whatever it said: the file has both
    if quantization_config is not None:
        config.quantization_config = dict(quantization_config)
    config.save_pretrained(folder)
    if getattr(module, "generation_config", None) is not None:
        # Not save_pretrained: it refuses odd settings that many published models have.
        module.generation_config.to_json_file(folder / "generation_config.json")


def _save_tokenizer(folder: Path, model: LoadedModel) -> None:
    try:
        with quiet():  # timm's image processor tells that config.json has all of it
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
        for path in filter(Path.is_file, temporary.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _swap(temporary, directory, aside)
    except StorageError:  # of what writes a folder in this one: it has said why
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        is_full = any(words in str(error) for words in _FULL)
        advice = "Free some space or give another place" if is_full else "Give another place"
        raise StorageError(f"Cannot write {directory}: {reason}. {advice}.") from error
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


def _current() -> tuple[Path, ...]:
    """The current folder and those that hold it; nothing where it was deleted."""
    try:
        here = Path.cwd()
    except OSError:
        return ()
    return here, *here.parents


def check_target(directory: Path, source: str) -> None:
    """Refuse a folder that a checkpoint must not replace.

    Args:
        directory: where the checkpoint is to go.
        source: the model; an exported checkpoint may be that of a new study.

    Raises:
        StorageError: a file; a mount point, which nothing can take the place of; the folder of the
            model itself, the current one, one of something else, or of a checkpoint with files
            that were not written with it.
    """
    model, target = Path(source).expanduser().resolve(), Path(directory).resolve()
    if model.exists() and target in (model, *model.parents):
        raise StorageError(f"{directory} is the folder of the model itself: give another folder.")
    if target.is_file():
        raise StorageError(f"{directory} is a file: give the name of a folder.")
    if not target.is_dir():
        return
    if target in _current():
        raise StorageError(
            f"{directory} is or holds the current folder, and would be replaced: give another "
            "folder."
        )
    if os.path.ismount(target):
        raise StorageError(
            f"{directory} is a mount point, which cannot be replaced: give a folder inside it."
        )
    if any(target.iterdir()) and not (target / MARK).exists():
        raise StorageError(f"{directory} has files of something else: give another folder.")
    if others := added(target):
        raise StorageError(
            f"{directory} has {others[0]}, not written with the checkpoint there: give another "
            "folder, or move it elsewhere."
        )
