"""Formats in the words of compressed-tensors, which vLLM, transformers and llm-compressor share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitfront.export._recipes import translated
from bitfront.formats.base import Format
from bitfront.formats.fp8 import Fp8
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.mxfp8 import Mxfp8
from bitfront.formats.nvfp4 import Nvfp4

Scheme = Mapping[str, Any]
"""Fields `weights` and `format` of a quantization scheme."""

ALLOWED = "int2 to int8, fp8_e4m3, mxfp4, mxfp6_e2m3, mxfp8_e4m3, nvfp4"

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
    """The scheme of a format, weights only; `None` where compressed-tensors has none.

    Names are those of `QuantizationScheme` and `QuantizationArgs` in compressed-tensors 0.20.
    """
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
