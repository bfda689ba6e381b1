"""Randomized Hadamard rotations of rows, and formats of rows that are turned before rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import shake_256
from typing import TYPE_CHECKING

from bitfront.formats._derived import Derived

if TYPE_CHECKING:
    import torch

BLOCK = 256
"""Columns that are turned together; a product with it costs so many multiplications a number."""
_LARGEST = 2.0**126
"""Sums of a block of numbers up to it over its size are finite float32."""


@dataclass(frozen=True)
class Rotation:
    """The orthogonal map `v -> v D H` of rows of `n_columns` numbers.

    D holds random signs, the same for every matrix, and H is block-diagonal with Hadamard matrices
    over the square root of their size (QuIP#, Tseng et al. 2024, arXiv:2402.04396, section 3;
    QuaRot, Ashkboos et al. 2024, arXiv:2404.00456). Blocks are 256 columns; of the columns that
    remain, the powers of two that add up to their number: 570 is 256 + 256 + 32 + 16 + 8 + 2. A
    block of one column has nothing to turn with.

    Args:
        n_columns: length of a row.
    """

    n_columns: int

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Size and number of the blocks, in order of the columns.

        >>> Rotation(570).blocks
        ((256, 2), (32, 1), (16, 1), (8, 1), (2, 1))
        """
        rest = self.n_columns % BLOCK
        sizes = [1 << bit for bit in range(BLOCK.bit_length() - 2, -1, -1) if rest >> bit & 1]
        whole = self.n_columns // BLOCK
        return (*(((BLOCK, whole),) if whole else ()), *((size, 1) for size in sizes))

    def turn(self, rows: torch.Tensor) -> torch.Tensor:
        """Turned rows `[..., n_columns]` of the same float dtype, computed in float32 or wider."""
        signs = _signs(self.n_columns, rows.device)
        return self._mixed(_wide(rows) * signs).to(rows.dtype)

    def undo(self, rows: torch.Tensor) -> torch.Tensor:
        """The inverse of `turn`, which is its transpose."""
        signs = _signs(self.n_columns, rows.device)
        return (self._mixed(_wide(rows)) * signs).to(rows.dtype)

    def gram(self, gram: torch.Tensor) -> torch.Tensor:
        """The Gram matrix of turned inputs from that of the inputs."""
        turned = self.turn(self.turn(gram).mT).mT
        return (turned + turned.mT) / 2  # rounding makes it a little lopsided

    def _mixed(self, rows: torch.Tensor) -> torch.Tensor:
        import torch

        limit = _LARGEST / BLOCK  # a larger number saturates: no sum of a block may overflow
        rows, parts, first = rows.clamp(-limit, limit), [], 0
        for size, count in self.blocks:
            block = rows[..., first : first + size * count]
            turned = block.reshape(*rows.shape[:-1], count, size) @ _hadamard(size, rows)
            parts.append(turned.reshape(block.shape))
            first += size * count
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


class Rotated(Derived):
    """A format of turned rows: what `base` stores is the weight times a `Rotation`.

    The inputs of the layer are turned once, and then multiply what is stored. All methods take
    and give weights as they are; quantizers work on turned ones, in `base`.
    """

    def rotation(self, n_columns: int) -> Rotation:
        """That of the whole row; its signs are the same for all, and stored nowhere."""
        return Rotation(n_columns)

    @property
    def telling_columns(self) -> int:
        """A whole block, and a smaller one."""
        return BLOCK + (self.group_columns or 64)

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Those of the turned weight; the importance of columns means nothing to turned ones."""
        return self.base.qparams(self.rotation(weight.shape[1]).turn(weight), clip)

    def group_range(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the turned weight."""
        return self.base.group_range(self.rotation(weight.shape[1]).turn(weight))

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes of the turned weight."""
        return self.base.encode(self.rotation(weight.shape[1]).turn(weight), qparams)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`, turned back."""
        turned = self.base.decode(codes, qparams)
        return self.rotation(turned.shape[1]).undo(turned)


def _wide(rows: torch.Tensor) -> torch.Tensor:
    import torch

    return rows if rows.dtype == torch.float64 else rows.float()


@cache
def _signs(n_columns: int, device: torch.device) -> torch.Tensor:
    """Random signs, float32 `[n_columns]`: bits of SHAKE-256, the same everywhere for ever."""
    import numpy as np
    import torch

    drawn = shake_256(b"signs of a rotation").digest(-(-n_columns // 8))
    bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8))[:n_columns]
    return torch.from_numpy(1.0 - 2.0 * bits.astype(np.float32)).to(device)


def _hadamard(size: int, like: torch.Tensor) -> torch.Tensor:
    return _matrix(size, like.device).to(like.dtype)


@cache
def _matrix(size: int, device: torch.device) -> torch.Tensor:
    """Hadamard matrix of a power of two over the root of its size, float64, symmetric."""
    import torch

    matrix = torch.ones(1, 1, dtype=torch.float64)
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    while len(matrix) < size:
        matrix = torch.kron(matrix, half)
    return matrix.to(device)
