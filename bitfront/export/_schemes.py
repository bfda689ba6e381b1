"""Formats in the words of compressed-tensors, which vLLM, transformers and llm-compressor share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitfront.export._recipes import translated
from bitfront.formats._activations import Activation
from bitfront.formats._scales import Microscaled
from bitfront.formats.base import Format
from bitfront.formats.fp8 import Fp8
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.mxfp8 import Mxfp8
from bitfront.formats.nvfp4 import Nvfp4

Scheme = Mapping[str, Any]
"""Fields `weights`, `format` and, for pairs, `input_activations` of a quantization scheme."""

ALLOWED = (
    "int2 to int8, fp8_e4m3, mxfp4, mxfp6_e2m3, mxfp8_e4m3, nvfp4, with inputs in int8, int4, fp8, "
    "mxfp4, mxfp6 or mxfp8 or as they are"
)

_TOKEN = {"strategy": "token"}
_MX = {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}

_FLOATS: Mapping[type[Format], tuple[str, dict[str, Any]]] = {
    Fp8: ("float-quantized", {"num_bits": 8, "strategy": "channel"}),
    Mxfp4: ("mxfp4-pack-quantized", {"num_bits": 4, **_MX}),
    Mxfp6: ("mxfp6-pack-quantized", {"num_bits": 6, **_MX}),
    Mxfp8: ("mxfp8-quantized", {"num_bits": 8, **_MX}),
    Nvfp4: (
        "nvfp4-pack-quantized",
        {
            "num_bits": 4,
            "strategy": "tensor_group",
            "group_size": 16,
            "scale_dtype": "torch.float8_e4m3fn",
        },
    ),
}


def scheme(format: Format) -> Scheme | None:
    """The scheme of a format; `None` where compressed-tensors has none.

    Names are those of `QuantizationScheme` and `QuantizationArgs` in compressed-tensors 0.20.
    """
    made, inputs = _of_weights(format.weight_format), format.input_format
    if made is None or inputs is None:
        return made
    given = _of_inputs(inputs)
    if given is None:
        return None
    name = "int-quantized" if stores_bytes(format) else made["format"]
    return {"weights": made["weights"], "input_activations": given, "format": name}


def stores_bytes(format: Format) -> bool:
    """Whether weights are a plain int8 matrix: those of W8A8, which are not packed."""
    plain = IntGrouped(8, None, symmetric=True)
    return format.input_format is not None and format.weight_format == plain


def _of_inputs(inputs: Activation) -> dict[str, Any] | None:
    """Words for what inputs are rounded to as the model runs; scales of their own for each token.

    Fractional zero points are not known there; of nvfp4 the scale per tensor is calibrated.
    """
    grid, found = inputs.grid, {"num_bits": inputs.num_bits, "symmetric": True, "dynamic": True}
    if isinstance(grid, IntGrouped) and grid.symmetric:
        of = {"strategy": "group", "group_size": grid.group_size} if grid.group_size else _TOKEN
        return {**found, "type": "int", **of}
    if isinstance(grid, Fp8):
        return {**found, "type": "float", **_TOKEN}
    return {**found, "type": "float", **_MX} if isinstance(grid, Microscaled) else None


def _of_weights(format: Format) -> Scheme | None:
    if isinstance(format, IntGrouped) and format.num_bits > 1:
        grouped = {"strategy": "group", "group_size": format.group_size}
        weights = {
            "num_bits": format.num_bits,
            "type": "int",
            "symmetric": format.symmetric,
            **(grouped if format.group_size else {"strategy": "channel"}),
        }
        return {"weights": weights, "format": "pack-quantized"}
    if type(format) in _FLOATS and format != Mxfp6(3):  # its 6 bits are e2m3
        name, fields = _FLOATS[type(format)]
        return {"weights": {"type": "float", "symmetric": True, **fields}, "format": name}
    return None


def config_groups(formats: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """One config group per format, by format name; bf16 is none.

    Args:
        formats: format name of each layer.

    Raises:
        InvalidArgument: a format without a scheme; names the first layer that has it.
    """
    schemes = translated(formats, "compressed-tensors", scheme, ALLOWED)
    groups: dict[str, dict[str, Any]] = {}
    for layer, found in schemes.items():
        groups.setdefault(formats[layer], {"targets": [], **found})["targets"].append(layer)
    return groups
