"""Triton kernels, one operation a file, each beside a reference in plain torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_fused(tensor: torch.Tensor) -> bool:
    """Whether kernels run on a tensor: it is on a GPU, needs no gradient, and triton is there."""
    return tensor.is_cuda and not tensor.requires_grad and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
