"""bitfront's own checkpoint: packed codes and scales, loaded by transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from bitfront import formats
from bitfront.allocation import Allocation
from bitfront.export.base import HuggingFaceFolder
from bitfront.models.bank import WeightBank
from bitfront.models.layers import find_layers
from bitfront.models.load import LoadedModel
from bitfront.models.offset import base_note
from bitfront.models.packed_checkpoint import BitfrontConfig, packed_tensors
from bitfront.models.quant_linear import packed_like


@dataclass(frozen=True)
class Packed(HuggingFaceFolder):
    """Packed codes and scales in safetensors; loads in transformers after `import bitfront`.

    A layer `x` is stored as `x.codes_4bit`, `x.scale`, ...: the tensors of its format, byte for
    byte what the budget counted. All other tensors are bfloat16. `quantization_config` in
    config.json has the format of every layer, and which layers read one tensor (q, k and v; gate
    and up). On a GPU, kernels multiply by the packed weight, such layers in one launch; on a CPU,
    torch's low-bit operators where there is one, else the weight is decoded on each call
    (`bitfront.models.quant_linear.keep_decoded` trades memory for speed; docs/kernels.md).
    Where a format is a pair, inputs are rounded before they are multiplied, in torch: predictions
    are those that were measured, and no time is gained.
    Formats of a KV cache stand there too, and `PackedCache.of(model)` makes such a cache.
    Of a study with a base these are the offsets to it, and tensors that equal the base's are left
    out: `bitfront.models.offset.load_offset` adds them to the base, which transformers cannot.
    Choose it for the smallest files; `fake_quant` for engines that know plain weights only.
    """

    carries_caches: ClassVar[bool] = True
    carries_inputs: ClassVar[bool] = True
    carries_offsets: ClassVar[bool] = True

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the folder.

        Raises:
            StorageError: it could not be written; nothing half-written is left.
            InvalidModel: an embedding of a kind that cannot hold packed weights.
        """
        tensors: dict[str, torch.Tensor] = {}
        space, chosen = bank.space, allocation.formats
        caches = {x: f for x, f in chosen.items() if space.is_cache(x)}
        of_weights = Allocation({x: f for x, f in chosen.items() if x not in caches})
        for layer, format in of_weights.formats.items():
            module = model.module.get_submodule(layer)
            if format != "bf16" and model.base is None:
                packed_like(module, formats.named(format))  # refuses before anything is written
            stored = bank.tensors(layer, format)
            if model.base is None:
                stored = packed_tensors(module, stored, format)
            tensors |= {f"{layer}.{name}": tensor for name, tensor in stored.items()}
        said = {"cache": space.kv_cache.to_fields(), "formats": caches} if space.kv_cache else None
        notes: dict[str, Any] = {"kv_cache": said} if said else {}
        base = base_note(model.base) if model.base is not None else None
        if base is not None:
            notes["base"] = base
        siblings = find_siblings(model.module, of_weights)
        config = BitfrontConfig(of_weights.formats, siblings, kv_cache=said, base=base).to_dict()
        self.write_folder(
            directory, model, of_weights, tensors, config, notes, base=model.base_module
        )


def find_siblings(module: nn.Module, allocation: Allocation) -> list[list[str]]:
    """Layers that are packed and read one tensor, by name; those that stand alone are left out."""
    groups: dict[str, list[str]] = {}
    for layer in find_layers(module):
        if allocation.formats.get(layer.name, "bf16") != "bf16":
            groups.setdefault(layer.group, []).append(layer.name)
    return [names for names in groups.values() if len(names) > 1]
