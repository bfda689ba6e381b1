"""GGUF file with a type per tensor: what llama.cpp loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter

from bitfront.allocation import Allocation
from bitfront.errors import InvalidModel
from bitfront.export._ggml import (
    BLOCK,
    Bytes,
    exact_blocks,
    ggml_type,
    nearest_k_quant,
    rounded_blocks,
)
from bitfront.export._gguf_model import GgufModel
from bitfront.export._gguf_tokenizer import add_tokenizer
from bitfront.export.base import Exporter, writing
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import fixed_tensors, get_weight
from bitfront.models.load import LoadedModel

MODEL_FILE, TYPES_FILE = "model.gguf", "tensor-types.txt"


@dataclass(frozen=True)
class Gguf(Exporter):
    """GGUF file with a ggml type per tensor, tokenizer included, for llama.cpp.

    Symmetric integers are stored as Q4_0, Q5_0 or Q8_0 and asymmetric ones of up to 5 bits as Q4_1
    or Q5_1, with the values that were measured (but for the float16 rounding of the offset of the
    latter), mxfp4 and bf16 as they are. 2 and 3 bits take the room of 4 so, and larger groups that
    of 32. All other formats have no equal: those layers are rounded anew, to Q8_0 above 5 bits and
    else to Q4_0; `bitfront.json` lists them as `rounded_anew`. `tensor-types.txt` beside the file
    has the allocation in llama.cpp's own K-quants, nearest by bits per weight, for
    `llama-quantize --tensor-type-file`. Llama, Mistral, Qwen2 and Qwen3 models only.

    Args:
        unquantized: if true, the weights are the model's own in bfloat16: what llama-quantize
            reads.
    """

    unquantized: bool = False

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the folder.

        Raises:
            InvalidModel: an architecture, tokenizer or width of a layer that llama.cpp or this
                exporter does not know.
            StorageError: it could not be written; nothing half-written is left.
        """
        written = GgufModel.of(model.module.config)
        anew = {} if self.unquantized else _rounded_anew(allocation)
        for layer in allocation.formats:
            _check_width(layer, get_weight(model.module, layer).shape[1])
        notes = {"rounded_anew": anew} if anew else {}
        writer = GGUFWriter(None, written.name)
        writer.add_name(Path(model.source).name)
        written.add_fields(writer)
        add_tokenizer(writer, model.tokenizer, model.n_rows)
        for name, kind, rows in self._tensors(model, allocation, bank):
            order = written.row_order(name, len(rows))
            ordered = rows if order is None else rows[order]
            writer.add_tensor(written.tensor_name(name), ordered, raw_dtype=kind)
        with writing(directory, model, allocation, notes) as folder:
            _write_file(writer, folder / MODEL_FILE)
            (folder / TYPES_FILE).write_text(_tensor_types(model, allocation, written))

    def _tensors(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank
    ) -> Iterator[tuple[str, GGMLQuantizationType, Bytes | np.ndarray]]:
        """Name, type and data of every tensor of the model."""
        for name, tensor in fixed_tensors(model.module, allocation.formats).items():
            numbers = tensor.detach().float().cpu()
            if numbers.dim() == 1:  # llama.cpp adds norms and biases in float32
                yield name, GGMLQuantizationType.F32, numbers.numpy()
            else:
                yield name, GGMLQuantizationType.BF16, _bf16(numbers)
        for layer, name in allocation.formats.items():
            weight = get_weight(model.module, layer).cpu()
            format = named(name)
            kind, is_exact = ggml_type(format)
            if self.unquantized:
                yield f"{layer}.weight", GGMLQuantizationType.BF16, _bf16(weight)
            elif is_exact:
                shape = (weight.shape[0], weight.shape[1])
                codes, qparams = format.unpack(bank.tensors(layer, name), shape)
                yield f"{layer}.weight", kind, exact_blocks(format, codes, qparams)
            else:
                yield f"{layer}.weight", kind, rounded_blocks(weight, kind)


def _write_file(writer: GGUFWriter, path: Path) -> None:
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        for file in writer.fout or ():
            file.flush()
    finally:
        for file in writer.fout or ():
            # After a full disk the buffer is not empty and closing fails again.
            with suppress(OSError):
                file.close()


def _bf16(weight: torch.Tensor) -> Bytes:
    return weight.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()


def _rounded_anew(allocation: Allocation) -> dict[str, str]:
    """Layers whose format no ggml type has, and the type they get."""
    types = {layer: ggml_type(named(name)) for layer, name in allocation.formats.items()}
    return {layer: kind.name for layer, (kind, is_exact) in types.items() if not is_exact}


def _check_width(layer: str, n_columns: int) -> None:
    if n_columns % BLOCK:
        raise InvalidModel(
            f"Layer {layer!r} has {n_columns} columns, and GGUF types have blocks of {BLOCK}: "
            "export with packed or fake_quant."
        )


def _tensor_types(model: LoadedModel, allocation: Allocation, written: GgufModel) -> str:
    """Lines `name=type` for `llama-quantize --tensor-type-file`; names are expressions there."""
    lines = []
    for layer, name in allocation.formats.items():
        rows, columns = get_weight(model.module, layer).shape
        kind = nearest_k_quant(named(name).bits_per_weight((rows, columns)))
        pattern = written.tensor_name(f"{layer}.weight").replace(".", r"\.")
        lines.append(f"^{pattern}$={kind}\n")
    return "".join(lines)
