"""Outputs of kernels are allocated between guard bands and filled with what no kernel writes."""

import math

import pytest
import torch
from kernels import ptx
from triton.runtime.interpreter import InterpreterBuilder

from bitfront.kernels import _launch

GUARD = 64


@pytest.fixture
def device():
    """The GPU where there is one; else kernels are interpreted on the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def generator():
    """Fresh numbers in every run; a failing test prints the seed."""
    seed = torch.seed() % 2**32
    print("seed", seed)
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def poisoned(monkeypatch):
    """`torch.empty` and its like give NaN (integers: 165) and may only be written inside."""
    buffers, empty = [], torch.empty

    def poison(*size, dtype=None, device=None):
        size = torch.Size(size[0] if size and not isinstance(size[0], int) else size)
        buffer = empty(size.numel() + 2 * GUARD, dtype=dtype, device=device)
        buffer.fill_(math.nan if buffer.is_floating_point() else 165)
        if size.numel():
            buffers.append(buffer)
        return buffer[GUARD : GUARD + size.numel()].view(size)

    def like(tensor, *size, dtype=None, device=None):
        size = size or (tensor.shape,)
        return poison(*size, dtype=dtype or tensor.dtype, device=device or tensor.device)

    monkeypatch.setattr(torch, "empty", poison)
    monkeypatch.setattr(torch, "empty_like", like)
    monkeypatch.setattr(torch.Tensor, "new_empty", like)
    yield
    for buffer in buffers:
        for band in (buffer[:GUARD], buffer[-GUARD:]):
            assert (band.isnan() if band.is_floating_point() else band == 165).all()


@pytest.fixture
def assembled(monkeypatch):
    """Interpreted kernels take their inline PTX too, emulated."""
    monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", ptx.create_inline_asm)
    monkeypatch.setattr(_launch, "emulated", True)
