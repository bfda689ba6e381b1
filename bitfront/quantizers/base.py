"""Quantizer: how the codes of a format are chosen for one weight matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped
from bitfront.kernels.base import is_fused

_CHUNK_WEIGHTS = 1 << 16


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Codes and parameters of one weight in one format.

    Args:
        format: what the codes mean.
        codes: uint8, as `Format.encode` gives them (bf16: the weight itself).
        qparams: parameters as stored, by tensor name.
    """

    format: Format
    codes: torch.Tensor
    qparams: Mapping[str, torch.Tensor]

    def dequantize(self) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`."""
        return self.format.decode(self.codes, self.qparams)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Packed tensors as written to disk."""
        return self.format.pack(self.codes, self.qparams)


class Quantizer(ABC):
    """Chooses codes for a weight. Subclasses are frozen dataclasses of hyperparameters."""

    needs_hessian: ClassVar[bool] = False
    """Whether `quantize` wants the input Gram matrix of the layer."""

    @property
    def needs_fisher(self) -> bool:
        """Whether what it wants as Hessian is the diagonal for each weight, not a Gram matrix."""
        return False

    @property
    def relative(self) -> bool | None:
        """Whether the Gram matrix it wants is the mean of x x^T / |y|^2, y a position's output.

        `None`: in models with a layer norm after each sum (`POST_NORM`).
        """
        return None

    version: ClassVar[int] = 1
    """Raised when the same hyperparameters begin to give other codes; part of every cache key."""

    def quantize(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None = None
    ) -> QuantizedWeight:
        """Quantize one matrix; where the format turns its rows, with its Hessian turned as well.

        Of a pair with inputs the weight's format: what inputs are rounded to is not looked at.

        Args:
            weight: `[n_rows, n_columns]`.
            format: target format; it must fit the shape.
            hessian: float32 `[n_columns, n_columns]`, mean of x x^T over calibration tokens, or of
                x x^T / |y|^2 (`relative`); where
                rows come in groups that read inputs of their own (depthwise convolutions), one
                matrix a group, `[n_groups, n_columns, n_columns]`; where `needs_fisher`, mean
                squared gradient of each weight, `[n_rows, n_columns]`, which says nothing of turned
                ones.

        Raises:
            NonFinite: the weight or the Hessian holds NaN or infinity.
            InvalidArgument: the format does not fit, or a Hessian is needed and not given.
        """
        format = format.weight_format
        weight = checked(weight, format)
        known = self._checked(hessian, weight)
        importance = known if known is None or self.needs_fisher else powers(known, weight.shape[0])
        taken = format.taken_out(weight, importance)
        if taken:
            return self._beside(weight, format, known, taken)
        rotation = format.rotation(weight.shape[1])
        if rotation is None:
            return self.rounded(weight, format, known)
        gram = None if known is None or self.needs_fisher else rotation.gram(known)
        turned = self.rounded(rotation.turn(weight), format.base, gram)
        return QuantizedWeight(format, turned.codes, turned.qparams)

    def _checked(self, hessian: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor | None:
        """What `quantize` was given of the inputs, if this quantizer wants it."""
        if self.needs_fisher:
            return checked_fisher(hessian, weight).to(weight.device)
        if self.needs_hessian and hessian is not None:
            return checked_hessian(hessian, weight).to(weight.device)
        return None

    def _beside(
        self,
        weight: torch.Tensor,
        format: Format,
        hessian: torch.Tensor | None,
        taken: Mapping[str, torch.Tensor],
    ) -> QuantizedWeight:
        """Quantize what is left of a matrix beside what was taken out of it."""
        if hessian is not None:
            hessian = format.rest_columns(hessian, taken)
            if not self.needs_fisher:
                hessian = format.rest_columns(hessian.mT, taken)
        rest = self.rounded(format.rest(weight, taken), format.base, hessian)
        return QuantizedWeight(format, rest.codes, {**rest.qparams, **taken})

    @abstractmethod
    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Choose the codes of a matrix in a format that does not turn it.

        Args:
            weight: finite contiguous float32 `[n_rows, n_columns]` that the format fits.
            format: target format.
            hessian: as of `quantize`, not checked yet.
        """


def checked(weight: torch.Tensor, format: Format) -> torch.Tensor:
    """The weight as contiguous float32, after checking that it is finite and fits the format.

    Raises:
        NonFinite: the weight holds NaN or infinity.
        InvalidArgument: not a matrix, or the format does not fit its shape.
    """
    if weight.ndim != 2 or not format.fits((weight.shape[0], weight.shape[1])):
        group = format.group_columns or format.columns_per_code
        raise InvalidArgument(
            f"Format {format.name!r} does not fit a weight of shape {tuple(weight.shape)}: "
            f"it needs a matrix with whole groups of {group} columns."
        )
    weight = weight.detach().to(torch.float32).contiguous()
    _check_finite(weight, "A weight", "check the checkpoint (a float16 overflow or a broken file)")
    return weight


def checked_hessian(hessian: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    """The Hessian as float32, after checking that it is there, finite and of the right shape.

    Args:
        hessian: one for all rows of the weight, or one for each of several groups of equally many.
        weight: `[n_rows, n_columns]`.

    Raises:
        NonFinite: it holds NaN or infinity.
        InvalidArgument: it is missing or not `[n_columns, n_columns]`, or not as many of them as
            divide the rows.
    """
    n_rows, n_columns = weight.shape
    shape = tuple(hessian.shape) if hessian is not None else ()
    grouped = len(shape) == 3 and shape[0] > 0 and n_rows % shape[0] == 0
    if hessian is None or shape[-2:] != (n_columns, n_columns) or not (len(shape) == 2 or grouped):
        given = "none" if hessian is None else f"shape {shape}"
        raise InvalidArgument(
            f"Error feedback needs a Hessian of shape ({n_columns}, {n_columns}), given {given}: "
            "measure the input Gram matrix of the layer on calibration data."
        )
    hessian = hessian.detach().to(torch.float32)
    _check_finite(hessian, "A Hessian", "check the calibration activations for overflow")
    return hessian


def powers(hessian: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Mean squares of the inputs, `[n_columns]`; of each row's, `[n_rows, n_columns]`, in groups.

    Args:
        hessian: `[n_columns, n_columns]`, or of each group; where no input reached a group, its
            columns count alike.
        n_rows: of the weight.
    """
    found = hessian.diagonal(dim1=-2, dim2=-1)
    if found.ndim == 2:
        found = found.where(found.sum(dim=1, keepdim=True) > 0, 1.0)
    return by_row(found, n_rows)


def by_row(numbers: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Numbers of the columns of each group, `[n_groups, ...]`, as those of each row.

    Without groups, `[n_columns]`, they stay as they are.
    """
    if numbers.ndim == 1:
        return numbers
    return numbers.repeat_interleave(n_rows // len(numbers), dim=0)


def checked_fisher(fisher: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    """Squared gradients as float32, after checking that they are finite and of the right shape.

    Raises:
        NonFinite: they hold NaN or infinity.
        InvalidArgument: missing, or not of the shape of the weight.
    """
    if fisher is None or fisher.shape != weight.shape:
        given = "none" if fisher is None else f"shape {tuple(fisher.shape)}"
        raise InvalidArgument(
            f"Squared gradients of a weight of shape {tuple(weight.shape)} are needed, given "
            f"{given}: measure them on calibration data, or take by=inputs."
        )
    fisher = fisher.detach().to(torch.float32)
    _check_finite(fisher, "A Fisher diagonal", "check the calibration data and weights")
    return fisher


def _check_finite(tensor: torch.Tensor, what: str, remedy: str) -> None:
    low, high = torch.aminmax(tensor)  # NaN passes through; far faster than isfinite of everything
    if not (torch.isfinite(low) and torch.isfinite(high)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NonFinite(
            f"{what} of shape {tuple(tensor.shape)} holds {bad} NaN or infinite values; {remedy}."
        )


def check_clip_search(clip_steps: int, min_clip: float) -> None:
    """Raise InvalidArgument unless `clip_steps >= 0` and `0 < min_clip < 1`."""
    if clip_steps < 0:
        raise InvalidArgument(f"clip_steps={clip_steps} is below 0; 0 keeps the whole range.")
    if not 0 < min_clip < 1:
        raise InvalidArgument(f"min_clip={min_clip} is not between 0 and 1.")


def best_clip(
    weight: torch.Tensor,
    format: Format,
    n_steps: int,
    smallest: float,
    importance: torch.Tensor | None = None,
) -> torch.Tensor | float:
    """Clip of each group with the least `group_error`, float32 `[n_rows, n_groups]`.

    Tries 1 and `n_steps` even steps down to `smallest`.
    """
    if n_steps == 0 or not format.scaled or format.learned:
        return 1.0
    low, high = format.group_range(weight)
    clips = torch.linspace(1, smallest, n_steps + 1).tolist()
    by_column = importance is None or importance.ndim == 1
    if is_fused(weight) and isinstance(format, IntGrouped) and by_column:
        candidates = [format.qparams_of_range(low, high, clip) for clip in clips]
        errors = _group_errors(weight, format, candidates, importance)
        return torch.tensor(clips, device=weight.device)[errors.argmin(dim=0)]
    best, least = torch.ones_like(low), torch.full_like(low, torch.inf)
    for clip in clips:
        qparams = format.qparams_of_range(low, high, clip)
        error = group_error(weight, format, qparams, importance)
        better = error < least
        best[better] = clip
        least = torch.where(better, error, least)
    return best


def _group_errors(
    weight: torch.Tensor,
    format: Format,
    candidates: Sequence[Mapping[str, torch.Tensor]],
    importance: torch.Tensor | None,
) -> torch.Tensor:
    """`group_error` of every candidate in one kernel, `[n_candidates, n_rows, n_groups]`."""
    from bitfront.kernels.fake_quantize import rounding_errors

    scales, zeros = zip(*map(format.affine, candidates), strict=True)
    zero_point = None if zeros[0] is None else torch.stack(zeros)
    scale, num_bits = torch.stack(scales), format.num_bits
    errors: torch.Tensor = rounding_errors(weight, scale, zero_point, num_bits, importance)
    return errors


def nearest_codes(
    weight: torch.Tensor, format: Format, qparams: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`format.encode`, in one kernel where the weight is on a GPU and the levels are integers."""
    if is_fused(weight) and isinstance(format, IntGrouped):
        from bitfront.kernels.fake_quantize import round_to_codes

        codes: torch.Tensor = round_to_codes(weight, *format.affine(qparams), format.num_bits)
        return codes
    return format.encode(weight, qparams)


def group_error(
    weight: torch.Tensor,
    format: Format,
    qparams: Mapping[str, torch.Tensor],
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of importance * |W - Q(W)|^2 over each group, rounded to nearest, `[n_rows, n_groups]`.

    Args:
        weight: float32 `[n_rows, n_columns]`.
        format: what to round to.
        qparams: parameters of the groups.
        importance: of each column, float32 `[n_columns]`, or of each weight; all 1 by default.
    """
    scale, _ = format.affine(qparams)
    error = torch.empty_like(scale)
    for rows, residual, _ in residuals(weight, format, qparams):
        squares = residual.square_()
        if importance is not None:
            squares *= _of_groups(importance, rows, scale.shape[1])
        error[rows] = squares.sum(dim=2) * scale[rows].square()
    return error


def _of_groups(importance: torch.Tensor, rows: slice, n_groups: int) -> torch.Tensor:
    if importance.ndim == 1:
        return importance.reshape(n_groups, -1)
    return importance[rows].reshape(-1, n_groups, importance.shape[1] // n_groups)


def residuals(
    weight: torch.Tensor, format: Format, qparams: Mapping[str, torch.Tensor]
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Rounding errors in units of the scale, a few rows at a time to stay in the cache.

    Yields:
        rows, `weight / scale + zero_point - level` and the nearest level, float32
        `[rows, n_groups, group_columns]`.
    """
    scale, zero_point = format.affine(qparams)
    inverse = 1 / scale
    step = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        groups = weight[rows].reshape(-1, scale.shape[1], weight.shape[1] // scale.shape[1])
        scaled = groups * inverse[rows, :, None]
        if zero_point is not None:
            scaled += zero_point[rows, :, None]
        level = format.rounded_in(scaled, qparams, rows)
        yield rows, scaled.sub_(level), level
