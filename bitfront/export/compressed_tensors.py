"""compressed-tensors checkpoint: what vLLM, SGLang and transformers load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.export._published import Part, check_blocks, published
from bitfront.export._recipes import searched
from bitfront.export._schemes import config_groups, stores_bytes
from bitfront.export.base import HuggingFaceFolder
from bitfront.formats import named
from bitfront.formats._elements import E4m3
from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.nvfp4 import Nvfp4
from bitfront.models.bank import WeightBank
from bitfront.models.experts import expert_modules
from bitfront.models.layers import get_weight
from bitfront.models.load import LoadedModel
from bitfront.quantizers.rtn import Rtn

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CompressedTensors(HuggingFaceFolder):
    """compressed-tensors folder with one config group per format, for vLLM and transformers.

    Weight-only schemes: symmetric integers of 2 to 8 bits (`pack-quantized`), fp8 (`float-
    quantized`), mxfp4, mxfp6_e2m3, mxfp8_e4m3 and nvfp4; codes and scales are those that were
    measured. bf16 layers are on the ignore list. Experts that transformers stacks are stored one by
    one, as published; those of a block must share a format. All other formats, and layers that are
    no `nn.Linear`, are refused. Embedding and head are plain bfloat16 with the values of their
    format, because the engines know no packed ones: so the folder is larger than the budget said.
    Engines keep scales in the dtype of the model, so in bfloat16 they lose 3 bits.

    Pairs with inputs are written as `input_activations`, found per token as the model runs ("W8A8",
    "W4A8"): symmetric integers, fp8 and microscaled floats. Integers are laid on another grid there
    (largest size / 127.5, not 128), so predictions agree within rounding. nvfp4 inputs are refused:
    they have a static scale per tensor there, which nothing has measured.

    Args:
        symmetric: if true, asymmetric integers, whose fractional zero points the format cannot
            hold, become symmetric ones of the same width: their weights are rounded anew by `rtn`.
            What another quantizer gained is lost there, and the loss is no longer the measured one.
    """

    symmetric: bool = False

    carries_inputs: ClassVar[bool] = True

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the folder.

        Raises:
            InvalidArgument: a format that cannot be stored so; names the layer.
            InvalidModel: a layer that is no `nn.Linear`.
            StorageError: it could not be written; nothing half-written is left.
        """
        wanted = {
            name: self._checked(name, format, model.module.get_submodule(name))
            for name, format in searched(model, allocation, with_experts=True).items()
        }
        check_blocks(model.module, wanted)
        parts = published(model.module, allocation.formats)
        groups = config_groups({x.target: f for name, f in wanted.items() for x in parts[name]})
        tensors: Tensors = {}
        for layer, format in allocation.formats.items():
            if wanted.get(layer, "bf16") == "bf16":
                stored = {"weight": bank.weight(layer, format).to("cpu", torch.bfloat16)}
            else:
                weight, chosen = get_weight(model.module, layer).cpu(), named(wanted[layer])
                kept = bank.tensors(layer, format)
                if chosen.name != format:
                    kept = Rtn().quantize(weight.float().contiguous(), chosen).tensors()
                stored = _stored(chosen, kept, (weight.shape[0], weight.shape[1]))
            n_rows = get_weight(model.module, layer).shape[0]
            for part in parts[layer]:
                tensors |= part.of(stored, n_rows)
        config = _config(groups, _ignored(model.module, wanted, parts))
        anew = {layer: f for layer, f in wanted.items() if f != allocation.formats[layer]}
        plain = [layer for layer in allocation.formats if layer not in wanted]
        more = {layer: n for layer in plain if (n := _more_bytes(model, allocation, layer))}
        notes: dict[str, Any] = {"rounded_anew": anew} if anew else {}
        notes |= {"at_16_bits": more} if more else {}
        separate = bool(expert_modules(model.module))
        self.write_folder(directory, model, allocation, tensors, config, notes, separate)

    def _checked(self, layer: str, name: str, module: nn.Module) -> str:
        """Name of the format that a layer is stored in."""
        if not isinstance(module, nn.Linear):
            raise InvalidModel(
                f"Layer {layer!r} is a {type(module).__name__}: compressed-tensors stores linear "
                "layers only; export with packed or fake_quant."
            )
        format = named(name).weight_format
        if not isinstance(format, IntGrouped) or format.symmetric or format.num_bits == 1:
            return name  # what compressed-tensors has not is refused with its layer later
        symmetric = replace(format, symmetric=True).name + name.removeprefix(format.name)
        if not self.symmetric:
            raise InvalidArgument(
                f"Layer {layer!r} has {name}, and compressed-tensors has no fractional zero "
                f"points: search with {symmetric}, or export with "
                "compressed_tensors:symmetric=true, which rounds such layers anew."
            )
        return symmetric


