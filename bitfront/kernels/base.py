"""What a kernel is: a fused operation, a reference of the same arguments, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Generic, ParamSpec

import torch

from bitfront.formats.base import Format

P = ParamSpec("P")


@dataclass(frozen=True)
class Kernel(Generic[P]):
    """A fused operation.

    Args:
        name: its file, and its name under `torch.ops.bitfront`.
        supports: whether `run` takes a format on a device with activations of a dtype.
        reference: the same result in plain torch, on any device.
        run: the result by Triton kernels; triton is imported when it is called.
    """

    name: str
    supports: Callable[[Format, torch.device, torch.dtype], bool]
    reference: Callable[P, torch.Tensor]
    run: Callable[P, torch.Tensor]


@cache
def can_run_triton(device: torch.device) -> bool:
    """Whether Triton compiles for a device: a GPU of compute capability 8.0 or later."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def is_fused(tensor: torch.Tensor) -> bool:
    """Whether Triton kernels run on a tensor: where they can, and no gradient is wanted."""
    return not tensor.requires_grad and can_run_triton(tensor.device)
