"""Which pairs a layer cannot take because of how it reads its inputs."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.kernels.weights import by_channel
from bitfront.space import Layer


def input_bars(
    model: nn.Module, layers: Iterable[Layer], formats: tuple[Format, ...]
) -> tuple[tuple[str, tuple[int, int], str], ...]:
    """Kind and shape of convolutions with the pairs that cannot round what they read.

    Columns of a kernel of several taps are no channels of one position, so that what goes by column
    before a number is multiplied would make it another one in each patch.

    Raises:
        InvalidArgument: nothing is left for a convolution; says what is.
    """
    pairs = [f for f in formats if by_channel(f)]
    bars = set()
    for layer in layers if pairs else ():
        module = model.get_submodule(layer.name)
        if isinstance(module, nn.Conv2d) and set(module.kernel_size) != {1}:
            bars |= {(layer.kind, layer.shape, f.name) for f in pairs}
            if not any(f.fits(layer.shape) for f in formats if f not in pairs):
                raise InvalidArgument(
                    f"No format of the menu fits convolution {layer.name!r}: inputs of a kernel of "
                    f"{' x '.join(map(str, module.kernel_size))} have one scale for each image, "
                    f"not groups of channels, nor rotations or column scales as in {pairs[0]}. "
                    "Add a pair with aint8, aint4, aint8_asym, aint4_asym or afp8, or a format "
                    "of weights alone."
                )
    return tuple(sorted(bars))
