"""Layer configuration for AutoRound: the allocation, quantized by its own methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.allocation import Allocation
from bitfront.export._recipes import searched, translated, write_recipe
from bitfront.export.base import Exporter
from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.nvfp4 import Nvfp4
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel

_PLAIN = {"bits": 16, "data_type": "fp", "act_bits": 16}


@dataclass(frozen=True)
class AutoRound(Exporter):
    """`layer_config.json` for AutoRound: a scheme per layer.

    No weights: pass the content as `layer_config` of `auto_round.AutoRound`, which quantizes the
    model anew, on its own calibration data. Integers, mxfp4 and nvfp4, weights only; embedding and
    head stay as they are. Words of `QuantizationScheme` in auto-round 0.16; asymmetric integers
    get whole zero points there.
    """

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the configuration.

        Raises:
            InvalidArgument: a format that AutoRound does not know; names the layer.
            StorageError: it could not be written; nothing half-written is left.
        """
        formats = searched(model, allocation)
        words = translated(formats, "AutoRound", _word, "int2 to int8, mxfp4, nvfp4")
        recipe = {layer: words.get(layer, _PLAIN) for layer in formats}
        write_recipe(directory, model, allocation, "layer_config.json", recipe)


def _word(format: Format) -> dict[str, Any] | None:
    if isinstance(format, IntGrouped) and format.num_bits > 1:
        kind, group_size, symmetric = "int", format.group_size or -1, format.symmetric
    elif isinstance(format, (Mxfp4, Nvfp4)):
        kind = "mx_fp" if isinstance(format, Mxfp4) else "nv_fp"
        group_size, symmetric = format.group_columns or -1, True
    else:
        return None
    scheme = {"bits": format.num_bits, "group_size": group_size, "sym": symmetric}
    return {**scheme, "data_type": kind, "act_bits": 16}
