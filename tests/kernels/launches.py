"""The launches whose machine code is counted: shapes of Llama-3-8B.

python -m tests.kernels.launches            counts as JSON
python -m tests.kernels.launches --record   into sass.csv, for the installed triton
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from bitfront import packing
from bitfront.kernels._blocks import block_matrix
from bitfront.kernels._gemm import n_rounds
from bitfront.kernels._launch import decoded
from bitfront.kernels.dequant_matmul import run
from bitfront.kernels.fake_quantize import run_round_to_codes, run_rounding_errors
from bitfront.kernels.kl_divergence import run_kl_divergence, run_top_log_probs
from bitfront.kernels.launches import default_launch
from tests.kernels.sass import Case, count, record

VOCABULARY, TOP_K = 128_256, 512


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor that stands for one of a GPU."""
    return torch.empty(shape, dtype=dtype, device="meta")


def logits(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 2,047 tokens and the indices of the top K."""
    return empty(2047, VOCABULARY, dtype=dtype), empty(2047, TOP_K, dtype=torch.int32)


def kl(dtype: torch.dtype) -> None:
    """KL of a sequence."""
    run_kl_divergence(*logits(dtype), empty(2047, TOP_K), empty(2047))


def errors(symmetric: bool) -> None:
    """Nine clips of a weight in groups of 64."""
    scale = empty(9, 14_336, 64)
    run_rounding_errors(empty(14_336, 4096), scale, None if symmetric else scale, 4)


def codes(symmetric: bool) -> None:
    """A weight in groups of 64."""
    scale = empty(14_336, 64)
    run_round_to_codes(empty(14_336, 4096), scale, None if symmetric else scale, 4)


def product(
    formats: str,
    n_tokens: int,
    dtype: torch.dtype,
    max_per_weight: float,
    rows: str = "14336",
    load_bits: int = 128,
) -> Case:
    """A product of Llama-3-8B with 4,096 columns, as it is launched without tuning.

    Args:
        formats: of the segments, joined by `+`; the one of most planes has the longest loop, so its
            weights are what is counted.
        n_tokens: rows of the input.
        dtype: of the input.
        max_per_weight: see `Case`.
        rows: of the segments.
        load_bits: see `Case`.
    """
    n_rows = tuple(map(int, rows.split("+")))
    matrix = block_matrix(n_rows, (4096,), tuple(formats.split("+")))
    stored = [tensor for block in matrix for tensor in block.format.stored(block.shape).values()]
    tensors = [empty(*tensor.shape, dtype=getattr(torch, tensor.dtype)) for tensor in stored]
    launch = default_launch(n_tokens, matrix)
    word_bits = 32 if launch.kernel == "gemv" else packing.CONTAINER_BITS
    block = max(matrix, key=lambda block: len(block.compiled[-1]))
    # A round of the loop of gemm lasts as long as the words of the narrowest plane.
    n_tiles = n_rounds(block.compiled, launch.block_w) if launch.kernel == "gemm" else 1
    return Case(
        launch.kernel,
        lambda: run(empty(n_tokens, 4096, dtype=dtype), matrix, tensors),
        n_tiles * launch.block_n * launch.block_w * word_bits // block.compiled[-1][0][0],
        max_per_weight,
        load_bits=load_bits,
        hgmma=launch.kernel == "gemm",
    )


def decoding(format: str, max_per_weight: float) -> Case:
    """The weight of that product, written out in tiles of 32 rows and 32 containers."""
    matrix = block_matrix((14_336,), (4096,), (format,))
    block = next(iter(matrix))
    stored = block.format.stored(block.shape).values()
    tensors = [empty(*tensor.shape, dtype=getattr(torch, tensor.dtype)) for tensor in stored]
    n_weights = 32 * 32 * packing.CONTAINER_BITS // block.compiled[-1][0][0]
    return Case(
        "decode", lambda: decoded(matrix, tensors, torch.bfloat16), n_weights, max_per_weight,
        load_bits=32,
    )  # fmt: skip


def products() -> dict[str, Case]:
    """Of every width that a search chooses among, of one token and of sixteen; q, k and v mixed."""
    half, bf16, made = torch.float16, torch.bfloat16, {}
    limits = {2: (3.6, 3.3), 3: (4.2, 4.2), 4: (4, 4.1), 5: (4.8, 4.8), 6: (4.8, 4.8), 8: (5.6, 8)}
    for bits, (one, some) in limits.items():
        format = f"int{bits}_g128_sym"
        made[f"1 token {format} float16"] = product(format, 1, half, one)
        made[f"16 tokens {format} bfloat16"] = product(format, 16, bf16, some)
    made["16 tokens int4_g128 bfloat16"] = product("int4_g128", 16, bf16, 8)
    for format in ("int2_g64", "int4_g128", "nf4_g64", "mxfp4", "nvfp4"):
        made[f"1 token {format} bfloat16"] = product(format, 1, bf16, 9)
    for format, limit in {"nf4_g64": 11.5, "mxfp4": 6.2, "nvfp4": 11}.items():
        made[f"16 tokens {format} bfloat16"] = product(format, 16, bf16, limit)
    # Containers are bytes here, so that the load of as many is half as wide.
    made["16 tokens fp8_e4m3 bfloat16"] = product("fp8_e4m3", 16, bf16, 6.6, load_bits=64)
    mixed, rows = "int4_g128_sym+int2_g128_sym+int3_g128_sym", "4096+1024+1024"
    made["decoded int7_g128 bfloat16"] = decoding("int7_g128", 24)
    made["1 token mixed float16"] = product(mixed, 1, half, 4.8, rows)
    made["16 tokens mixed bfloat16"] = product(mixed, 16, bf16, 4.8, rows)
    return made


CASES = {
    "kl_divergence float32": Case("_kl_divergence", lambda: kl(torch.float32), 8192, 20, 96),
    "kl_divergence bfloat16": Case("_kl_divergence", lambda: kl(torch.bfloat16), 8192, 20, 96),
    "top_log_probs bfloat16": Case(
        "_top_log_probs", lambda: run_top_log_probs(*logits(torch.bfloat16)), 8192, 20, 96
    ),
    "rounding_errors": Case("_errors", lambda: errors(symmetric=False), 2048, 24, 64),
    "rounding_errors symmetric": Case("_errors", lambda: errors(symmetric=True), 2048, 24, 64),
    "round_to_codes": Case("_codes", lambda: codes(symmetric=False), 2048, 36, 64),
    "round_to_codes symmetric": Case("_codes", lambda: codes(symmetric=True), 2048, 36, 64),
    **products(),
}


if __name__ == "__main__":
    counts = {name: count(case) for name, case in CASES.items()}
    if "--record" in sys.argv:
        record(counts)
    print(json.dumps({name: dataclasses.asdict(found) for name, found in counts.items()}))
