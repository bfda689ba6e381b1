"""Bit operations of each layer in each format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfront.costs.base import Cost
from bitfront.errors import InvalidArgument
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class Bops(Cost):
    """Bit operations a token, or an image: bits of the weights x of the activations x products.

        bops = code_bits * activation_bits * out_features * in_features * active share * positions

    What papers on mixed precision report beside accuracy, and what an accelerator with bit-serial
    arithmetic takes time in proportion to. A GPU or CPU does not: there `latency` is the measure.

    A routed expert counts by the share of experts that a token goes through; a layer of an image
    model once for each patch or output position of one image, of the size that the model's
    configuration states. Those of a convolution are its height times its width, and a depthwise one
    multiplies each channel by its own kernel alone: products are always weights times positions.

    Table: `bops`, summed over the searched layers.

    Source: van Baalen et al., "Bayesian Bits" (NeurIPS 2020), section 4.1, after Baskin et al.,
    UNIQ (2018), without the additions that the latter counts.

    Args:
        activation_bits: of a layer's inputs, unless its format is a pair that rounds them.
    """

    activation_bits: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.activation_bits <= 32:
            raise InvalidArgument(f"activation_bits is {self.activation_bits}: give 1 to 32.")

    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """The table of a space."""
        bits = np.array([f.code_bits for f in space.formats], dtype=np.float64)
        active = np.array([x.n_weights * x.active * x.positions for x in space.layers])
        bits *= [
            x.num_bits if (x := f.input_format) else self.activation_bits for f in space.formats
        ]
        values = np.ceil(np.outer(active, bits))
        return (LayerTable(space, values, "bops", source=repr(self)),)
