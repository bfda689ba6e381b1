"""Allocation -> checkpoint: one exporter a file."""

from bitfront.export.base import Exporter
from bitfront.plugins import Plugins

EXPORTERS: Plugins[Exporter] = Plugins(__name__, "exporter")
