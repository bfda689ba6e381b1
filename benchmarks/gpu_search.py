"""How much faster are the parts of a search that have kernels, against torch on the same GPU?

    python benchmarks/gpu_search.py

Rows: `kl` and `reference` of one sequence (2,047 tokens of a vocabulary of 128,256), `quantize` of
a 14,336 x 4,096 weight by `rtn` with its search for clips, `swap` of such a weight from the bank
to the model. `torch` is the same code with the kernels switched off, for `swap` decoding on the
processor. Times are wall seconds of a call with what it waits for, the median of `--n-rounds` in
which the two ways take turns, after one call each. Appends to `benchmarks/results/gpu_search.csv`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from record import Record
from torch import nn

from bitfront import formats
from bitfront.models import bank as bank_module
from bitfront.models import reference as reference_module
from bitfront.models.bank import WeightBank
from bitfront.models.reference import Reference
from bitfront.quantizers import base as quantizers
from bitfront.quantizers.rtn import Rtn
from bitfront.space import Layer, SearchSpace

COLUMNS = (
    *("device", "part", "format", "n_rounds", "kernel_ms", "torch_ms", "over_torch"),
    "largest_difference",
)
FORMATS = ("int3_g64", "int4_g128_sym")
SWITCHES = (
    (reference_module, "is_fused"),
    (quantizers, "is_fused"),
    (bank_module, "can_run_triton"),
)


def main() -> None:
    """Time every part both ways."""
    arguments = parse()
    device = torch.device(arguments.device)
    record = Record("gpu_search", COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(arguments, device, Path(folder)):
            kernel, plain, difference = both_ways(part.run, device, arguments.n_rounds)
            record.add(
                device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                part=part.name,
                format=part.format,
                n_rounds=arguments.n_rounds,
                kernel_ms=round(1e3 * kernel, 3),
                torch_ms=round(1e3 * plain, 3),
                over_torch=round(plain / kernel, 2),
                largest_difference=f"{difference:.2g}",
            )


def parse() -> argparse.Namespace:
    """Command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--device", default="cuda")
    made.add_argument("--n-rounds", type=int, default=15)
    made.add_argument("--n-tokens", type=int, default=2048)
    made.add_argument("--vocabulary", type=int, default=128_256)
    made.add_argument("--rows", type=int, default=14_336)
    made.add_argument("--columns", type=int, default=4096)
    return made.parse_args()


@dataclass(frozen=True)
class Part:
    """Something that a search does; `run` gives a tensor that both ways agree on."""

    name: str
    format: str
    run: Callable[[], torch.Tensor]


def parts(arguments: argparse.Namespace, device: torch.device, folder: Path) -> Iterator[Part]:
    """All parts, on fresh random data."""
    model = Fixed(arguments.vocabulary, device)
    tokens = torch.randint(arguments.vocabulary, (1, arguments.n_tokens))
    reference = Reference.of(model, tokens)
    logits = model.noisy(arguments.n_tokens - 1)
    yield Part("kl", "", lambda: reference.kl(logits, 0))
    yield Part("reference", "", lambda: Reference.of(model, tokens).log_tail)
    weight = torch.randn(arguments.rows, arguments.columns, device=device) / 64
    linear = nn.Linear(arguments.columns, arguments.rows, bias=False, device=device)
    linear.weight.data.copy_(weight)
    for name in FORMATS:
        format = formats.named(name)
        yield Part("quantize", name, lambda f=format: Rtn().quantize(weight, f).codes.float())
        space = SearchSpace((Layer("0", tuple(weight.shape), "0"),), (format,))
        bank = WeightBank.build(folder, nn.Sequential(linear), space, Rtn(clip_steps=0))
        yield Part("swap", name, lambda b=bank, n=name: b.weight("0", n, device))


class Fixed(nn.Module):
    """A model that predicts the same random logits, bfloat16, whatever it reads."""

    def __init__(self, vocabulary: int, device: torch.device) -> None:
        super().__init__()
        self.row = nn.Parameter(4 * torch.randn(vocabulary, device=device, dtype=torch.bfloat16))

    def forward(self, tokens: torch.Tensor, use_cache: bool) -> Fixed:
        """Itself; its logits are what is read."""
        self.logits = self.row.expand(1, tokens.shape[1], -1).contiguous()
        return self

    def noisy(self, n: int) -> torch.Tensor:
        """Logits near those of `n` tokens."""
        with torch.no_grad():
            row = self.row.expand(n, -1)
            return row + torch.randn(row.shape, device=row.device, dtype=row.dtype) / 8


def both_ways(
    run: Callable[[], torch.Tensor], device: torch.device, n_rounds: int
) -> tuple[float, float, float]:
    """Median seconds with kernels and without, and the largest difference of what they give."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with kernels(on=False):
        plain = run()
    difference = float((run() - plain).abs().max())
    for _ in range(n_rounds):
        for on, seconds in found.items():
            with kernels(on):
                seconds.append(timed(run, device))
    return median(found[True]), median(found[False]), difference


@contextmanager
def kernels(on: bool) -> Iterator[None]:
    """Switch the kernels off within the block, unless they are to stay on."""
    off = [] if on else [patch.object(*switch, lambda _: False) for switch in SWITCHES]
    for each in off:
        each.start()
    try:
        yield
    finally:
        for each in off:
            each.stop()


def timed(run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Wall seconds of a call, and of all it put on the device."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
