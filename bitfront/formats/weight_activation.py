"""A format of a weight paired with one of its layer's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitfront.errors import InvalidArgument
from bitfront.formats._activations import ACTIVATIONS, Activation
from bitfront.formats.base import Format
from bitfront.formats.fp8 import Fp8
from bitfront.formats.hadamard import Hadamard
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.mxfp8 import Mxfp8
from bitfront.formats.nvfp4 import Nvfp4

SEPARATOR = "_a"


class _OfWeight:
    """What the format of the weight has by the same name."""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, pair: WeightActivation | None, _owner: type) -> Any:
        return self if pair is None else getattr(pair.weight, self._name)


def _of_weight() -> Any:
    return _OfWeight()


@dataclass(frozen=True)
class WeightActivation(Format):
    """A weight in one format, multiplied by inputs that are rounded to another as the model runs.

    A pair is one choice of a layer, because what it saves is a product: bit operations are weight
    bits times activation bits, and a tensor core multiplies at the width of the wider of the two.
    On disk it is the weight's format, byte for byte, and quantizers choose its codes as ever; they
    do not see the rounding of inputs. Inputs are rounded as they meet the stored weight: after a
    rotation (`_had`; QuaRot, Ashkboos et al. 2024, arXiv:2404.00456; MR-GPTQ, Egiazarian et al.
    2025, arXiv:2509.23202) and after column scales (`_cols`).

    `W8A8` is `int8_channel_sym_aint8`, `W4A8` `int4_g128_sym_aint8`. Any scaled weight format goes
    with any format of inputs by name; the catalogue has the pairs that engines or papers use. A
    static scale per tensor is not among them: it needs the range of every layer's inputs on
    calibration text, stored beside the weight, and is worse at equal bits.

    Args:
        weight: format of the weight.
        inputs: what inputs are rounded to.
    """

    weight: Format = field(default_factory=lambda: IntGrouped(8, None, symmetric=True))
    inputs: Activation = ACTIVATIONS["int8"]

    def __post_init__(self) -> None:
        if not self.weight.scaled or self.weight.input_format is not None:
            raise InvalidArgument(
                f"{self.weight.name} cannot be paired with inputs in {self.inputs.name}: "
                "give a quantized weight format, such as int8_channel_sym."
            )

    @property
    def name(self) -> str:
        """`int4_g64_aint8`."""
        return f"{self.weight.name}{SEPARATOR}{self.inputs.name}"

    @classmethod
    def catalogue(cls) -> tuple[WeightActivation, ...]:
        """W8A8, W6A6, W4A8 and W4A4 of engines and papers; any other pair goes by its name."""
        int4, channel = IntGrouped(4, 128, symmetric=True), IntGrouped(4, None, symmetric=True)
        pairs: list[tuple[Format, str]] = [
            *((IntGrouped(8, None, symmetric=True), "int8"), (Fp8(), "fp8"), (Mxfp8(), "mxfp8")),
            *((Mxfp6(2), "mxfp6"), (IntGrouped(4, 64), "int8"), (int4, "int8"), (channel, "int8")),
            *((int4, "fp8"), (Mxfp4(), "mxfp8")),
            *((channel, "int4"), (Hadamard(channel), "int4"), (Hadamard(IntGrouped()), "int4_g64")),
            *((Mxfp4(), "mxfp4"), (Hadamard(Mxfp4()), "mxfp4")),
            *((Nvfp4(), "nvfp4"), (Hadamard(Nvfp4()), "nvfp4")),
        ]
        return tuple(cls(weight, ACTIVATIONS[inputs]) for weight, inputs in pairs)

    @property
    def weight_format(self) -> Format:
        """The weight's."""
        return self.weight

    @property
    def input_format(self) -> Activation:
        """That of the inputs."""
        return self.inputs

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether the weight's format does, and tokens are whole groups."""
        return self.weight.fits(shape) and self.inputs.fits(shape[1])

    scaled = _of_weight()
    learned = _of_weight()
    in_planes = _of_weight()
    num_bits = _of_weight()
    code_bits = _of_weight()
    n_code_bits = _of_weight()
    telling_columns = _of_weight()
    columns_per_code = _of_weight()
    group_columns = _of_weight()
    base = _of_weight()
    levels = _of_weight()
    stored = _of_weight()
    stored_qparams = _of_weight()
    nbytes = _of_weight()
    bits_per_weight = _of_weight()
    codes_shape = _of_weight()
    qparams = _of_weight()
    qparams_of_range = _of_weight()
    group_range = _of_weight()
    affine = _of_weight()
    rotation = _of_weight()
    input_scale = _of_weight()
    taken_out = _of_weight()
    rest = _of_weight()
    rest_columns = _of_weight()
    nearest = _of_weight()
    nearest_in = _of_weight()
    values = _of_weight()
    values_in = _of_weight()
    rounded = _of_weight()
    rounded_in = _of_weight()
    encode = _of_weight()
    decode = _of_weight()
    pack = _of_weight()
    unpack = _of_weight()
    parts = _of_weight()
    column_order = _of_weight()
    decode_stored = _of_weight()


def parsed(name: str, weights: Mapping[str, Format]) -> WeightActivation | None:
    """The pair of a name such as `"int4_g64_aint8"`; `None` where it is none.

    Args:
        name: of a pair.
        weights: formats of weights by name.
    """
    for inputs in ACTIVATIONS.values():
        weight = weights.get(name.removesuffix(f"{SEPARATOR}{inputs.name}"))
        if weight is not None and weight.name != name and weight.scaled:
            return WeightActivation(weight, inputs)
    return None
