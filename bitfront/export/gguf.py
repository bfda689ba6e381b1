"""GGUF file with a type per tensor: what llama.cpp loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from bitfront.export._gguf_tensors import GgufTensor, write_tensors
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
        writer = GGUFWriter(None, written.name)
        writer.add_name(Path(model.source).name)
        written.add_fields(writer)
        add_tokenizer(writer, model.tokenizer, model.n_rows)
        tensors = [*written.extra(), *self._tensors(model, allocation, bank, written)]
        notes = (
            {"unquantized": True} if self.unquantized else {"rounded_anew": anew} if anew else {}
        )
        with writing(directory, model, allocation, notes) as folder:
            write_tensors(writer, tensors, folder / MODEL_FILE)
            (folder / TYPES_FILE).write_text(_tensor_types(model, allocation, written))

    def _tensors(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, written: GgufModel
    ) -> Iterator[GgufTensor]:
        """Every tensor of the model."""
        for name, tensor in fixed_tensors(model.module, allocation.formats).items():
            # llama.cpp adds norms and biases in float32
            kind = GGMLQuantizationType.F32 if tensor.dim() == 1 else GGMLQuantizationType.BF16
            yield written.tensor(name, kind, tensor.shape, partial(_plain, tensor, kind))
        for layer, name in allocation.formats.items():
            weight = get_weight(model.module, layer)
            kind, is_exact = ggml_type(named("bf16" if self.unquantized else name))
            make = partial(_plain, weight, kind)
            if not is_exact:
                make = partial(rounded_blocks, weight, kind)
            elif not self.unquantized:
                make = partial(_stored, bank, layer, name, (weight.shape[0], weight.shape[1]))
            yield written.tensor(f"{layer}.weight", kind, weight.shape, make)


def _plain(tensor: torch.Tensor, kind: GGMLQuantizationType) -> Bytes:
    dtype = torch.float32 if kind is GGMLQuantizationType.F32 else torch.bfloat16
    numbers = tensor.detach().to("cpu", dtype).contiguous()
    return numbers.view(torch.uint8).numpy()


def _stored(bank: WeightBank, layer: str, name: str, shape: tuple[int, int]) -> Bytes:
    format = named(name)
    return exact_blocks(format, *format.unpack(bank.tensors(layer, name), shape))


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
