"""Layers that hold packed weights and multiply by them: linear, convolution, embedding, head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from bitfront.errors import InvalidModel
from bitfront.formats.base import Format
from bitfront.kernels import torch_cpu, weights
from bitfront.kernels.dequant_matmul import dequant_matmul
from bitfront.kernels.torch_cpu import LowBit
from bitfront.models.matrices import padded_by_size, pads_by_size


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether the operators are given what this layer would else do in another way on a CPU.

    Nothing more is asked, such as what the device can run: `torch.compile` cannot trace that, and
    where no kernel of ours runs the operators decode.
    """
    return tensor.is_cuda


class PackedWeight(nn.Module):
    """A weight `[out_features, in_features]` as the tensors of its format, one buffer each.

    Args:
        format: what the tensors mean.
        shape: of the weight.
        dtype: of the numbers that come out of the layer.
    """

    def __init__(self, format: Format, shape: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.format = format
        self.shape = shape
        self.keeps = False
        self._kept: torch.Tensor | None = None
        self._low_bit: LowBit | None = None
        self._stored = tuple(format.stored(shape))
        for name, stored in format.stored(shape).items():
            self.register_buffer(
                name, torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
            )
        # Follows `.to(dtype)` of the model, which the stored tensors must not.
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """The decoded weight `[out_features, in_features]`."""
        if self._kept is not None and self._kept.dtype == dtype:
            return self._kept
        weight = self.format.decode_stored(self.tensors(), self.shape).to(dtype)
        self._kept = weight if self.keeps else None
        return weight

    def multiply(self, inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`inputs [..., columns] @ weight.T + bias`, by the fastest way that there is.

        On a GPU the fused kernel. On a CPU one of torch's low-bit operators for few bfloat16
        tokens; else the decoded weight, which is decoded each time unless it is kept.
        """
        low_bit = self._for_few_tokens(inputs)
        if low_bit is not None:
            tensors = self.tensors()
            out = low_bit.multiply(weights.prepared(inputs, self.format, tensors, self.shape))
            return out if bias is None else out + bias
        if self.keeps and not inputs.is_cuda:
            if self.format.input_format is not None:
                scale = self.format.input_scale(self.tensors())
                inputs = weights.rounded_inputs(inputs, self.format, scale)
            return functional.linear(inputs, self.matrix(inputs.dtype), bias)
        return weights.multiply(inputs, self.format, self.tensors(), self.shape, bias)

    def _for_few_tokens(self, inputs: torch.Tensor) -> LowBit | None:
        """The weight for torch's low-bit operator of the CPU, where that is the fastest."""
        if inputs.dtype != torch.bfloat16 or inputs.device.type != "cpu":
            return None
        if torch.is_grad_enabled() and inputs.requires_grad:  # they have no gradient
            return None
        n_tokens = inputs.numel() // inputs.shape[-1]
        if not 0 < n_tokens <= torch_cpu.most_tokens(self.keeps):
            return None
        # A compiled model uses the layout that the model had before, but does not make it.
        makes = not torch.compiler.is_compiling()
        (stored, _), *_ = self.format.parts(self.shape)
        # Of several widths there may be one part, whose tensors have other names.
        makes = makes and stored == self.format.base
        makes = makes and torch_cpu.can_multiply(stored, self.shape)
        if self._low_bit is None and makes:
            self._low_bit = torch_cpu.low_bit(stored, self.shape, self.tensors())
        return self._low_bit

    def tensors(self) -> dict[str, torch.Tensor]:
        """Stored tensors by name."""
        return {name: self.get_buffer(name) for name in self._stored}

    def __getattr__(self, name: str) -> Any:
        if name != "weight" or "weight" in self.__dict__["_stored"]:
            return super().__getattr__(name)
        # Models look at it (GPT-2 when it initializes weights, others for its dtype). It is a
        # copy, and marked so that no initialization is wasted on it.
        weight = self.matrix(self.get_buffer("like").dtype)
        weight._is_hf_initialized = True  # type: ignore[attr-defined]
        return weight

    def extra_repr(self) -> str:
        """Shape and format."""
        return f"{self.shape[1]}, {self.shape[0]}, format={self.format.name}"

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> PackedWeight:
        before = self.tensors()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._kept = self._low_bit = None
        for name, tensor in before.items():
            if self.get_buffer(name).dtype != tensor.dtype:  # a scale cast to bfloat16 loses bits
                self._buffers[name] = tensor.to(self.get_buffer(name).device)
        return self

    def _load_from_state_dict(self, *state: Any) -> None:
        super()._load_from_state_dict(*state)
        self._kept = self._low_bit = None


class QuantLinear(PackedWeight):
    """`inputs @ weight.T + bias` with a packed weight; stands for `nn.Linear` and `Conv1D`.

    On a GPU, one launch computes this layer and its `siblings`, where they are known.
    """

    siblings: Siblings | None = None
    place: int = 0

    def __init__(
        self,
        format: Format,
        shape: tuple[int, int],
        dtype: torch.dtype,
        bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__(format, shape, dtype)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        if self.siblings is not None and on_gpu(inputs):
            return self.siblings.output(self.place, inputs)
        return self.multiply(inputs, self.bias)


class Siblings:
    """Packed layers that read one tensor (q, k and v; gate and up), multiplied in one launch.

    The first that is called with a tensor computes for all; each of the others takes its columns of
    that product when it is called with the very same tensor, and the last one lets go of it. A
    layer that is called with another tensor, or twice, multiplies anew: what comes out never
    depends on who was called before. See docs/decisions/0018-siblings-in-one-launch.md.

    Args:
        layers: of equally many columns, in the order of the rows of the product.
    """

    def __init__(self, layers: Sequence[QuantLinear]) -> None:
        self.layers = tuple(layers)
        # The input, the outputs of all, and the places of those that have not taken theirs. One
        # tuple, so that another thread sees it whole.
        self._held: tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[int, ...]] | None = None

    def output(self, place: int, inputs: torch.Tensor) -> torch.Tensor:
        """Of the layer at a place: `[..., in_features]` to its `[..., out_features]`."""
        held = self._held
        if held is None or held[0] is not inputs or place not in held[2]:
            held = inputs, self._product(inputs), tuple(range(len(self.layers)))
        waiting = tuple(each for each in held[2] if each != place)
        self._held = (held[0], held[1], waiting) if waiting else None
        return held[1][place]

    def _product(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n_rows = [layer.shape[0] for layer in self.layers]
        tensors = [tensor for layer in self.layers for tensor in layer.tensors().values()]
        names = [layer.format.name for layer in self.layers]
        whole = dequant_matmul(
            inputs, tensors, names, n_rows, [self.layers[0].shape[1]], self._bias
        )
        return tuple(torch.split(whole, n_rows, dim=-1))

    @property
    def _bias(self) -> torch.Tensor | None:
        biases = [layer.bias for layer in self.layers]
        known = next((bias for bias in biases if bias is not None), None)
        if known is None:
            return None
        rows = zip(biases, self.layers, strict=True)
        return torch.cat([known.new_zeros(x.shape[0]) if b is None else b for b, x in rows])


class QuantConv2d(PackedWeight):
    """A convolution with a packed weight; stands for `nn.Conv2d`.

    It decodes the weight on each call, on a GPU too, and runs torch's convolution: no kernel of
    ours multiplies patches by packed codes. `keep_decoded` trades memory for the time of decoding.
    Where the format is a pair, inputs are rounded before (`rounded_images`).

    Args:
        format: what the stored tensors mean.
        module: the convolution that it stands for, whose bias it takes over.
    """

    def __init__(self, format: Format, module: nn.Conv2d) -> None:
        n_rows, *others = module.weight.shape
        super().__init__(format, (n_rows, math.prod(others)), module.weight.dtype)
        self.kernel_shape = module.weight.shape
        self.bias = module.bias
        self.pads_by_size = pads_by_size(module)
        for name in _GEOMETRY:  # models look at them, such as MobileNetV2 for its padding
            setattr(self, name, getattr(module, name))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[n, in_channels, height, width]` to `[n, out_channels, ., .]`."""
        if self.format.input_format is not None:
            scale = self.format.input_scale(self.tensors())
            inputs = weights.rounded_images(inputs, self.format, scale, self.groups)
        if self.pads_by_size:
            inputs = padded_by_size(self, inputs)  # type: ignore[arg-type]
        kernel = self.matrix(inputs.dtype).reshape(self.kernel_shape)
        convolved: torch.Tensor = nn.Conv2d._conv_forward(self, inputs, kernel, self.bias)  # type: ignore[arg-type]
        return convolved


_GEOMETRY = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
    "_reversed_padding_repeated_twice",
)
"""What a convolution is besides its weight and bias."""


class QuantEmbedding(PackedWeight):
    """Rows of a packed table `[n_tokens, width]`; only the rows asked for are decoded.

    Args:
        factor: what rows are multiplied with (Gemma).
    """

    def __init__(
        self, format: Format, shape: tuple[int, int], dtype: torch.dtype, factor: float = 1.0
    ) -> None:
        super().__init__(format, shape, dtype)
        self.factor = factor  # not `scale`: that is a stored tensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids `[...]` to rows `[..., width]`."""
        if ids.numel() == 0:  # which formats do not decode
            return self.get_buffer("like").new_empty((*ids.shape, self.shape[1]))
        if on_gpu(ids):
            # Some rows more than once, for `unique` would wait for the GPU and break its graphs.
            rows = self._rows(ids.reshape(-1))
            weight = weights.decoded(self.format, rows, (ids.numel(), self.shape[1]))
            found = weight.to(self.get_buffer("like").dtype).reshape(*ids.shape, -1)
        else:
            wanted, places = ids.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            weight = self.format.decode_stored(self._rows(wanted), (len(wanted), self.shape[1]))
            found = weight.to(self.get_buffer("like").dtype)[places]
        return found if self.factor == 1.0 else found * torch.tensor(self.factor, dtype=found.dtype)

    def _rows(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Stored tensors of these rows; what all rows share as it is (scale of nvfp4, an order)."""
        n_rows = self.shape[0]
        tensors = self.tensors().items()
        return {k: t[ids] if t.dim() > 1 and len(t) == n_rows else t for k, t in tensors}


class TiedHead(nn.Module):
    """`inputs @ table.T + bias`: the output head that shares the table of a packed embedding."""

    def __init__(self, embedding: QuantEmbedding, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        # In a tuple, so that the embedding is no submodule and its tensors are stored once.
        self._embedding = (embedding,)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[..., width]` to `[..., n_tokens]`."""
        return self._embedding[0].multiply(inputs, self.bias)


def packed_like(module: nn.Module, format: Format) -> QuantLinear | QuantConv2d | QuantEmbedding:
    """An empty packed layer that stands for `module`.

    Raises:
        InvalidModel: neither a linear layer, a convolution, nor an embedding whose rows are used as
            they are or scaled.
    """
    if isinstance(module, nn.Conv2d):
        return QuantConv2d(format, module)
    weight = module.get_parameter("weight")
    n_rows, n_columns = weight.shape
    if isinstance(module, Conv1D):
        return QuantLinear(format, (n_columns, n_rows), weight.dtype, module.bias)
    if isinstance(module, nn.Linear):
        return QuantLinear(format, (n_rows, n_columns), weight.dtype, module.bias)
    factor = getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", None))
    if type(module) is nn.Embedding or isinstance(factor, float):
        return QuantEmbedding(format, (n_rows, n_columns), weight.dtype, factor or 1.0)
    raise InvalidModel(
        f"{type(module).__name__} cannot hold packed weights: leave it unpinned (pinned=None) "
        "or export with fake_quant."
    )


def join_siblings(model: nn.Module, groups: Iterable[Sequence[str]]) -> None:
    """Let packed layers of a group, by name, multiply in one launch.

    Args:
        model: holds the layers; groups that it has had are taken apart.
        groups: layers that read one tensor; those that are not packed are left out, and those whose
            format multiplies another than this tensor (turned, scaled) or comes in parts.
    """
    for module in model.modules():
        if isinstance(module, QuantLinear):
            module.siblings = None
    for names in groups:
        packed = [x for x in map(model.get_submodule, names) if isinstance(x, QuantLinear)]
        layers = [x for x in packed if weights.is_plain(x.format, x.shape)]
        if len({layer.shape[1] for layer in layers}) == 1 < len(layers):
            together = Siblings(layers)
            for place, layer in enumerate(layers):
                layer.siblings, layer.place = together, place


def keep_decoded(model: nn.Module, keep: bool = True) -> None:
    """Whether packed layers keep their decoded weight after the first call: faster, more memory."""
    for module in model.modules():
        if isinstance(module, PackedWeight):
            module.keeps, module._kept = keep, None
