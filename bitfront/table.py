"""LayerTable: one number per (layer, format); sensitivities and costs are the same type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.space import SearchSpace


@dataclass(frozen=True, eq=False)
class LayerTable:
    """A quantity for every layer in every format of a space.

    Args:
        space: what the rows and columns are.
        values: float64 `[n_layers, n_formats]`; entries where the format does not fit are ignored.
        quantity: name of the sum over layers, such as `"kl"` or `"bytes"`.
        source: what made it: `repr` of the plug-in and digests of its inputs.
        reduction: how layers of one group combine: `"sum"` for energies, nats and bytes,
            `"max"` for relative errors.
        outside: what the rest of the model adds to every sum, in the same units.
        note: what its maker found besides, for people to read: a formula, standard errors.

    Raises:
        InvalidArgument: wrong shape or reduction.
        NonFinite: NaN or infinity where the format fits.
    """

    space: SearchSpace
    values: NDArray[np.float64]
    quantity: str
    source: str = ""
    reduction: str = "sum"
    note: str = ""
    outside: float = 0.0

    def __post_init__(self) -> None:
        expected = (len(self.space.layers), len(self.space.formats))
        if self.values.shape != expected:
            raise InvalidArgument(
                f"Table {self.quantity!r} has shape {self.values.shape}, "
                f"its space needs {expected}."
            )
        if self.reduction not in {"sum", "max"}:
            raise InvalidArgument(f"Unknown reduction {self.reduction!r}: use 'sum' or 'max'.")
        bad = ~np.isfinite(self.values) & self.space.allowed
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise NonFinite(
                f"Table {self.quantity!r} of {self.source or 'unknown source'} is not finite at "
                f"layer {self.space.layers[row].name!r}, "
                f"format {self.space.formats[column].name!r}: check weights and text."
            )

    @classmethod
    def read(cls, file: BinaryIO, space: SearchSpace) -> LayerTable:
        """A table of a space, from the `.npz` that `Results.save_table` writes; never unpickles."""
        with np.load(file, allow_pickle=False) as stored:
            return cls(
                space,
                stored["values"],
                str(stored["quantity"]),
                str(stored["source"]),
                str(stored["reduction"]),
                str(stored.get("note", "")),
                float(stored.get("outside", 0.0)),
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what it says, in hexadecimal."""
        said = np.where(self.space.allowed, self.values, 0.0).astype("<f8").tobytes()
        return hashlib.sha256(repr((self.quantity, self.outside)).encode() + said).hexdigest()

    @cached_property
    def grouped(self) -> NDArray[np.float64]:
        """Rows combined per group, `[n_groups, n_formats]`; infinite where not allowed."""
        values = np.where(self.space.allowed, self.values, np.inf)
        operation = np.add if self.reduction == "sum" else np.maximum
        return np.where(self.space.group_allowed, self.space.combine(values, operation), np.inf)

    def total(self, choice: NDArray[np.int64]) -> float:
        """Sum over groups at the chosen formats, `choice [n_groups]`."""
        return float(self.grouped[np.arange(len(choice)), choice].sum())
