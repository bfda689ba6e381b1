"""How codes are chosen: one quantizer a file."""

from bitfront.plugins import Plugins
from bitfront.quantizers.base import Quantizer

QUANTIZERS: Plugins[Quantizer] = Plugins(__name__, "quantizer")
