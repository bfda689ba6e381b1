"""Ways to multiply by a weight of few bits: ours, cuBLAS, and the peers where they import."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from bitfront import formats
from bitfront.formats.int_grouped import IntGrouped
from bitfront.quantizers.rtn import Rtn

State = tuple[torch.Tensor, ...] | nn.Module


@dataclass(frozen=True)
class Built:
    """A weight that is ready to be multiplied with.

    Args:
        state: all that is read on the device.
        apply: `(state, inputs [batch, n_columns])` to outputs `[batch, n_rows]`, or to a list of
            them, one for each part.
    """

    state: State
    apply: Callable[[State, torch.Tensor], torch.Tensor | list[torch.Tensor]]

    @property
    def n_bytes(self) -> int:
        """Bytes of the state."""
        if isinstance(self.state, nn.Module):
            tensors = [*self.state.parameters(), *self.state.buffers()]
            return sum(tensor.nbytes for tensor in tensors)
        return sum(tensor.nbytes for tensor in self.state)

    def copies(self, n: int) -> Iterator[Built]:
        """Itself and `n - 1` others in memory of their own."""
        yield self
        for _ in range(n - 1):
            yield Built(copy.deepcopy(self.state), self.apply)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Outputs of inputs."""
        return self.apply(self.state, inputs)


class Multiplier(ABC):
    """One library's way; subclasses are named as the rows of the results are."""

    package: ClassVar[str] = "torch"
    """Distribution whose version is recorded."""

    module: ClassVar[str] = "torch"
    """What must import."""

    dtype: ClassVar[torch.dtype] = torch.bfloat16
    """Of inputs and outputs."""

    @property
    def name(self) -> str:
        """Of the rows."""
        return type(self).__name__.lower()

    @property
    def version(self) -> str:
        """Of the distribution."""
        return importlib.metadata.version(self.package)

    def is_there(self) -> bool:
        """Whether the library imports; one that is there and does not says why on the screen."""
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if not self.module.startswith(str(error.name)):
                print(f"{self.name}: {error}", file=sys.stderr)
            return False
        except (
            Exception
        ) as error:  # gemlite asks for the GPU, vllm for the CUDA that it was built for
            print(f"{self.name}: {type(error).__name__}: {error}", file=sys.stderr)
            return False
        return True

    @abstractmethod
    def takes(self, format: str) -> bool:
        """Whether it has this format, or one of the same bits and groups."""

    @abstractmethod
    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Pack weights that share an input, float32 `[n_rows, n_columns]`, in these formats.

        Only ours takes several formats; peers take the weights as one.
        """


class Bitfront(Multiplier):
    """Our kernels: one launch, whatever the formats of the parts."""

    package, module = "bitfront", "bitfront.kernels.dequant_matmul"

    def takes(self, format: str) -> bool:
        """All but bf16, which is cuBLAS's."""
        return format != "bf16"

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Round to nearest."""
        from bitfront.kernels.dequant_matmul import dequant_matmul

        rtn = Rtn(clip_steps=0)
        packed = [rtn.quantize(w, formats.named(n)) for w, n in zip(weights, names, strict=True)]
        rows = [len(weight) for weight in weights]
        columns = [weights[0].shape[1]]
        state = tuple(tensor for part in packed for tensor in part.tensors().values())
        return Built(
            state, lambda state, x: dequant_matmul(x, list(state), list(names), rows, columns)
        )

    def tune(self, built: Built, inputs: torch.Tensor, rows: Sequence[int], names: Sequence[str]):
        """Try launches of this product and save the fastest, which later calls then take."""
        from bitfront.kernels import tuning
        from bitfront.kernels._blocks import block_matrix

        matrix = block_matrix(tuple(rows), (inputs.shape[1],), tuple(names))
        tuning.tune(inputs, matrix, list(built.state))


class Cublas(Multiplier):
    """bf16, what everything is compared with."""

    def takes(self, format: str) -> bool:
        """Only bf16."""
        return format == "bf16"

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """The weight itself."""
        weight = torch.cat(list(weights)).to(self.dtype)
        return Built((weight,), lambda state, x: x @ state[0].T)


class Tinygemm(Multiplier):
    """torch's own int4 with a float zero point, groups of 128."""

    def takes(self, format: str) -> bool:
        """int4 in groups of 128."""
        return format in ("int4_g128", "int4_g128_sym")

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Codes two to a byte, in the order of the tensor cores; `(code - 8) * scale + zero`."""
        codes, scale, zero = asymmetric(torch.cat(list(weights)), 4, 128)
        bytes_ = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack(bytes_, 8)
        shift = (8 - zero) * scale
        both = torch.stack([scale, shift], dim=-1).transpose(0, 1).contiguous().to(self.dtype)
        return Built(
            (packed, both),
            lambda state, x: torch.ops.aten._weight_int4pack_mm(x, state[0], 128, state[1]),
        )


class Bitsandbytes(Multiplier):
    """NF4 in blocks of 64."""

    package = module = "bitsandbytes"

    def takes(self, format: str) -> bool:
        """NF4."""
        return format == "nf4_g64"

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Its own quantization, block sizes as floats."""
        bnb = importlib.import_module(self.module)
        weight = torch.cat(list(weights)).to(self.dtype)
        packed, made = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        # A copy of the block scales goes with a copy of the codes.
        state = (packed, made.absmax)

        def apply(state: State, x: torch.Tensor) -> torch.Tensor:
            own = copy.copy(made)
            own.absmax = state[1]
            return bnb.matmul_4bit(x, state[0].t(), own)

        return Built(state, apply)


