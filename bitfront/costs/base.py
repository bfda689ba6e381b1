"""Cost: what a format costs a layer, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod

from bitfront.space import SearchSpace
from bitfront.table import LayerTable


class Cost(ABC):
    """Makes cost tables. Subclasses are frozen dataclasses."""

    @abstractmethod
    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """One table per quantity, whole numbers that sum over layers."""
