"""Model and text -> loss table: one estimator a file."""

from bitfront.plugins import Plugins
from bitfront.sensitivity.base import Estimator

ESTIMATORS: Plugins[Estimator] = Plugins(__name__, "estimator")
