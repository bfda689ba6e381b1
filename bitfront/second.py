"""SecondLoss: what layers do to a second metric, and which layers it alone judges."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.table import LayerTable

MOST_HURT = "auto"
"""Each group of layers goes to the metric of whose loss it causes the larger share."""


@dataclass(frozen=True, eq=False)
class SecondLoss:
    """The loss table of a second metric, and the groups of layers that are its own.

    Args:
        table: estimated loss of each layer in each format by the second metric.
        of_second: which groups are judged by it, bool `[n_groups]`; the first metric judges the
            others.
    """

    table: LayerTable
    of_second: NDArray[np.bool_]

    @classmethod
    def of(cls, first: LayerTable, second: LayerTable, layers: str = MOST_HURT) -> SecondLoss:
        """Divide the layers between two metrics.

        Args:
            first: loss table of the first metric.
            second: that of the other.
            layers: `"auto"`, or patterns such as `*.mlp.*`, joined by commas, of the names of
                layers that the second metric judges.

        Raises:
            InvalidArgument: a pattern takes no layer, all of them, or part of a group.
        """
        if layers == MOST_HURT:
            return cls(second, _share(second) > _share(first))
        space = first.space
        patterns = [pattern.strip() for pattern in layers.split(",")]
        taken = np.array(
            [any(fnmatchcase(x.name, pattern) for pattern in patterns) for x in space.layers]
        )
        if not taken.any() or taken.all():
            raise InvalidArgument(
                f"Pattern {layers!r} takes {taken.sum()} of {len(taken)} layers, such as "
                f"{space.layers[0].name!r}: take some of them and leave some, or give auto."
            )
        n_taken = np.bincount(space.group_of, weights=taken)
        split = (n_taken > 0) & (n_taken < np.bincount(space.group_of))
        if split.any():
            name = space.layers[space.groups[int(split.argmax())][0]].name
            raise InvalidArgument(
                f"Pattern {layers!r} takes a part of what shares a format with {name!r}: "
                "take all of it, or search with --no-ties."
            )
        return cls(second, n_taken > 0)


def _share(table: LayerTable) -> NDArray[np.float64]:
    """Part of the loss that each group causes, mean over the formats that fit it, `[n_groups]`."""
    allowed = table.space.group_allowed
    losses = np.where(allowed, table.grouped, 0.0).sum(axis=1) / allowed.sum(axis=1)
    return np.asarray(losses / max(float(losses.sum()), np.finfo(float).tiny))
