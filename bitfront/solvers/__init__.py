"""Problem -> Solution: one solver a file."""

from bitfront.plugins import Plugins
from bitfront.solvers.base import Solution, Solver

SOLVERS: Plugins[Solver] = Plugins(__name__, "solver")

__all__ = ["SOLVERS", "Solution", "Solver"]
