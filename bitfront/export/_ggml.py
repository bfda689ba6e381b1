"""Weights as ggml stores them: blocks of 32 columns with float16 scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from bitfront.formats.base import Format
from bitfront.formats.bf16 import Bf16
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4

BLOCK = 32
Bytes = NDArray[np.uint8]

_SYMMETRIC = {4: GGMLQuantizationType.Q4_0, 5: GGMLQuantizationType.Q5_0}
_ASYMMETRIC = {4: GGMLQuantizationType.Q4_1, 5: GGMLQuantizationType.Q5_1}
# Bits per weight of what llama-quantize makes, blocks and super-blocks included.
_K_QUANTS = {
    "q2_K": 2.625, "q3_K": 3.4375, "q4_K": 4.5, "q5_K": 5.5, "q6_K": 6.5625, "q8_0": 8.5,
    "bf16": 16.0,
}  # fmt: skip


def ggml_type(format: Format) -> tuple[GGMLQuantizationType, bool]:
    """Type that stores a format, and whether its values are the same.

    Integers take the narrowest type that has their levels: symmetric ones Q4_0, Q5_0 or Q8_0,
    asymmetric ones of up to 5 bits Q4_1 or Q5_1. What has no equal is rounded anew: groups of 16 to
    the same types, others to Q8_0 above 5 bits, else to Q4_0.
    """
    if isinstance(format, Bf16):
        return GGMLQuantizationType.BF16, True
    if isinstance(format, Mxfp4):
        return GGMLQuantizationType.MXFP4, True
    if isinstance(format, IntGrouped):
        types = _SYMMETRIC if format.symmetric else _ASYMMETRIC
        chosen = types.get(max(format.num_bits, 4))
        has_levels = chosen is not None or format.symmetric
        whole_blocks = format.group_size is None or format.group_size >= BLOCK
        return chosen or GGMLQuantizationType.Q8_0, has_levels and whole_blocks
    wide = format.code_bits > 5
    return (GGMLQuantizationType.Q8_0 if wide else GGMLQuantizationType.Q4_0), False


def nearest_k_quant(bits_per_weight: float) -> str:
    """Type of llama-quantize with the nearest bits per weight.

    >>> nearest_k_quant(4.25), nearest_k_quant(2.5)
    ('q4_K', 'q2_K')
    """
    return min(_K_QUANTS, key=lambda name: abs(_K_QUANTS[name] - bits_per_weight))


def exact_blocks(format: Format, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> Bytes:
    """Rows of blocks with the values of a format, uint8 `[n_rows, n_bytes]`.

    Args:
        format: one that `ggml_type` calls exact.
        codes: uint8 `[n_rows, n_columns]`, or bfloat16 values of that shape.
        qparams: as the format stores them.
    """
    kind, _ = ggml_type(format)
    if kind is GGMLQuantizationType.BF16:
        return codes.contiguous().view(torch.uint8).numpy()
    n_rows, n_columns = codes.shape
    n_blocks = n_columns // BLOCK
    numbers = codes.numpy().reshape(n_rows, n_blocks, BLOCK)
    scale = _per_block(qparams["scale"], n_blocks)
    if kind is GGMLQuantizationType.MXFP4:
        return _joined(scale, _nibbles(numbers))
    assert isinstance(format, IntGrouped)
    half = 1 << (format.num_bits - 1)
    if kind is GGMLQuantizationType.Q8_0:
        return _joined(scale, numbers - np.uint8(half))  # wraps to the bits of an int8
    parts = [scale]
    if format.symmetric:
        middle = 16 if kind is GGMLQuantizationType.Q5_0 else 8
        numbers = numbers + np.uint8(middle - half)
    else:
        lowest = -qparams["scale"].float() * qparams["zero_point"].float()
        parts.append(_per_block(lowest.half(), n_blocks))
    if kind in (GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q5_1):
        parts.append(np.packbits(numbers >> 4, axis=2, bitorder="little"))
    return _joined(*parts, _nibbles(numbers))


def rounded_blocks(weight: torch.Tensor, kind: GGMLQuantizationType) -> Bytes:
    """Rows of blocks by the quantizer of the gguf package, uint8 `[n_rows, n_bytes]`.

    Args:
        weight: `[n_rows, n_columns]`.
        kind: type of the blocks.
    """
    made: Bytes = quants.quantize(weight.cpu().float().contiguous().numpy(), kind)
    return made.view(np.uint8)


def _per_block(parameter: torch.Tensor, n_blocks: int) -> Bytes:
    """One parameter per block instead of per group, `[n_rows, n_blocks, n_bytes]`."""
    groups = parameter.numpy()
    blocks = np.repeat(groups, n_blocks // groups.shape[1], axis=1)
    return blocks.view(np.uint8).reshape(*blocks.shape, -1)


def _nibbles(codes: Bytes) -> Bytes:
    """Low four bits: the first half of a block in the low nibbles, the second in the high ones."""
    half = BLOCK // 2
    return (codes[..., :half] & np.uint8(15)) | (codes[..., half:] << np.uint8(4))


def _joined(*parts: Bytes) -> Bytes:
    return np.concatenate(parts, axis=2).reshape(len(parts[0]), -1)
