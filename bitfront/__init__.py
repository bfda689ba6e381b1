"""bitfront: measured mixed-precision bit allocation for neural networks.

import bitfront

study = bitfront.Study("model/", bitfront.Budget.parse("3.5bpw"))
front = bitfront.run_study(study, "results/")
bitfront.export_checkpoint(study, front.best("kl"), "checkpoint/", results="results/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitfront.allocation import Allocation
from bitfront.budget import Budget
from bitfront.formats.base import Format
from bitfront.models.registration import register_with_transformers
from bitfront.pareto import ParetoFront
from bitfront.plugins import Choice
from bitfront.problem import Problem
from bitfront.space import Layer, SearchSpace
from bitfront.study import Study, TextSource
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState
from bitfront.version import __version__

if TYPE_CHECKING:
    from bitfront.run import export_checkpoint, run_study

__all__ = [
    "Allocation",
    "Budget",
    "Choice",
    "Format",
    "Layer",
    "LayerTable",
    "ParetoFront",
    "Problem",
    "SearchSpace",
    "Study",
    "TextSource",
    "Trial",
    "TrialState",
    "__version__",
    "export_checkpoint",
    "run_study",
]

register_with_transformers()


def __getattr__(name: str) -> Any:
    # The loop needs torch; the nouns must load without it.
    if name in {"export_checkpoint", "run_study"}:
        from bitfront import run

        return getattr(run, name)
    raise AttributeError(f"module 'bitfront' has no attribute {name!r}")
