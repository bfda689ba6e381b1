"""Budget: what the result may weigh, how long a token may take, or both."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from bitfront.errors import InvalidArgument
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

_UNITS: dict[str, tuple[str, float]] = {
    "bits": ("bits", 1.0),
    "bpw": ("bits_per_weight", 1.0),
    **{unit: ("bytes", size) for unit, size in (("B", 1.0), ("KB", 1e3), ("MB", 1e6))},
    **{unit: ("bytes", size) for unit, size in (("GB", 1e9), ("KiB", 2.0**10), ("MiB", 2.0**20))},
    "GiB": ("bytes", 2.0**30),
    **{unit: ("latency_ns", size) for unit, size in (("us", 1e3), ("ms", 1e6), ("s", 1e9))},
    **{unit: ("bops", size) for unit, size in (("Gbops", 1e9), ("Tbops", 1e12))},
}
"""Value of a trial that a unit bounds, and how much of it one is."""
_TABLES = {"bits": "code_bits", "bits_per_weight": "bytes"}
"""Quantity of the cost table, where it is not that of the trial."""
_MAKERS = {
    "latency_ns": {"latency": "latency:table=FILE", "roofline": "roofline:device=NAME"},
    "bops": {"bops": "bops"},
}
"""Costs that make the tables which not every study has, and how they are written."""
_BUDGET = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]+)\s*(?:@b([0-9]+)(?:c([0-9]+))?\s*)?")
_EXAMPLES = "such as 3.5bpw or 60MB, 12ms@b1c2048, or several with commas between"


@dataclass(frozen=True)
class Budget:
    """How large and how slow the result may be.

    `bits`: average code bits over the searched layers, as papers count.
    `bpw`: average stored bits over the searched layers, scales, zero points and padding included.
    `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB`: every tensor of the checkpoint, and
    the KV cache where a study searches its formats; the other two are of weights alone.
    `us`, `ms`, `s`: one decoding step of the whole model, by the study's cost of latency. A step
    gives each of `batch` sequences its next token, so this is time per token as a user sees it.
    `Gbops`, `Tbops`: bit operations a token over the searched layers, by the cost `bops`.

    >>> Budget.parse("3.5bpw").unit
    'bpw'
    >>> str(Budget.parse("12 ms@b1c2048, 60MB"))
    '12ms@b1c2048,60MB'

    Args:
        value: how many.
        unit: of what.
        batch: sequences that a step decodes together, of a time only; `None` leaves it to the cost.
        context: tokens that each sequence has before the step, of a time only.
        others: budgets that must be met too, each of another quantity.
    """

    value: float
    unit: str
    batch: int | None = None
    context: int | None = None
    others: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        if self.unit not in _UNITS or not (math.isfinite(self.value) and self.value > 0):
            raise InvalidArgument(
                f"Cannot use budget {self.value}{self.unit}: give a positive number and one of "
                f"{', '.join(_UNITS)}, {_EXAMPLES}."
            )
        stated = [x for x in (self.batch, self.context) if x is not None]
        if stated and (self.quantity != "latency_ns" or min(stated) < 1):
            raise InvalidArgument(
                f"Cannot use budget {self}: batch and context are of a time and at least 1, "
                "as in 12ms@b1c2048."
            )
        given = [each.quantity for each in self]
        for quantity in given:
            if given.count(quantity) > 1:
                raise InvalidArgument(f"Cannot use budget {self}: it bounds {quantity} twice.")

    def __iter__(self) -> Iterator[Budget]:
        """Each of its budgets on its own."""
        yield replace(self, others=()) if self.others else self
        for other in self.others:
            yield from other

    def __str__(self) -> str:
        # Every digit and no exponent: an error names the smallest budget that works.
        text = format(Decimal(repr(self.value)), "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        point = "" if self.batch is None else f"@b{self.batch}"
        point += "" if self.context is None else f"c{self.context}"
        return ",".join([f"{text}{self.unit}{point}", *map(str, self.others)])

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read numbers with their units, separated by commas.

        The case of units is free, but for the B of bytes: a b may be bits.

        Raises:
            InvalidArgument: no number, no unit, an unknown one, or a quantity bounded twice.
        """
        first, *others = (cls._one(part) for part in text.split(","))
        return replace(first, others=tuple(others))

    @classmethod
    def _one(cls, text: str) -> Budget:
        match = _BUDGET.fullmatch(text)
        try:
            if match and (unit := _unit(match.group(2), text)) in _UNITS:
                batch, context = (None if x is None else int(x) for x in match.group(3, 4))
                return cls(float(match.group(1)), unit, batch, context)
        except InvalidArgument:
            raise
        except ValueError:
            pass
        raise InvalidArgument(
            f"Cannot read budget {text!r}: give a positive number and one of "
            f"{', '.join(_UNITS)}, {_EXAMPLES}."
        )

    def to_fields(self) -> dict[str, Any]:
        """Plain fields for JSON, without those that say nothing; `from_fields` reads them back."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        fields["others"] = [other.to_fields() for other in self.others]
        return fields if self.others else {k: v for k, v in fields.items() if k != "others"}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Budget:
        """Inverse of `to_fields`."""
        others = tuple(cls.from_fields(each) for each in fields.get("others", ()))
        return cls(**{**fields, "others": others})

    @property
    def quantity(self) -> str:
        """Value of a trial that the first of its budgets bounds."""
        return _UNITS[self.unit][0]

    @property
    def time(self) -> Budget | None:
        """The one that bounds the time of a step, if any."""
        return next((each for each in self if each.quantity == "latency_ns"), None)

    def bounds(self) -> dict[str, float]:
        """The budget as bounds on a trial's values, such as `bits_per_weight` or `latency_ns`."""
        return {each.quantity: each._bound for each in self}

    @property
    def _bound(self) -> float:
        if self.unit in {"bits", "bpw"}:
            return self.value
        return math.floor(Fraction(repr(self.value)) * Fraction(_UNITS[self.unit][1]))

    def limits(
        self, space: SearchSpace, costs: Sequence[LayerTable] | None = None
    ) -> dict[str, float]:
        """Limits on the searched layers: cost quantity to its largest whole sum.

        Args:
            space: what is searched.
            costs: its cost tables; `None` for the limits of sizes alone, which need none.

        Raises:
            InvalidArgument: the budget holds the whole model in bf16, so there is nothing to do;
                or a bounded quantity has no table.
        """
        return {q: limit for q, (_, limit) in self.tightest(space, costs).items()}

    def tightest(
        self, space: SearchSpace, costs: Sequence[LayerTable] | None = None
    ) -> dict[str, tuple[Budget, float]]:
        """Which of its budgets limits a cost table most, and to what; as `limits`."""
        found: dict[str, tuple[Budget, float]] = {}
        for each in self:
            quantity = each._table_name(space)
            if each.quantity not in _MAKERS:
                limit = each._size_limit(space)
            elif costs is not None:
                limit = each._bound - each._table(costs).outside
            else:
                continue
            if quantity not in found or limit < found[quantity][1]:
                found[quantity] = each, limit
        return found

    def _size_limit(self, space: SearchSpace) -> float:
        n_weights = space.n_weights
        whole = 2 * n_weights + space.outside_bytes + space.cache_bytes_at_16_bits
        largest = {"bytes": whole}.get(self.quantity, 16)
        if self._bound >= largest:
            raise InvalidArgument(
                f"Budget {self} is not below bf16 ({largest:,} {self.quantity}): "
                "the unquantized model fits; give a smaller budget."
            )
        # The decimal that was typed, not its nearest binary number: 3.3 of 10 weights is 33 bits.
        typed = Fraction(repr(self.value))
        if self.unit == "bits":
            return math.floor(typed * n_weights)
        if self.unit == "bpw":
            return math.floor(typed * n_weights / 8)
        return self._bound - space.outside_bytes

    def _table_name(self, space: SearchSpace) -> str:
        name = _TABLES.get(self.quantity, self.quantity)
        of_weights = self.quantity == "bits_per_weight" and space.kv_cache is not None
        return "weight_bytes" if of_weights else name

    def _table(self, costs: Sequence[LayerTable]) -> LayerTable:
        table = next((t for t in costs if t.quantity == self.quantity), None)
        if table is None:
            raise self._lacking
        return table

    @property
    def _lacking(self) -> InvalidArgument:
        return InvalidArgument(
            f"Budget {self} bounds {self.quantity}, which no cost of the study gives: "
            f"add {' or '.join(_MAKERS[self.quantity].values())} to costs."
        )

    def check_costs(self, names: Collection[str]) -> None:
        """Refuse to bound what none of the named costs gives.

        Raises:
            InvalidArgument: says what to add.
        """
        for each in self:
            makers = _MAKERS.get(each.quantity)
            if makers is not None and not makers.keys() & set(names):
                raise each._lacking

    def holding(self, space: SearchSpace, table: LayerTable, total: float) -> Budget:
        """The smallest budget of this unit, to 4 decimals, for a sum over the searched layers.

        Args:
            space: what the sum is over.
            table: whose sum it is.
            total: the sum, in the table's units.
        """
        if self.unit == "bits":
            exact = Fraction(int(total), space.n_weights)
        elif self.unit == "bpw":
            exact = Fraction(8 * int(total), space.n_weights)
        else:
            outside = space.outside_bytes if self.quantity == "bytes" else table.outside
            exact = Fraction(int(total) + int(outside)) / Fraction(_UNITS[self.unit][1])
        return replace(self, value=math.ceil(exact * 10_000) / 10_000, others=())


def _unit(typed: str, text: str) -> str:
    """The unit that is meant, in its own case; what is none, as it is.

    Raises:
        InvalidArgument: only bytes are spelled so, and not with a B.
    """
    alike = next((unit for unit in _UNITS if unit.lower() == typed.lower()), typed)
    if alike.endswith("B") and not typed.endswith("B"):
        raise InvalidArgument(
            f"Cannot read budget {text!r}: {typed} may be bits; write {alike} for bytes."
        )
    return alike
