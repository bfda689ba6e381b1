"""What is measured on the quantized model: one metric a file."""

from bitfront.evaluation.base import Metric, evaluate, sequence_values
from bitfront.plugins import Plugins

METRICS: Plugins[Metric] = Plugins(__name__, "metric")

__all__ = ["METRICS", "Metric", "evaluate", "sequence_values"]
