"""SearchSpace: which layers get a format of their own, and which formats each may take."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.base import Format
from bitfront.kv_cache import KVCache

MAX_FORMATS = 256
"""A choice is kept as one byte a group."""


@dataclass(frozen=True)
class Layer:
    """The smallest part of a model that gets one format.

    Args:
        name: module name in the model, such as `"model.layers.0.self_attn.q_proj"`; of keys and
            values that the module of a block caches, with `.k_cache` or `.v_cache` behind it.
        shape: `(out_features, in_features)`; rows share nothing, groups run along columns. Of a
            cache, `(channels of all heads, tokens of a context)`.
        group: layers of the same group share a format (engines fuse q/k/v and gate/up).
        block: index of the transformer block; -1 outside the blocks.
        kind: what the layer does in its block, such as `"self_attn.q_proj"`; the experts of a block
            are of one kind. Outside the blocks a layer is, if nothing is said, a kind of its own.
        active: share of the tokens that go through it: below 1 for a routed expert, whose share is
            taken as that of every other.
        positions: how often one sample is multiplied by it: once a token of a text; of an image
            once for each patch, or each position of a convolution's output.
    """

    name: str
    shape: tuple[int, int]
    group: str
    # No part of `repr`, which a study's identity hashes: measured values do not depend on them.
    block: int = field(default=-1, repr=False)
    kind: str = field(default="", repr=False)
    active: float = field(default=1.0, repr=False)
    positions: int = field(default=1, repr=False)

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.name)

    @property
    def cache(self) -> str:
        """`"k"` or `"v"` where it is the keys or the values that a block caches, else empty."""
        end = self.name.rpartition(".")[2]
        return end[0] if end in {"k_cache", "v_cache"} else ""

    @property
    def n_weights(self) -> int:
        """Number of weights; a cache has none."""
        return 0 if self.cache else self.n_numbers

    @property
    def n_numbers(self) -> int:
        """Numbers that have the format: weights, or what is cached of one sequence."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class SearchSpace:
    """Layers x formats, what is allowed, and what of the model stays outside the search.

    Args:
        layers: the searched layers: rows of every table.
        formats: the menu: columns of every table.
        pinned: layers quantized to a fixed format, outside the search (embedding and head).
        fixed_bytes: bytes of the tensors that are never quantized (norms, biases).
        barred: kind and shape of layers with the name of a format of the menu that the runtime of
            the study cannot load there.
        kv_cache: what the layers that are caches may be; `None` where none is.
        cache_only: names of the formats of the menu that only caches may take.

    Raises:
        InvalidArgument: no layers, no formats, repeated names, or a layer that no format fits.
    """

    layers: tuple[Layer, ...]
    formats: tuple[Format, ...]
    pinned: tuple[tuple[Layer, Format], ...] = ()
    fixed_bytes: int = 0
    barred: tuple[tuple[str, tuple[int, int], str], ...] = ()
    kv_cache: KVCache | None = None
    cache_only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers or not self.formats:
            raise InvalidArgument("A search space needs at least one layer and one format.")
        if len(self.formats) > MAX_FORMATS:
            raise InvalidArgument(
                f"A menu has at most {MAX_FORMATS} formats, not {len(self.formats)}: "
                "leave out those that are close to others."
            )
        _distinct("format", [f.name for f in self.formats])
        _distinct("layer", [x.name for x in (*self.layers, *(p for p, _ in self.pinned))])
        stuck = np.flatnonzero(~self.group_allowed.any(axis=1))
        if stuck.size:
            first = self.layers[self.groups[stuck[0]][0]]
            where = ", or none that may stand there," if self.barred else ""
            raise InvalidArgument(
                f"No format of the menu{where} fits layer {first.name!r} of shape {first.shape}: "
                f"given {', '.join(f.name for f in self.formats)}. "
                "Add a format with a smaller group, a channel format, or bf16."
            )

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the layers of each group, in order of first appearance."""
        members: dict[str, list[int]] = {}
        for index, layer in enumerate(self.layers):
            members.setdefault(layer.group, []).append(index)
        return tuple(tuple(indices) for indices in members.values())

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether a format fits a layer's shape and is not barred, `[n_layers, n_formats]`."""
        fits = {x: [f.fits(x) for f in self.formats] for x in shapes(self.layers)}
        allowed = np.array([fits[x.shape] for x in self.layers], dtype=bool)
        allowed &= [f.name not in self.cache_only for f in self.formats]
        if (cache := self.kv_cache) is not None:
            for row, x in enumerate(self.layers):
                if x.cache:
                    allowed[row] = [cache.fits(x.cache, x.shape[0], f) for f in self.formats]
        barred = {bar[:2] for bar in self.barred}
        names = set(self.barred)
        for row, layer in enumerate(self.layers):
            if (layer.kind, layer.shape) in barred:
                keys = ((layer.kind, layer.shape, f.name) for f in self.formats)
                allowed[row] &= [key not in names for key in keys]
        return allowed

    @cached_property
    def group_allowed(self) -> NDArray[np.bool_]:
        """Whether a format fits every layer of a group, `[n_groups, n_formats]`."""
        return self.combine(self.allowed, np.logical_and)

    @cached_property
    def _by_group(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Layer indices by group, `[n_layers]`, and where each group begins, `[n_groups]`."""
        order = np.array([index for group in self.groups for index in group])
        return order, np.cumsum([0, *(len(group) for group in self.groups[:-1])])

    @cached_property
    def group_of(self) -> NDArray[np.int64]:
        """Index of each layer's group, `[n_layers]`."""
        order, _ = self._by_group
        row = np.empty(len(order), dtype=np.int64)
        row[order] = np.repeat(np.arange(len(self.groups)), [len(group) for group in self.groups])
        return row

    def combine(self, values: NDArray[Any], operation: np.ufunc) -> NDArray[Any]:
        """Rows `[n_layers, n_formats]` reduced to `[n_groups, n_formats]` by a binary operation."""
        order, starts = self._by_group
        rows: NDArray[Any] = operation.reduceat(values[order], starts, axis=0)
        return rows

    @property
    def n_weights(self) -> int:
        """Weights of the searched layers: the denominator of bits per weight."""
        return sum(x.n_weights for x in self.layers)

    @cached_property
    def of_weights(self) -> SearchSpace:
        """The same without the caches: what has weights in the model."""
        if self.kv_cache is None:
            return self
        return replace(self, layers=tuple(x for x in self.layers if not x.cache), kv_cache=None)

    def is_cache(self, name: str) -> bool:
        """Whether a name is that of keys or values that a block caches."""
        return name in self._caches

    @cached_property
    def _caches(self) -> frozenset[str]:
        return frozenset(x.name for x in self.layers if x.cache)

    def nbytes(self, layer: Layer, format: Format) -> int:
        """Exact bytes of a layer in a format: on disk, or of a cache in memory."""
        if layer.cache and self.kv_cache is not None:
            return self.kv_cache.nbytes(layer.cache, layer.shape[0], format)
        return format.nbytes(layer.shape)

    @property
    def cache_bytes_at_16_bits(self) -> int:
        """Bytes of all caches as they are without quantization; 0 where none is searched."""
        cache = self.kv_cache
        n_tokens = cache.batch * cache.context if cache else 0
        return sum(2 * x.shape[0] * n_tokens for x in self.layers if x.cache)

    @property
    def outside_bytes(self) -> int:
        """Bytes that the search cannot change: pinned layers and fixed tensors."""
        return self.fixed_bytes + sum(f.nbytes(x.shape) for x, f in self.pinned)

    def column(self, format_name: str) -> int:
        """Index of a format of the menu.

        Raises:
            InvalidArgument: the menu lacks it.
        """
        if format_name not in self._columns:
            menu = ", ".join(self._columns)
            raise InvalidArgument(f"Format {format_name!r} is not on the menu: {menu}.")
        return self._columns[format_name]

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Format name to its index on the menu."""
        return {format.name: index for index, format in enumerate(self.formats)}

    def decode(
        self, choice: Sequence[int] | NDArray[np.integer[Any]], digest: str | None = None
    ) -> Allocation:
        """Allocation of the whole model from one format index per group.

        Args:
            choice: the indices, `[n_groups]`.
            digest: that of the allocation where it is known: finding it takes a millisecond for
                2,000 layers.

        Raises:
            ValueError: not one index per group, or one that the menu lacks.
        """
        columns = np.asarray(choice)
        n_formats = len(self.formats)
        if len(columns) != len(self.groups) or not ((columns >= 0) & (columns < n_formats)).all():
            raise ValueError(f"Not {len(self.groups)} indices below {n_formats}: {choice!r}.")
        made = Allocation(_Formats(self, columns.astype(np.uint8).tobytes()))
        if digest is not None:
            vars(made)["digest"] = digest  # where the cached property looks first
        return made

    @cached_property
    def _pinned_formats(self) -> dict[str, str]:
        return {layer.name: format.name for layer, format in self.pinned}

    @cached_property
    def _group_by_name(self) -> dict[str, int]:
        """Index of the group of each searched layer."""
        rows = ((self.layers[i].name, g) for g, group in enumerate(self.groups) for i in group)
        return dict(rows)

    def encode(self, allocation: Allocation) -> NDArray[np.int64]:
        """Format index of each group, `[n_groups]`.

        Raises:
            InvalidArgument: a layer is missing, its format is not on the menu or does not fit,
                or the layers of one group differ.
        """
        formats = allocation.formats
        if isinstance(formats, _Formats) and formats.space.digest == self.digest:
            choice = np.frombuffer(formats.columns, np.uint8).astype(np.int64)
            if self.group_allowed[np.arange(len(choice)), choice].all():
                return choice
        # Searches ask again for every trial of their history.
        if allocation.digest not in self._encoded:
            self._encoded[allocation.digest] = self._choice(allocation).astype(np.int16)
        return self._encoded[allocation.digest].astype(np.int64)

    @cached_property
    def _encoded(self) -> dict[str, NDArray[np.int16]]:
        """Choices by the digest of their allocation."""
        return {}

    def _choice(self, allocation: Allocation) -> NDArray[np.int64]:
        names = [allocation.formats.get(layer.name) for layer in self.layers]
        known: dict[str | None, int] = {x: self.column(x) for x in set(names) if x is not None}
        columns = np.array([known.get(name, -1) for name in names])
        order, starts = self._by_group
        first = columns[order[starts]]
        split = (self.combine(columns, np.minimum) != self.combine(columns, np.maximum)) | (
            first < 0
        )
        misfit = ~split & ~self.group_allowed[np.arange(len(first)), first]
        for row in np.flatnonzero(split | misfit)[:1]:
            layer = self.layers[self.groups[row][0]].name
            if split[row]:
                raise InvalidArgument(
                    f"The allocation gives the group of {layer!r} no single format."
                )
            format = self.formats[first[row]].name
            raise InvalidArgument(f"Format {format!r} does not fit layer {layer!r}.")
        return first

    def uniform(self, column: int) -> NDArray[np.int64]:
        """One format everywhere, `[n_groups]`; where it does not fit, the next larger that does."""
        bits = np.array([f.bits_per_weight((128, 128)) for f in self.formats])
        allowed = self.group_allowed
        distance = np.abs(bits - bits[column])
        # larger formats come first: any smaller one is farther than all of them
        distance = np.where(bits >= bits[column], distance, distance + bits.max())
        distance[column] = -1.0
        choice: NDArray[np.int64] = np.where(allowed, distance, np.inf).argmin(axis=1)
        return choice

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it back."""
        fields: dict[str, Any] = {
            "layers": [_row(x) for x in self.layers],
            "formats": [f.name for f in self.formats],
            "pinned": [(_row(x), f.name) for x, f in self.pinned],
            "fixed_bytes": self.fixed_bytes,
        }
        if self.barred:  # without it a space has the digest that it had before there were any
            fields["barred"] = self.barred
        if self.kv_cache is not None:
            fields["kv_cache"] = self.kv_cache.to_fields()
        if self.cache_only:
            fields["cache_only"] = self.cache_only
        return json.dumps(fields, indent=1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `to_json`, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> SearchSpace:
        """Inverse of `to_json`; what is no such JSON raises what reading it happens to raise."""
        fields = json.loads(text)
        return cls(
            tuple(_layer(row) for row in fields["layers"]),
            tuple(named(name) for name in fields["formats"]),
            tuple((_layer(row), named(name)) for row, name in fields["pinned"]),
            fields["fixed_bytes"],
            tuple((str(k), (int(n), int(m)), str(f)) for k, (n, m), f in fields.get("barred", ())),
            KVCache.from_fields(fields["kv_cache"]) if "kv_cache" in fields else None,
            tuple(map(str, fields.get("cache_only", ()))),
        )


class _Formats(Mapping[str, str]):
    """Formats by layer name, held as one byte a group: a history has thousands of them."""

    def __init__(self, space: SearchSpace, columns: bytes) -> None:
        self.space = space
        self.columns = columns

    def __getitem__(self, name: str) -> str:
        group = self.space._group_by_name.get(name)
        if group is None:
            return self.space._pinned_formats[name]
        return self.space.formats[self.columns[group]].name

    def __iter__(self) -> Iterator[str]:
        return chain(self.space._pinned_formats, self.space._group_by_name)

    def __len__(self) -> int:
        return len(self.space.pinned) + len(self.space.layers)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Formats) and other.space.digest == self.space.digest:
            return self.columns == other.columns
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as any mapping's

    def __repr__(self) -> str:
        return repr(dict(self))


def _row(layer: Layer) -> list[object]:
    row = [layer.name, layer.shape, layer.group, layer.block, layer.kind]
    more = [layer.active, layer.positions]
    # Without them a space has the digest that it had before there were any.
    return row + more[: 2 if layer.positions != 1 else int(layer.active != 1.0)]


def _layer(row: list[Any]) -> Layer:
    # Folders written before layers knew their places have none; the next search adds them.
    name, (rows, columns), group, *rest = row
    block, kind, active, n = rest + [-1, "", 1.0, 1][len(rest) :]
    return Layer(str(name), (int(rows), int(columns)), str(group), int(block), str(kind), active, n)


def _distinct(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        repeated = sorted({n for n in names if names.count(n) > 1})
        raise InvalidArgument(f"Repeated {what} names: {', '.join(repeated)}. Name each once.")


def shapes(layers: Sequence[Layer]) -> Mapping[tuple[int, int], int]:
    """How many layers have each shape."""
    return Counter(layer.shape for layer in layers)
