"""FixedTensors: what no format touches, as a checkpoint stores it, and back."""

from __future__ import annotations

import torch
from torch import nn

from bitfront.models.layers import fixed_tensors, stored_dtype
from bitfront.space import SearchSpace


class FixedTensors:
    """Norms, biases and the like of a model, rounded to the dtype of a checkpoint while asked for.

    Of a model in bfloat16 nothing changes. Originals are kept while the rounded values stand.

    Args:
        model: tensors change in place, keeping dtype and device.
        space: whose weights, pinned ones included, are stored in formats.
        base: what equals this model's is not stored, and stays.
        vectors: whether norms and biases are rounded; GGUF stores them in float32.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        base: nn.Module | None = None,
        vectors: bool = True,
    ) -> None:
        fixed = fixed_tensors(model, weights_of(space), base).values()
        stored = [(t.detach(), stored_dtype(t)) for t in fixed if vectors or t.dim() != 1]
        self._rounded = [(tensor, dtype) for tensor, dtype in stored if dtype != tensor.dtype]
        self._originals: list[torch.Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._rounded)

    def round(self) -> None:
        """Give each tensor its stored value."""
        if not self._originals:
            self._originals = [tensor.clone() for tensor, _ in self._rounded]
            for tensor, dtype in self._rounded:
                tensor.copy_(tensor.to(dtype))

    def restore(self) -> None:
        """Give each tensor its own value."""
        if self._originals:
            for (tensor, _), original in zip(self._rounded, self._originals, strict=True):
                tensor.copy_(original)
            self._originals = []


def weights_of(space: SearchSpace) -> frozenset[str]:
    """Names of the layers of a space that have weights, pinned ones included."""
    names = (x.name for x in (*space.layers, *(layer for layer, _ in space.pinned)))
    return frozenset(name for name in names if not space.is_cache(name))
