"""Cost: what a format costs a layer, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod

from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable


def share_read(layer: Layer, batch: int) -> float:
    """Chance that a step of `batch` tokens reads a layer's weight; 1 but for routed experts.

    As if the router chose evenly and for each token anew: 1 - (1 - active)^batch.
    """
    return float(1 - (1 - layer.active) ** batch)


class Cost(ABC):
    """Makes cost tables. Subclasses are frozen dataclasses."""

    @abstractmethod
    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """One table per quantity, whole numbers that sum over layers."""
