"""SearchSpace -> cost tables: one cost a file."""

from bitfront.costs.base import Cost
from bitfront.plugins import Plugins

COSTS: Plugins[Cost] = Plugins(__name__, "cost")
