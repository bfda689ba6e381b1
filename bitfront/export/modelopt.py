"""Configuration for NVIDIA's Model Optimizer: the allocation, quantized by its own methods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bitfront.allocation import Allocation
from bitfront.export._recipes import searched, translated, write_recipe
from bitfront.export.base import Exporter
from bitfront.formats.base import Format
from bitfront.formats.fp8 import Fp8
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.nvfp4 import Nvfp4
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel


@dataclass(frozen=True)
class Modelopt(Exporter):
    """`quantize.yaml` for `modelopt.torch.quantization.quantize`: a weight quantizer per layer.

    No weights: Model Optimizer quantizes the model anew. Symmetric integers, fp8, mxfp4 and nvfp4,
    weights only; every other quantizer is off. Words of `QuantizeConfig` in nvidia-modelopt 0.47.
    """

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the configuration.

        Raises:
            InvalidArgument: a format that Model Optimizer does not know; names the layer.
            StorageError: it could not be written; nothing half-written is left.
        """
        allowed = "symmetric integers, fp8_e4m3, mxfp4, nvfp4"
        words = translated(searched(model, allocation), "Model Optimizer", _word, allowed)
        lines = ["algorithm: max", "quant_cfg:", '- {quantizer_name: "*", enable: false}']
        for layer, word in words.items():
            name = json.dumps(f"{layer}.weight_quantizer")
            lines.append(f"- {{quantizer_name: {name}, cfg: {word}}}")
        write_recipe(directory, model, allocation, "quantize.yaml", "\n".join(lines) + "\n")


def _word(format: Format) -> str | None:
    """Attributes of a quantizer in YAML, whose keys may be numbers.

    Floats are [exponent bits, mantissa bits]: names such as e4m3 only work in its own presets.
    """
    if isinstance(format, IntGrouped) and format.symmetric:
        if format.group_size is None:
            return f"{{num_bits: {format.num_bits}, axis: 0}}"
        blocks = f"{{-1: {format.group_size}, type: static}}"
        return f"{{num_bits: {format.num_bits}, block_sizes: {blocks}}}"
    if isinstance(format, Fp8):
        return "{num_bits: [4, 3], axis: 0}"
    if isinstance(format, (Mxfp4, Nvfp4)):
        scale = "[8, 0]" if isinstance(format, Mxfp4) else "[4, 3]"
        blocks = f"{{-1: {format.group_columns}, type: dynamic, scale_bits: {scale}}}"
        return f"{{num_bits: [2, 1], block_sizes: {blocks}}}"
    return None
