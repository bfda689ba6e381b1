"""The device that models run on: its name, and what is chosen where nothing is said."""

from __future__ import annotations

import torch

from bitfront.environment import cpu_model
from bitfront.errors import InvalidArgument
from bitfront.models.load import placed


def device_name(device: torch.device) -> str:
    """The device in words; a CPU with the threads in use."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{cpu_model()}, {threads} thread{'s' * (threads > 1)}"


def empty(dtype: str, device: str) -> torch.Tensor:
    """A tensor of nothing with the dtype and on the device that `load_model` would choose.

    Raises:
        InvalidArgument: no CUDA device, but asked for; or an unknown dtype or device.
    """
    if dtype not in {"auto", "float32", "bfloat16"} or device not in {"auto", "cpu", "cuda"}:
        raise InvalidArgument(
            f"dtype {dtype!r}, device {device!r}: use auto, float32 or bfloat16, and auto, cpu or "
            "cuda."
        )
    place, chosen = placed(device, dtype)
    return torch.empty(0, dtype=chosen, device=place)