class Gemlite(Multiplier):
    """Triton kernels for 1, 2, 4 and 8 bits."""

    package = module = "gemlite"
    dtype = torch.float16

    def takes(self, format: str) -> bool:
        """Integers of 2, 4 and 8 bits."""
        return format.startswith(("int2_g128", "int4_g128", "int8_g128"))

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """HQQ's layout: `(code - zero) * scale`."""
        gemlite = importlib.import_module(self.module)
        weight, num_bits = torch.cat(list(weights)), formats.named(names[0]).num_bits
        codes, scale, zero = asymmetric(weight, num_bits, 128)
        half = gemlite.DType.FP16
        layer = gemlite.GemLiteLinear(
            num_bits, 128, weight.shape[1], weight.shape[0], input_dtype=half, output_dtype=half
        )
        layer.pack(codes, scale.half().reshape(-1, 1), zero.half().reshape(-1, 1), None)
        return Built(layer, lambda state, x: state(x))


class Humming(Multiplier):
    """Kernels of any integer width, compiled when they are first called."""

    package, module = "humming-kernels", "humming.layer"
    dtype = torch.float16

    def takes(self, format: str) -> bool:
        """Symmetric integers."""
        return format.startswith("int") and format.endswith("_sym")

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Its own quantization, groups of 128."""
        humming = importlib.import_module(self.module)
        weight = torch.cat(list(weights)).to(self.dtype)
        layer = humming.HummingLayer(
            shape_n=weight.shape[0],
            shape_k=weight.shape[1],
            weight_config={"dtype": f"int{formats.named(names[0]).num_bits}", "group_size": 128},
            torch_dtype=self.dtype,
        ).to(weight.device)
        layer.load_from_unquantized(weight)
        layer.transform()
        return Built(layer, lambda state, x: state(x))


class Marlin(Multiplier):
    """vLLM's kernel for symmetric integers of 4 and 8 bits; tensor cores without wgmma."""

    package, module = "vllm", "vllm._custom_ops"

    def takes(self, format: str) -> bool:
        """Symmetric integers of 4 and 8 bits."""
        return format in ("int4_g128_sym", "int8_g128_sym")

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Our codes and scales, in the order of its fragments."""
        ops = importlib.import_module(self.module)
        layout = importlib.import_module(f"{_VLLM_LAYERS}.marlin_utils")
        words, scale, kind = gptq_words(torch.cat(list(weights)), names[0])
        n_columns, n_rows, bits = 128 * len(scale), scale.shape[1], formats.named(names[0]).num_bits
        none = torch.empty(0, dtype=torch.int32, device=words.device)
        packed = ops.gptq_marlin_repack(words, none, n_columns, n_rows, bits)
        scale = layout.marlin_permute_scales(scale.to(self.dtype), n_columns, n_rows, 128)
        workspace = layout.marlin_make_workspace_new(words.device)  # locks, zero between calls

        def apply(state: State, x: torch.Tensor) -> torch.Tensor:
            return ops.marlin_gemm(
                x, None, state[0], None, state[1], None, None, None, none, none, workspace, kind,
                len(x), n_rows, n_columns, is_k_full=True, use_fp32_reduce=True,
            )  # fmt: skip

        return Built((packed, scale), apply)


class Machete(Multiplier):
    """vLLM's kernel for symmetric integers of 4 and 8 bits on Hopper."""

    package, module = "vllm", "vllm._custom_ops"

    def takes(self, format: str) -> bool:
        """Symmetric integers of 4 and 8 bits."""
        return format in ("int4_g128_sym", "int8_g128_sym")

    def build(self, weights: Sequence[torch.Tensor], names: Sequence[str]) -> Built:
        """Our codes and scales; codes in the order of its tiles, from a column-major matrix."""
        ops = importlib.import_module(self.module)
        words, scale, kind = gptq_words(torch.cat(list(weights)), names[0])
        column_major = words.t().contiguous().t()
        packed = ops.machete_prepack_B(column_major, self.dtype, kind, self.dtype)
        return Built(
            (packed, scale.to(self.dtype)),
            lambda state, x: ops.machete_mm(
                x, state[0], kind, b_group_scales=state[1], b_group_size=128
            ),
        )


