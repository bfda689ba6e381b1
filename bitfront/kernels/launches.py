"""How a kernel is launched: a default for every case, and what was tuned for a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """Launch parameters of one product.

    Args:
        kernel: "gemv" (one token), "gemm" or "decode" (decode, then cuBLAS).
        block_m: tokens to a tile of gemm.
        block_n: outputs to a tile.
        block_w: words to a tile: int32 of gemv, containers of gemm.
        splits: parts that the columns are cut into, added up by a second launch.
        num_warps: warps to a program.
        num_stages: tiles that are loaded ahead.
    """

    kernel: str
    block_m: int = 16
    block_n: int = 64
    block_w: int = 32
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 3
