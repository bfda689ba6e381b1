"""A bank that quantizes on demand, and what an exported model must compute."""

import copy
from dataclasses import dataclass, field

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from bitfront import formats
from bitfront.formats.base import Format
from bitfront.models.layers import (
    fixed_tensors,
    get_weight,
    search_space,
    set_weight,
    stored_dtype,
)
from bitfront.models.load import LoadedModel
from bitfront.models.rounded_inputs import RoundedInputs
from bitfront.quantizers.rtn import Rtn
from tests import cases


@dataclass
class BankOnDemand:
    """Stands in for `WeightBank` where most of its entries would never be read."""

    module: torch.nn.Module
    space: object
    made: dict = field(default_factory=dict)

    def quantized(self, layer, format):
        if (layer, format) not in self.made:
            weight = get_weight(self.module, layer).float().contiguous()
            self.made[layer, format] = Rtn(clip_steps=0).quantize(weight, formats.named(format))
        return self.made[layer, format]

    def tensors(self, layer, format):
        return self.quantized(layer, format).tensors()

    def stored_as(self, format):
        return formats.named(format).weight_format.name

    def weight(self, layer, format, device=None):
        return self.quantized(layer, format).dequantize()


@dataclass
class Export:
    """What an exporter is given."""

    model: LoadedModel
    space: object
    allocation: object
    bank: BankOnDemand

    @classmethod
    def of(cls, module, tokenizer, menu: tuple[Format, ...], pinned: Format | None, tied=True):
        space = search_space(module, menu, pinned, tied)
        choice = []
        for index, allowed in enumerate(space.group_allowed):
            usable = allowed.nonzero()[0]
            choice.append(int(usable[index % len(usable)]))
        model = LoadedModel(module, tokenizer, "digest", "test")
        return cls(model, space, space.decode(choice), BankOnDemand(module, space))

    def expected(self, rounds_inputs=True):
        """The model with the decoded weights and all else rounded as it is stored, float32."""
        module = copy.deepcopy(self.model.module)
        for layer, format in self.allocation.formats.items():
            set_weight(module, layer, self.bank.weight(layer, format))
        if rounds_inputs:
            RoundedInputs(module, self.bank).apply(self.allocation.formats)
        with torch.no_grad():
            for tensor in fixed_tensors(module, self.allocation.formats).values():
                tensor.copy_(tensor.to(stored_dtype(tensor)))
        return module


def stored_bytes(folder) -> dict[str, int]:
    """Bytes of every tensor of a checkpoint, from the files' own offsets."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {name: t.numel() * t.element_size() for name, t in tensors.items()}


def written(exporter, folder) -> dict[str, str]:
    """Where transformers finds what an exporter wrote."""
    file = cases.EXPORTERS[exporter].file
    is_gguf = {"gguf_file": file} if file.endswith(".gguf") else {}
    return {"pretrained_model_name_or_path": folder, **is_gguf}


def load(exporter, folder, **options):
    """What an exporter wrote, as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(**written(exporter, folder), **options)


def logits(module, tokens):
    """Float32."""
    with torch.no_grad():
        return module(tokens).logits.float()


def relative_error(values, expected):
    """Root mean square."""
    return float((values - expected).norm() / expected.norm())
