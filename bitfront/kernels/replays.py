"""Seconds of work on a GPU: as a CUDA graph replays it, over weights that its cache has not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

Call = Callable[[], object]

ROTATED_BYTES = 256 * 2**20
"""What calls go round before they come to a weight again: four times the L2 cache of an H200."""
MIN_SETS, MAX_SETS = 3, 2048
_MIN_CALLS = 20
"""Calls of a replay at least: its own launch, and reading the clock, count little beside them."""
_WARM_UP = 3


def n_sets(n_bytes: int, rotated_bytes: int = ROTATED_BYTES, at_least: int = MIN_SETS) -> int:
    """Copies of a weight in turn, so that none is still in the cache when it comes again.

    At most 2,048: of weights below 32 KiB some are, but there launching is what takes the time.

    Args:
        n_bytes: of the weight.
        rotated_bytes: what the copies hold together.
        at_least: copies of a weight that is larger than the cache itself.

    >>> n_sets(8_650_752), n_sets(10**9), n_sets(1)
    (32, 3, 2048)
    """
    return max(at_least, min(MAX_SETS, math.ceil(rotated_bytes / max(n_bytes, 1))))


def weight_sets(tensors: Sequence[torch.Tensor]) -> Iterator[Sequence[torch.Tensor]]:
    """The tensors of a weight, then as many copies as rotate past the cache."""
    yield tensors
    for _ in range(n_sets(sum(tensor.nbytes for tensor in tensors)) - 1):
        yield [tensor.clone() for tensor in tensors]


class Launches:
    """Calls in turn, each launched from Python, timed by events of the GPU.

    Args:
        calls: alike, each on data of its own; shapes are fixed, nothing waits for the device. They
            run here once and a little more, so that what compiles has compiled.
        undo: runs after all of them and is not timed, also after a capture, which has changed what
            Python holds but nothing on the device; without it calls go round until there are 20.
    """

    def __init__(self, calls: Sequence[Call], undo: Call | None = None) -> None:
        n_calls = len(calls) if undo else max(len(calls), _MIN_CALLS)
        self.calls = [calls[index % len(calls)] for index in range(n_calls)]
        self._undo = undo or (lambda: None)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in (*calls, *(calls[0] for _ in range(_WARM_UP))):
                call()
                self._undo()
        torch.cuda.current_stream().wait_stream(side)

    def run(self) -> None:
        """Every call once."""
        for call in self.calls:
            call()

    def seconds(self) -> float:
        """Of one call, the mean over one run."""
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        self.run()
        after.record()
        after.synchronize()
        self._undo()
        return float(before.elapsed_time(after)) / 1e3 / len(self.calls)


class Graph(Launches):
    """The same calls captured as one CUDA graph, so that launching from Python does not count.

    Raises:
        RuntimeError: a call cannot be captured.
    """

    def __init__(self, calls: Sequence[Call], undo: Call | None = None) -> None:
        super().__init__(calls, undo)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                super().run()
        finally:
            self._undo()

    def run(self) -> None:
        """Every call once, in one launch."""
        self._graph.replay()
