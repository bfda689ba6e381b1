"""Latency of each layer in each format, from times that were measured on a device."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from bitfront import formats
from bitfront.costs.base import Cost, share_read
from bitfront.errors import InvalidArgument
from bitfront.space import SearchSpace
from bitfront.table import LayerTable
from bitfront.timings import LayerCall, RestOfStep, Shape, Timings, rest_digest

_REACH = 4.0
"""How far beyond the measured sizes a layer may be, as a factor of its bytes."""


@dataclass(frozen=True)
class Latency(Cost):
    """Nanoseconds of one decoding step, by a table that `bitfront profile` measured.

        latency_ns = rest of the step + sum over layers of t(shape, format, batch)

    A step gives each of `batch` sequences one token. Shapes that the table has are looked up. For
    others, time is interpolated within format and batch, linearly in the logarithms of time and of
    stored bytes; beyond the table's ends time grows at most as bytes do, and nothing is said of
    layers four times smaller or larger than those. The rest of the step (attention over the
    context, norms, embedding and head, launches) is what was measured of this very model at this
    batch and context, or `rest_ms`.

    A routed expert's time counts by the chance that some token of the batch goes through it, at the
    time that the whole batch takes there: an upper bound beyond one token.

    Prefer it to `roofline` wherever the device is at hand: which width is faster depends on the
    kernel, not on bytes alone.

    Table: `latency_ns`.

    Args:
        table: file of `bitfront profile`.
        batch: sequences that are decoded together.
        context: tokens that each has before the step.
        rest_ms: milliseconds of the rest of the step, where they are known otherwise.
    """

    table: str = ""
    batch: int = 1
    context: int = 2048
    rest_ms: float | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or self.context < 1:
            raise InvalidArgument(
                f"batch is {self.batch}, context {self.context}: give at least 1 each."
            )
        if self.rest_ms is not None and not self.rest_ms >= 0:
            raise InvalidArgument(f"rest_ms is {self.rest_ms}: give at least 0.")

    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """The table of a space.

        Raises:
            InvalidArgument: no file, or one without some format, the batch, shapes near those of
                the space, or the rest of the step; says what to run.
        """
        if not self.table:
            raise InvalidArgument(
                "The cost 'latency' needs a table: give latency:table=FILE, made with "
                "`bitfront profile MODEL --out FILE`."
            )
        if space.kv_cache is not None:
            raise InvalidArgument(
                "The cost 'latency' has no times of attention over a quantized KV cache: "
                "use roofline, or leave out kv_cache."
            )
        if many := next((x for x in space.layers if x.positions > 1), None):
            raise InvalidArgument(
                f"The cost 'latency' has times of decoding one token, and {many.name!r} multiplies "
                f"{many.positions} positions of an image: use bops or roofline."
            )
        timings = Timings.load(Path(self.table))
        values, timed = np.zeros(space.allowed.shape), self._timed(timings)
        for column, format in enumerate(space.formats):
            if not space.allowed[:, column].any():
                continue
            known = timed.get(format.name) or self._refuse(format.name, timed, space, timings)
            sizes = {shape: format.nbytes(shape) for shape in known}
            for row in np.flatnonzero(space.allowed[:, column]):
                layer = space.layers[row]
                shape = layer.shape
                ns = known.get(shape) or self._between(known, sizes, shape, format.name)
                ns *= share_read(layer, self.batch)
                values[row, column] = math.ceil(ns)
        outside = float(math.ceil(self._rest(timings, space)))
        note = f"{timings.device}, {timings.dtype}, measured {timings.date}"
        source = f"{self!r} of {timings.device}"
        return (LayerTable(space, values, "latency_ns", source, note=note, outside=outside),)

    def _timed(self, timings: Timings) -> dict[str, dict[Shape, float]]:
        """Measured nanoseconds at this batch, by format and shape."""
        made: dict[str, dict[Shape, float]] = {}
        for key, timing in timings.entries.items():
            if isinstance(key, LayerCall) and key.batch == self.batch:
                made.setdefault(key.format, {})[key.shape] = timing.ns
        return made

    def _refuse(
        self, format: str, timed: Collection[str], space: SearchSpace, timings: Timings
    ) -> NoReturn:
        columns = np.flatnonzero(np.any(space.allowed, axis=0))
        wanted = [space.formats[column].name for column in columns]
        missing = ",".join(name for name in wanted if name not in timed)
        raise InvalidArgument(
            f"{self.table} has no time of {format} at batch {self.batch}: run `bitfront "
            f"profile MODEL --formats {missing} --batch {self.batch} --context {self.context} "
            f"--out {self.table}` on {timings.device}."
        )

    def _between(
        self, known: Mapping[Shape, float], sizes: Mapping[Shape, int], shape: Shape, format: str
    ) -> float:
        size = formats.named(format).nbytes(shape)
        if not min(sizes.values()) / _REACH <= size <= max(sizes.values()) * _REACH:
            raise InvalidArgument(
                f"{self.table} has no time of {format} at batch {self.batch} near a layer of "
                f"{shape[0]}x{shape[1]}: run `bitfront profile` on a model with such layers, or "
                f"with --shapes {shape[0]}x{shape[1]}."
            )
        return interpolated(known, sizes, size)

    def _rest(self, timings: Timings, space: SearchSpace) -> float:
        if self.rest_ms is not None:
            return 1e6 * self.rest_ms
        rest = RestOfStep(rest_digest(space), self.batch, self.context)
        if rest not in timings.entries:
            raise InvalidArgument(
                f"{self.table} has no time of the rest of this model at batch {self.batch}, "
                f"context {self.context}: run `bitfront profile MODEL --batch {self.batch} "
                f"--context {self.context} --out {self.table}` with the same --pin, or give "
                "latency:rest_ms=MS."
            )
        return timings.entries[rest].ns


def interpolated(known: Mapping[Shape, float], sizes: Mapping[Shape, int], size: float) -> float:
    """Nanoseconds at a size in bytes, from times of shapes; log-log, see `Latency`.

    Args:
        known: nanoseconds by shape, at least one.
        sizes: stored bytes of the same shapes.
        size: bytes of the layer that is asked for.
    """
    at = np.array(sorted(set(sizes.values())), dtype=np.float64)
    logs = np.array([np.mean([np.log(known[s]) for s in known if sizes[s] == b]) for b in at])
    x, places = np.log(size), np.log(at)
    # Time rises with size: a launch costs the same at least, and no layer outpaces its bytes.
    steep = np.clip(np.diff(logs) / np.diff(places), 0.0, 1.0) if len(at) > 1 else np.ones(1)
    if x < places[0]:
        return float(np.exp(logs[0] + (x - places[0]) * (steep[0] if len(at) > 1 else 0.0)))
    if x > places[-1]:
        return float(np.exp(logs[-1] + (x - places[-1])))
    return float(np.exp(np.interp(x, places, logs)))
