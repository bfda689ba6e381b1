"""Bases: what a model was fine-tuned from, and checkpoints that hold only what was added to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig
from transformers.initialization import no_init_weights

from bitfront import formats
from bitfront.errors import InvalidModel, MismatchedArtifact, first_line
from bitfront.models import weight_files
from bitfront.models.experts import expert_modules, restacked, separate_experts
from bitfront.models.layers import fixed_tensors, get_weight, set_weight, stored_dtype
from bitfront.models.load import (
    AUTO_CLASSES,
    LoadedModel,
    give_task,
    load_model,
    load_tokenizer,
    local_path,
    placed,
    quiet,
)
from bitfront.models.tasks import ImageClassification, device_of, task_of
from bitfront.notes import MARK, base_of


def is_offset(folder: Path) -> bool:
    """Whether a folder holds packed offsets, and no whole model."""
    return base_of(folder) is not None


def load_base(source: str, dtype: str, device: str, above: tuple[Path, ...] = ()) -> LoadedModel:
    """What a model was fine-tuned from: a model as `load_model` takes it, or a folder of offsets.

    Args:
        source: where it is; a hub id may end in `@revision`.
        dtype: as of `load_model`.
        device: as of `load_model`.
        above: folders of offsets that it is a base of.

    Raises:
        BitfrontError: as `load_model` and `load_offset`.
    """
    path = local_path(source)
    if path is not None and is_offset(path):
        return load_offset(path, dtype, device, None, above)
    name, _, revision = (source, "", "") if path is not None else source.partition("@")
    return replace(load_model(name, revision or None, dtype, device), source=source)


def load_offset(
    folder: Path | str,
    dtype: str = "auto",
    device: str = "auto",
    base: str | None = None,
    above: tuple[Path, ...] = (),
) -> LoadedModel:
    """The fine-tuned model of a folder of packed offsets: its base with the offsets added.

        model = load_offset("out/checkpoint").module

    The configuration is that of the folder: a fine-tune may change what no tensor shows.

    Args:
        folder: what the exporter `packed` wrote for a study with a base.
        dtype: as of `load_model`.
        device: as of `load_model`.
        base: where the base is now; `None` for where it was.
        above: folders of offsets that this one is a base of.

    Raises:
        InvalidModel: the folder holds no offsets, the base cannot be loaded, or it is the folder
            itself.
        MismatchedArtifact: the base is not the one that the offsets were made of.
    """
    folder = Path(folder)
    note = base_of(folder)
    if note is None:
        raise InvalidModel(
            f"{folder} holds no offsets to a base: give what the exporter packed wrote for a study "
            "with a base."
        )
    if (place := folder.resolve()) in above:
        raise InvalidModel(f"{folder} is a base of its own base: export it again.")
    # Added in float32 and rounded once: offsets can be smaller than a step of bfloat16.
    loaded = load_base(base or note["source"], "float32", device, (*above, place))
    if loaded.digest != note["digest"]:
        raise MismatchedArtifact(
            f"{folder} holds offsets to a base with digest {note['digest'][:16]} "
            f"({note['source']}), {base or note['source']} has {loaded.digest[:16]}: give the base "
            "that the model was fine-tuned from, unchanged."
        )
    weight_files.check(folder)
    try:
        module = _filled(folder, loaded.module)
        _add(folder, module)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise InvalidModel(
            f"Cannot add the offsets of {folder} ({first_line(error)}): export them again."
        ) from error
    sees = isinstance(task_of(module), ImageClassification)
    tokenizer = loaded.tokenizer if sees else load_tokenizer(folder, str(folder))
    module = _rounded(module, placed(device, dtype)[1])
    return LoadedModel(module, tokenizer, weight_files.digest(folder), str(folder))


def with_base(model: LoadedModel, source: str, dtype: str, device: str) -> LoadedModel:
    """A fine-tuned model that knows its base.

    Args:
        model: the fine-tuned model.
        source: of the base, as of `load_base`.
        dtype: as of `load_model`.
        device: as of `load_model`.

    Raises:
        InvalidModel: the base cannot be loaded, or has other tensors.
    """
    base = load_base(source, dtype, device)
    check_same_tensors(model, base)
    return replace(model, base=base)


def check_same_tensors(model: LoadedModel, base: LoadedModel) -> None:
    """Refuse models that cannot be subtracted.

    Raises:
        InvalidModel: names a tensor that only one has, or of another shape.
    """
    ours, theirs = (
        {name: tuple(t.shape) for name, t in x.module.state_dict().items()} for x in (model, base)
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            has, lacks = (_shown(x.get(name)) for x in (ours, theirs))
            raise InvalidModel(
                f"{model.source} and {base.source} are not of one base: {name} is {has} in the "
                f"first, {lacks} in the other. Give models of one architecture and vocabulary."
            )


def stored_bytes(folder: Path) -> int:
    """Bytes of all tensors of a model folder."""
    return sum(t.numel() * t.itemsize for t in weight_files.read_tensors(folder).values())


def base_bytes(base: LoadedModel) -> int:
    """Bytes of a base as it is stored: at 16 bits, beside a shared offset if it has one."""
    path = local_path(base.source)
    if path is not None and (note := base_of(path)) is not None:
        return int(note["bytes"]) + stored_bytes(path)
    tensors = fixed_tensors(base.module, ()).values()
    return sum(t.numel() * stored_dtype(t).itemsize for t in tensors)


def base_note(base: LoadedModel) -> dict[str, Any]:
    """What a folder of offsets says of its base."""
    return {
        "source": whole_place(base.source),
        "digest": base.digest,
        "bytes": base_bytes(base),
    }


def whole_place(source: str) -> str:
    """A local source as a whole path, a hub id as it is.

    Raises:
        InvalidModel: neither.
    """
    path = local_path(source)
    return str(path.resolve()) if path is not None else source


def _filled(folder: Path, base: Any) -> nn.Module:
    """The model of a folder's own configuration with the tensors of its base."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    del config.quantization_config
    kind = task_of(base).name
    with quiet(), no_init_weights():
        module: Any = AUTO_CLASSES[kind].from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
        module.tie_weights()
    give_task(module, kind, folder)
    held = restacked(base, base.state_dict())
    if kind == "sentences" and not any(name.startswith("pooler.") for name in held):
        module.pooler = None
    for name in base.all_tied_weights_keys.keys() - module.all_tied_weights_keys.keys():
        held[name] = held[name].clone()  # a head that is tied in the base alone
    # A head that is tied only here follows the base's embedding.
    held |= {name: held[source] for name, source in module.all_tied_weights_keys.items()}
    module.load_state_dict(held, assign=True)  # the base's own storage: not held twice
    module.tie_weights()
    if (folder / "generation_config.json").is_file():
        module.generation_config = GenerationConfig.from_pretrained(folder)
    filled: nn.Module = module.to(device_of(base)).eval()
    return filled


def _rounded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Every tensor that checkpoints hold in a dtype; others, such as rotary frequencies, stay."""
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return module


def _add(folder: Path, module: nn.Module) -> None:
    """Add offsets to the weights of the base, and put other tensors in place of its own."""
    made: dict[str, str] = json.loads((folder / MARK).read_text(encoding="utf-8"))["formats"]
    tensors = weight_files.read_tensors(folder)
    if not expert_modules(module) and any(_is_missing(module, name) for name in made):
        separate_experts(module)
    for name, format in made.items():
        weight = get_weight(module, name)
        shape = (int(weight.shape[0]), int(weight.shape[1]))
        stored = {key: tensors.pop(f"{name}.{key}") for key in formats.named(format).stored(shape)}
        offset = formats.named(format).decode_stored(stored, shape)
        set_weight(module, name, offset.to(weight.device) + weight.float())
    held = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors.items():
            held[name].copy_(tensor)


def _is_missing(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return True
    return False


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape))
