"""How a product is launched: a rule for every case, and what was tuned for a device.

Tuned launches are read once, on the first product on a device: those that come with bitfront from
`bitfront/kernels/tuned`, and over them those of this machine from `kernels` in the folder
`BITFRONT_HOME`, else `~/.cache/bitfront`. Nothing is tuned unless `bitfront.kernels.tuning.tune` is
called.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bitfront.errors import InvalidArgument
from bitfront.files import replacing
from bitfront.kernels._blocks import BlockMatrix

KERNELS = ("gemv", "gemm", "decode")
MOST_TOKENS = 256
"""Beyond it, multiplying costs more than reading 16-bit weights: decode them and use cuBLAS."""
_MOST_LIVE = 32
"""Of `Block.n_live` where a tile of eight rows still fits the registers, by compiling for sm_90."""
_PROGRAMS = 264
"""Programs that fill a large GPU: two for each of 132 multiprocessors."""


@dataclass(frozen=True)
class Launch:
    """Launch parameters of one product.

    Args:
        kernel: "gemv" (one token), "gemm", or "decode" (decode the weight, then cuBLAS).
        block_m: tokens to a tile of gemm.
        block_n: outputs to a tile.
        block_w: words to a tile: int32 in gemv, containers of 16 bits in gemm.
        splits: parts that the columns are cut into, added up by a second launch.
        num_warps: warps to a program.
        num_stages: tiles that are loaded ahead.

    Raises:
        InvalidArgument: another kernel, a number that is no positive integer, or a block or number
            of warps that is no power of two.
    """

    kernel: str
    block_m: int = 16
    block_n: int = 64
    block_w: int = 32
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 3

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise InvalidArgument(f"Unknown launch {self.kernel!r}: use {', '.join(KERNELS)}.")
        for name in ("block_m", "block_n", "block_w", "splits", "num_warps", "num_stages"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise InvalidArgument(f"{name} of a launch is {number!r}: give an integer from 1.")
            if name not in ("splits", "num_stages") and number & (number - 1):
                raise InvalidArgument(f"{name} of a launch is {number}: give a power of two.")


def default_launch(n_tokens: int, matrix: BlockMatrix) -> Launch:
    """A sane launch without tuning, by tokens, bits and shape.

    One token goes to `gemv`, where a tile of a few rows spans as many columns as its warps read
    at once, unless `gemm` takes fewer instructions. Up to `MOST_TOKENS` go to `gemm`, its columns
    split until the programs fill a GPU.
    """
    n_rows = matrix.shape[0]
    blocks = list(matrix)
    if n_tokens == 1 and all(block.has_words and not block.suits_tiles for block in blocks):
        words = max(block.strides(32)[0] for block in blocks)
        num_warps = min(4, max(1, _power_of_two(words) // 128))
        # Looking levels up takes more registers, as do many scales; eight rows would spill them.
        crowded = any(block.looks_up or block.n_live > _MOST_LIVE for block in blocks)
        wide = n_rows >= 8 * _PROGRAMS and not crowded
        block_n = 8 if wide else 4
        return Launch("gemv", 1, block_n, 128 * num_warps, num_warps=num_warps)
    if n_tokens > MOST_TOKENS:
        return Launch("decode")
    block_m = min(64, max(16, _power_of_two(n_tokens)))
    block_n = 128 if n_rows * n_tokens >= 128 * block_m * _PROGRAMS else 64
    block_w = 32 if all(block.run_columns >= 32 for block in blocks) else 16
    tiles = -(-n_rows // block_n) * -(-n_tokens // block_m)
    words = min(block.strides(16)[0] for block in blocks)
    splits = min(8, max(1, _PROGRAMS // tiles), max(1, words // (4 * block_w)))
    return Launch("gemm", block_m, block_n, block_w, splits=splits)


def launch(n_tokens: int, matrix: BlockMatrix, dtype: str, device: str) -> Launch:
    """The launch tuned for activations of a dtype on a device by name, else the default.

    Raises:
        InvalidArgument: a file of tuned launches cannot be read.
    """
    tuned = _tuned(device).get(case(n_tokens, matrix, dtype)) if device else None
    return tuned or default_launch(n_tokens, matrix)


def case(n_tokens: int, matrix: BlockMatrix, dtype: str) -> str:
    """What launches are tuned for; tokens count as the next power of two, at most 512.

    >>> from bitfront.kernels._blocks import block_matrix
    >>> case(12, block_matrix((4096, 1024), (4096,), ("int4_g64", "int3_g64")), "float16")
    '16 x 4096+1024 x 4096 int4_g64,int3_g64 float16'
    """
    rows, columns = ("+".join(map(str, cuts)) for cuts in (matrix.n_rows, matrix.n_columns))
    tokens = min(2 * MOST_TOKENS, _power_of_two(n_tokens))
    return f"{tokens} x {rows} x {columns} {','.join(matrix.formats)} {dtype}"


def save(device: str, launches: Mapping[str, Launch]) -> Path:
    """Add launches by `case` to the file of a device on this machine.

    Raises:
        InvalidArgument: what is there cannot be read.
        StorageError: the file cannot be written.
    """
    path = _folders()[-1] / _file_name(device)
    known = _read(path) if path.is_file() else {}
    data = {name: dataclasses.asdict(each) for name, each in sorted({**known, **launches}.items())}
    with replacing(path) as partial:
        partial.write_text(json.dumps({"device": device, "launches": data}, indent=1) + "\n")
    _tuned.cache_clear()
    return path


@cache
def _tuned(device: str) -> Mapping[str, Launch]:
    paths = [folder / _file_name(device) for folder in _folders()]
    return {case: each for path in paths if path.is_file() for case, each in _read(path).items()}


def _folders() -> tuple[Path, Path]:
    home = Path(os.environ.get("BITFRONT_HOME", Path.home() / ".cache" / "bitfront"))
    return Path(__file__).parent / "tuned", home / "kernels"


def _file_name(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_") + ".json"


def _read(path: Path) -> dict[str, Launch]:
    try:
        launches = json.loads(path.read_text())["launches"]
        return {case: Launch(**fields) for case, fields in launches.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidArgument(
            f"Cannot read the tuned launches of {path}: {error}. Delete the file or tune again."
        ) from error


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
