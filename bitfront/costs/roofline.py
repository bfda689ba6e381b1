"""Predicted latency of each layer in each format, from the figures of a named device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitfront.costs.base import Cost, share_read
from bitfront.errors import InvalidArgument
from bitfront.formats._elements import E4m3, Float4, Float6, Integers
from bitfront.formats.base import Format
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable

DEVICES: dict[str, tuple[float, float]] = {
    "b200": (8e12, 2250e12),
    "h200": (4.8e12, 989e12),
    "h100": (3.35e12, 989e12),
    "a100": (2.039e12, 312e12),
    "l4": (0.3e12, 121e12),
    "rtx4090": (1.008e12, 165e12),
    "cpu": (40e9, 1e12),
}
"""Bytes per second of memory and dense bf16 operations per second, by device.

Makers' data sheets: NVIDIA HGX B200, H200 and H100 SXM, A100 80 GB SXM, L4 and RTX 4090 (Ada
whitepaper, tensor cores with fp32 accumulation); `cpu` is two channels of DDR4 and some desktop
cores.
"""

NARROW: dict[str, dict[tuple[str, int], float]] = {
    "b200": {("int", 8): 4500e12, ("float", 8): 4500e12, ("float", 4): 9000e12},
    "h200": {("int", 8): 1979e12, ("float", 8): 1979e12},
    "h100": {("int", 8): 1979e12, ("float", 8): 1979e12},
    "a100": {("int", 8): 624e12, ("int", 4): 1248e12},
    "l4": {("int", 8): 242e12, ("float", 8): 242e12},
    "rtx4090": {("int", 8): 660e12, ("int", 4): 1321e12, ("float", 8): 330e12},
}
"""Dense operations per second of narrower units, by kind and bits of numbers; same sources."""


@dataclass(frozen=True)
class Roofline(Cost):
    """Nanoseconds of one decoding step: the longer of reading the weights and computing with them.

        latency_ns = rest + sum over layers of ceil(1e9 max(stored bytes / bandwidth,
                                                           2 batch positions weights / rate))

    A step is one token of each sequence; or one image of each of a batch, where each weight is
    multiplied at every position (see `Layer`). A routed expert's bytes count by the chance that
    some token of the batch goes through it, its operations by the share of tokens that do.

    The rate is that of bf16, unless the format is a pair whose weights and inputs are both numbers
    of a narrower unit: then that of the wider of the two. Weights that are neither evenly spaced
    nor small floats (tables, grids) are decoded, and multiplied in bf16.

    Williams et al., Roofline (2009). It knows neither launches nor how well a kernel does: a lower
    bound that ranks formats by what they must read, for devices that are not at hand; `latency` is
    measured. The rest is `rest_ms` and what reading a pinned head takes (of embedding and head of
    one shape, the head). Costs nothing; at a batch beyond some hundred tokens all formats cost the
    same. A searched KV cache is read once a step, at the batch and context of the study's caches.

    Table: `latency_ns`.

    Args:
        device: name of `DEVICES`.
        batch: sequences that are decoded together.
        rest_ms: milliseconds of all that is neither a searched layer nor the head, attention over
            the context too.
    """

    device: str = "h100"
    batch: int = 1
    rest_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InvalidArgument(f"Unknown device {self.device!r}: use {', '.join(DEVICES)}.")
        if self.batch < 1:
            raise InvalidArgument(f"batch is {self.batch}: give at least 1.")
        if not self.rest_ms >= 0:
            raise InvalidArgument(f"rest_ms is {self.rest_ms}: give at least 0.")

    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """The table of a space."""
        values = np.zeros(space.allowed.shape)
        for row, layer in enumerate(space.layers):
            for column in np.flatnonzero(space.allowed[row]):
                values[row, column] = self._ns(space, layer, space.formats[column])
        heads = {x.shape: self._ns(space, x, format) for x, format in space.pinned}
        outside = math.ceil(1e6 * self.rest_ms) + sum(heads.values())
        source = repr(self)
        return (LayerTable(space, values, "latency_ns", source, outside=float(outside)),)

    def _ns(self, space: SearchSpace, layer: Layer, format: Format) -> int:
        bandwidth, _ = DEVICES[self.device]
        reading = share_read(layer, self.batch) * space.nbytes(layer, format) / bandwidth
        products = layer.n_weights * layer.active * layer.positions
        computing = 2 * self.batch * products / self._rate(format)
        return math.ceil(1e9 * max(reading, computing))

    def _rate(self, format: Format) -> float:
        """Operations per second of the fastest unit that holds both weights and inputs."""
        _, rate = DEVICES[self.device]
        unit = _narrowest(format)
        if unit is None:
            return rate
        kind, bits = unit
        wide = [r for (k, b), r in NARROW.get(self.device, {}).items() if k == kind and b >= bits]
        return max(wide, default=rate)


def _narrowest(format: Format) -> tuple[str, int] | None:
    """Kind and bits of the least unit that multiplies a pair; `None` where it must be bf16."""
    inputs, weight = format.input_format, format.base
    if inputs is None:
        return None
    bits = max(weight.num_bits, inputs.num_bits)
    if isinstance(weight, Integers) and isinstance(inputs.grid, Integers):
        return "int", bits
    if isinstance(inputs.grid, Integers):
        return None
    if isinstance(weight, (E4m3, Float4, Float6)):
        return "float", bits
    # -8 to 7 are numbers of e4m3, but not of e2m1.
    return ("float", 8) if isinstance(weight, Integers) and weight.num_bits <= 4 else None