METHODS = (
    *(Cublas(), Bitfront(), Humming(), Marlin(), Machete(), Gemlite(), Tinygemm(), Bitsandbytes()),
)
_VLLM_LAYERS = "vllm.model_executor.layers.quantization.utils"


def gptq_words(weight: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor, object]:
    """What vLLM packs from: int32 `[n_columns / codes in a word, n_rows]`, scale, its type's name.

    Codes of neighbouring columns lie in one word, the first in its lowest bits. The scale is
    `[n_groups, n_rows]`.
    """
    types = importlib.import_module("vllm.scalar_type").scalar_types
    format = formats.named(name)
    assert isinstance(format, IntGrouped)
    quantized = Rtn(clip_steps=0).quantize(weight, format)
    scale, _ = format.affine(quantized.qparams)
    words = words_of(quantized.codes, format.num_bits)
    kind = {4: types.uint4b8, 8: types.uint8b128}[format.num_bits]
    return words.T.contiguous(), scale.T.contiguous(), kind


def words_of(codes: torch.Tensor, num_bits: int) -> torch.Tensor:
    """Codes uint8 `[n_rows, n_columns]` of 4 or 8 bits in int32, the first in the lowest bits.

    >>> hex(words_of(torch.arange(1, 9, dtype=torch.uint8)[None], 4).item() % 2**32)
    '0x87654321'
    """
    n_rows, n_codes = len(codes), 8 // num_bits
    groups = codes.reshape(n_rows, -1, n_codes)
    bytes_ = sum(groups[..., i] << (num_bits * i) for i in range(n_codes))
    return torch.as_tensor(bytes_).contiguous().view(torch.int32)


def asymmetric(
    weight: torch.Tensor, num_bits: int, group_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 `[n_rows, n_columns]`, scale and zero point `[n_rows, n_groups]`, by range."""
    format = IntGrouped(num_bits, group_size)
    quantized = Rtn(clip_steps=0).quantize(weight, format)
    scale, zero_point = format.affine(quantized.qparams)
    assert zero_point is not None
    return quantized.codes, scale, zero_point
