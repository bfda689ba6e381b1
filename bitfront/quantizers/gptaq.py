"""GPTAQ: error feedback towards the outputs of the unquantized model, not of the layer alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.quantizers.base import QuantizedWeight, checked, checked_hessian
from bitfront.quantizers.gptq import Gptq


@dataclass(frozen=True)
class Gptaq(Gptq):
    """`gptq` of a weight that makes up for what earlier layers did to the inputs.

    With x the inputs of the unquantized model, y those that quantized layers before leave, the
    outputs to match are W x. Of all matrices the one that comes nearest on y is

        W* = W + W C (H + ridge)^-1,    H = E[y y^T],  C = E[(x - y) y^T]

    and what is lost by rounding it is tr(D H D^T), D = Q - W*: so `gptq` of W* with H is error
    feedback on the asymmetric objective (Li et al. 2025, "GPTAQ: Efficient Finetuning-Free
    Quantization for Asymmetric Calibration", arXiv:2504.02692, section 3). The paper instead adds,
    column by column, the part of C that later columns can mend. Solved at once it was better on
    stories15M at `int3_g32`, calibrated on 3,072 tokens: 0.296 nats with half of the correction,
    where `gptq` lost 0.344 and the paper's form 0.389, or 0.319 with a quarter of it (measured
    once, by hand; no benchmark makes these figures).

    C belongs to one allocation, that of the layers before, and `bitfront.models.shifted` measures
    it. A search quantizes each layer once for all allocations, so a study refuses this quantizer:
    `bitfront export --requantize gptaq` quantizes a measured point again. Without C it is `gptq`.
    A C measured behind other weights than there are (`rtn` at 4 bits) made
    things worse than none.

    Cost: that of `gptq`, and two forward passes per group of layers, one after another. Prefer it
    to `gptq` for an allocation that is settled.

    Args:
        relative: `False`: all positions count alike, in C as in H.
        share: of the correction that is applied, above 0, at most 1.
        ridge: added to the diagonal of H for the correction, as a fraction of its mean.
    """

    relative: bool | None = False
    share: float = 0.5
    ridge: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InvalidArgument(f"share={self.share} is not above 0 and at most 1.")
        if self.ridge <= 0:
            raise InvalidArgument(f"ridge={self.ridge} is not above 0.")
        if self.relative:
            raise InvalidArgument(
                "relative=True: H and C of gptaq count positions alike; use gptq."
            )

    def quantize(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None = None
    ) -> QuantizedWeight:
        """Quantize one matrix.

        Args:
            weight: `[n_rows, n_columns]`.
            format: target format; it must fit the shape.
            hessian: H, as of `gptq`; or H and C of each group of rows that reads inputs of its own,
                `[2, n_groups, n_columns, n_columns]`, of one group for most layers.

        Raises:
            NonFinite: the weight, H or C holds NaN or infinity.
            InvalidArgument: as of `gptq`.
        """
        if hessian is not None and hessian.ndim == 4 and len(hessian) == 2:
            weight = checked(weight, format)
            gram, shift = (checked_hessian(each, weight).to(weight.device) for each in hessian)
            hessian = gram[0] if len(gram) == 1 else gram
            if format.scaled:
                weight = weight + self.share * self._correction(weight, gram, shift)
        return super().quantize(weight, format, hessian)

    def _correction(
        self, weight: torch.Tensor, gram: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """W C (H + ridge)^-1 of each group; nothing where there are no inputs."""
        damped = gram.double()
        diagonal = damped.diagonal(dim1=1, dim2=2)
        mean = diagonal.mean(dim=1, keepdim=True)
        diagonal.add_(torch.where(mean > 0, self.ridge * mean, 1.0))
        towards = (weight.reshape(len(gram), -1, weight.shape[1]) @ shift).double()
        solved: torch.Tensor = torch.linalg.solve(damped, towards, left=False)
        return (solved * (mean > 0)[..., None]).float().flatten(0, 1)
