"""Measure launches of `dequant_matmul` on the device at hand and save the fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from statistics import median

import torch

from bitfront.errors import InvalidArgument
from bitfront.kernels._blocks import BlockMatrix
from bitfront.kernels.dequant_matmul import reference, run
from bitfront.kernels.launches import MOST_TOKENS, Launch, case, default_launch, save
from bitfront.kernels.replays import Call, Graph, weight_sets

MAX_ERROR = {torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Difference from the reference relative to its norm; beyond it a launch is not taken."""
_N_REPLAYS = 20


def candidates(n_tokens: int, matrix: BlockMatrix) -> Iterator[Launch]:
    """The default launch and its neighbours, some seventy at most."""
    default = default_launch(n_tokens, matrix)
    yield default
    if default.kernel == "gemv":
        for block_n, num_warps, splits in product((2, 4, 8), (1, 2, 4, 8), (1, 2, 4)):
            yield Launch("gemv", 1, block_n, 128 * num_warps, splits, num_warps)
    if n_tokens >= MOST_TOKENS // 4:
        yield Launch("decode")
    block_m = max(16, default.block_m)
    widths = {16, min(32, max(16, min(block.run_columns for block in matrix)))}
    for block_w, block_n, splits, stages in product(widths, (64, 128), (1, 2, 4, 8), (3, 4)):
        yield Launch("gemm", block_m, block_n, block_w, splits, 4, stages)


def seconds(calls: Sequence[Call]) -> float:
    """Median time of one of these calls on the GPU, replayed as a graph."""
    graph = Graph(calls)
    return median(graph.seconds() for _ in range(_N_REPLAYS))


def tune(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    launches: Iterable[Launch] = (),
    measure: Callable[[Sequence[Call]], float] = seconds,
    device: str = "",
) -> Launch:
    """The fastest launch for a product, saved for this machine's later runs.

    Each is timed on copies of the weight that together exceed the cache, as a model reads its
    weights: a launch that is the fastest on a warm one need not be that.

    Args:
        x: activations of the batch that counts, on the device.
        matrix: cuts and formats of the weight.
        tensors: its stored tensors.
        launches: what to try; by default `candidates`.
        measure: seconds of a call, given calls that are alike but for their copy of the weight.
        device: name to save under; by default that of the GPU.

    Raises:
        InvalidArgument: no launch runs and gives the right numbers.
    """
    n_tokens = x.numel() // x.shape[-1]
    tuned = case(n_tokens, matrix, str(x.dtype).removeprefix("torch."))
    wanted = reference(x, matrix, tensors).float()
    sets = list(weight_sets(tensors))
    times: dict[Launch, float] = {}
    for launch in dict.fromkeys(launches or candidates(n_tokens, matrix)):
        try:
            out = run(x, matrix, tensors, launch=launch)
        except Exception as error:  # what a launch asks for can be more than a device has
            if "out of resource" not in str(error):
                raise
            continue
        if (out.float() - wanted).norm() <= MAX_ERROR[x.dtype] * wanted.norm():
            times[launch] = measure([_call(x, matrix, each, launch) for each in sets])
    if not times:
        raise InvalidArgument(f"No launch multiplies {tuned} on this device: run it on the CPU.")
    best = min(times, key=times.__getitem__)
    save(device or torch.cuda.get_device_name(x.device), {tuned: best})
    return best


def _call(
    x: torch.Tensor, matrix: BlockMatrix, tensors: Sequence[torch.Tensor], launch: Launch
) -> Call:
    return lambda: run(x, matrix, tensors, launch=launch)
