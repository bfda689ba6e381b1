"""Times of GPU work as captured CUDA graphs replay it, and what the device can do at most."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import triton
from products import Ceiling

from bitfront.kernels.replays import Graph, Launches

Key = TypeVar("Key", bound=Hashable)

N_REPLAYS = 30
_GIB = 2**30


@dataclass(frozen=True)
class Times:
    """Seconds of one call, over replays.

    Args:
        median: of all replays.
        low: tenth percentile.
        high: ninetieth percentile.
    """

    median: float
    low: float
    high: float


def interleaved(graphs: Mapping[Key, Launches], n_replays: int = N_REPLAYS) -> dict[Key, Times]:
    """Times of several graphs that replay in turn, so that clocks and heat are equal for all."""
    samples: dict[Key, list[float]] = {name: [] for name in graphs}
    for graph in graphs.values():
        graph.seconds()
    for _ in range(n_replays):
        for name, graph in graphs.items():
            samples[name].append(graph.seconds())
    return {name: summary(found) for name, found in samples.items()}


def summary(samples: Sequence[float]) -> Times:
    """Median, tenth and ninetieth percentile.

    >>> summary([3.0, 1.0, 2.0])
    Times(median=2.0, low=1.2, high=2.8)
    """
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    return Times(statistics.median(samples), round(tenths[0], 12), round(tenths[-1], 12))


def ceiling() -> Ceiling:
    """Measured reading, multiplying and launching; the first thing a run does."""
    words = torch.randn(2 * _GIB // 4, device="cuda")  # 2 GiB, far past the cache
    half = words.view(2, -1)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    graphs = {
        "sum": Graph([lambda: words.sum()]),
        "max": Graph([lambda: words.amax()]),
        "copy": Graph([lambda: half[0].copy_(half[1])]),
        "product": Graph([lambda: square @ square]),
        "launch": Graph([lambda: _nothing[(1,)]()]),
    }
    times = interleaved(graphs)
    reads = [words.nbytes / times[name].median for name in ("sum", "max", "copy")]
    compute = 2 * 8192**3 / times["product"].median
    return Ceiling(max(reads), compute, times["launch"].median)


@triton.jit
def _nothing():
    pass


def clock() -> str:
    """Clock of the multiprocessors in MHz as the driver reports it; empty where it does not."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
