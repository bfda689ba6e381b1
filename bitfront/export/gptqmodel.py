"""Configuration for GPTQModel: the allocation, quantized by its own methods."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.export._recipes import searched, translated, write_recipe
from bitfront.export.base import Exporter
from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel


@dataclass(frozen=True)
class Gptqmodel(Exporter):
    """`quantize_config.json` for GPTQModel: the commonest format, and a `dynamic` rule per other.

    No weights: `QuantizeConfig.from_pretrained(folder)` reads it and GPTQModel quantizes the model
    anew, on its own calibration data; vLLM and SGLang load what it makes. Integers only; embedding
    and head stay as they are. Words of `QuantizeConfig` in GPTQModel 7.7; asymmetric integers get
    whole zero points there.
    """

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the configuration.

        Raises:
            InvalidArgument: a format other than integers and bf16; names the layer.
            StorageError: it could not be written; nothing half-written is left.
        """
        formats = searched(model, allocation)
        words = translated(formats, "GPTQModel", _word, "int2 to int8")
        if not words:
            raise InvalidArgument("No layer is quantized at this point: nothing to configure.")
        commonest, _ = Counter(formats[layer] for layer in words).most_common(1)[0]
        base = next(word for layer, word in words.items() if formats[layer] == commonest)
        dynamic: dict[str, dict[str, Any]] = {}
        for layer, name in formats.items():
            if name != commonest:
                sign = "+" if layer in words else "-"
                dynamic[f"{sign}:^{re.escape(layer)}$"] = words.get(layer, {})
        recipe = {**base, "desc_act": False, "lm_head": False, "dynamic": dynamic}
        write_recipe(directory, model, allocation, "quantize_config.json", recipe)


def _word(format: Format) -> dict[str, Any] | None:
    if not isinstance(format, IntGrouped) or format.num_bits == 1:
        return None
    return {
        "bits": format.num_bits,
        "group_size": format.group_size or -1,
        "sym": format.symmetric,
    }