def _more_bytes(model: LoadedModel, allocation: Allocation, layer: str) -> int:
    """What a layer takes beyond its format, being stored as bfloat16."""
    n_rows, n_columns = get_weight(model.module, layer).shape
    return 2 * n_rows * n_columns - named(allocation.formats[layer]).nbytes((n_rows, n_columns))


def _ignored(
    module: nn.Module, wanted: Mapping[str, str], parts: Mapping[str, tuple[Part, ...]]
) -> list[str]:
    """Published names of linear layers without a scheme."""
    return [
        part.name
        for name, m in module.named_modules()
        if isinstance(m, nn.Linear) and wanted.get(name, "bf16") == "bf16"
        for part in parts.get(name, (Part(name),))
    ]


def _config(groups: dict[str, dict[str, Any]], ignored: list[str]) -> dict[str, Any] | None:
    """The `quantization_config`; `None` where nothing is quantized."""
    if not groups:
        return None
    kinds = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": kinds.pop() if len(kinds) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignored,
    }


def _stored(format: Format, tensors: Tensors, shape: tuple[int, int]) -> Tensors:
    """Tensors of one layer by the names that compressed-tensors gives them.

    Args:
        format: of the layer.
        tensors: as the bank has them.
        shape: of the weight, `[n_rows, n_columns]`.
    """
    is_plain, format = stores_bytes(format), format.weight_format
    if isinstance(format, E4m3):
        return {"weight": tensors["weight"], "weight_scale": tensors["scale"]}
    codes, qparams = format.unpack(tensors, shape)
    if is_plain:
        return {"weight": (codes.int() - 128).to(torch.int8), "weight_scale": qparams["scale"]}
    if isinstance(format, IntGrouped):
        packed = {
            "weight_packed": _words(codes, format.num_bits),
            "weight_shape": torch.tensor(shape),
        }
    elif isinstance(format, Mxfp6):
        packed = {"weight_packed": _words(codes, 6).view(torch.uint8)}
    else:
        packed = {"weight_packed": codes[:, 0::2] | codes[:, 1::2] << 4}
    if isinstance(format, Nvfp4):  # a divisor there
        packed["weight_global_scale"] = 1 / qparams["global_scale"]
    return packed | {"weight_scale": qparams["scale"]}


def _words(codes: torch.Tensor, num_bits: int) -> torch.Tensor:
    """Rows of codes as streams of bits, lowest first, in int32 words; the last one is padded.

    >>> _words(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4)
    tensor([[801]], dtype=torch.int32)
    """
    n_rows, n_columns = codes.shape
    padded = np.pad(codes.cpu().numpy(), ((0, 0), (0, -n_columns % 32)))
    # Eight codes are num_bits bytes.
    eights = np.zeros((n_rows, padded.shape[1] // 8), dtype="<u8")
    for place in range(8):
        eights |= padded[:, place::8].astype("<u8") << np.uint64(num_bits * place)
    used = np.ascontiguousarray(eights.view(np.uint8).reshape(n_rows, -1, 8)[..., :num_bits])
    words = used.reshape(n_rows, -1).view("<i4")[:, : -(-n_columns * num_bits // 32)]
    return torch.from_numpy(np.ascontiguousarray(words))
