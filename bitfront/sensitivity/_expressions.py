"""Small formulas over statistics of entries, found by evolution for rank correlation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument

Floats = NDArray[np.float64]

EXPONENTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
_FACTOR = re.compile(r"([a-z_]+)(?:\^(-?[0-9]+(?:\.[0-9]+)?))?")
_MOST_TERMS = 3


@dataclass(frozen=True)
class Formula:
    """A sum of products of powers, each product divided by its own mean over all entries.

    >>> str(Formula.parse("fisher*bits^-1 + output_error^0.5"))
    'fisher*bits^-1 + output_error^0.5'

    Args:
        terms: each a sorted tuple of `(statistic, exponent)`.
    """

    terms: tuple[tuple[tuple[str, float], ...], ...]

    def __str__(self) -> str:
        def factor(name: str, exponent: float) -> str:
            return name if exponent == 1 else f"{name}^{exponent:g}"

        return " + ".join("*".join(factor(*f) for f in term) for term in self.terms)

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Inverse of `str`.

        Raises:
            InvalidArgument: not of that form.
        """
        terms = []
        for part in text.split("+"):
            factors = [_FACTOR.fullmatch(factor.strip()) for factor in part.split("*")]
            if not all(factors):
                raise InvalidArgument(
                    f"Cannot read formula {text!r}: write products of statistics with powers, "
                    "joined by '+', such as fisher*bits^-1 + output_error^0.5."
                )
            terms.append(tuple((m[1], float(m[2] or 1)) for m in factors if m))
        return cls(tuple(terms))

    @property
    def names(self) -> set[str]:
        """Statistics that it reads."""
        return {name for term in self.terms for name, _ in term}

    def values(self, logs: Mapping[str, Floats]) -> Floats:
        """The formula at every entry, from the logarithms of the statistics; finite and above 0."""
        total = np.zeros(next(iter(logs.values())).shape)
        for term in self.terms:
            power = sum((exponent * logs[name] for name, exponent in term), np.zeros(total.shape))
            power = np.exp(np.clip(power - power.max(), -80, 0))
            total += power / power.mean()
        return total


def evolved(
    names: tuple[str, ...],
    fitness: Callable[[Formula], float],
    population: int,
    n_generations: int,
    rng: np.random.Generator,
) -> Formula:
    """The fittest formula that tournaments and mutations find; of equal ones the shortest."""
    known: dict[Formula, float] = {}

    def score(formula: Formula) -> tuple[float, int]:
        if formula not in known:
            known[formula] = fitness(formula)
        return known[formula], -len(str(formula))

    alive = [Formula((((name, 1.0),),)) for name in names]
    alive += [_mutated(alive[int(rng.integers(len(alive)))], names, rng) for _ in range(population)]
    for _ in range(n_generations):
        children = []
        for _ in range(population):
            rivals = [alive[int(i)] for i in rng.integers(len(alive), size=3)]
            children.append(_mutated(max(rivals, key=score), names, rng))
        alive = sorted({*alive, *children}, key=lambda f: (score(f), str(f)), reverse=True)
        alive = alive[:population]
    return alive[0]


def _mutated(formula: Formula, names: tuple[str, ...], rng: np.random.Generator) -> Formula:
    """One factor changed, added or dropped, or one term added or dropped."""
    terms = [dict(term) for term in formula.terms]
    term = terms[int(rng.integers(len(terms)))]
    move = int(rng.integers(4))
    name, exponent = names[int(rng.integers(len(names)))], EXPONENTS[int(rng.integers(6))]
    if move == 0 and len(terms) < _MOST_TERMS:
        terms.append({name: exponent})
    elif move == 1 and len(terms) > 1:
        terms.remove(term)
    elif move == 2 and len(term) > 1:
        del term[sorted(term)[int(rng.integers(len(term)))]]
    else:
        term[name] = exponent
    return Formula(tuple(sorted({tuple(sorted(each.items())) for each in terms})))
