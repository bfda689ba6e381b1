"""What the headers of weight files tell of a model, without its weights and without torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitfront.errors import InvalidModel

MAX_HEADER_BYTES = 6_000_000
_MAX_TENSORS = 200_000
_MAX_FILES = 1_000
_MAX_SIZE = 2**48
_OUTSIDE = ("embed", "wte", "wpe", "lm_head", "norm", "router")
"""Parts of names of matrices that no search covers."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError)
"""What `header` raises: it is anybody's bytes, too deep, too long, not what it should be."""
_GATES = (".gate.weight", "_gate.weight")
_STACKS = tuple(f".experts.{part}" for part in ("gate_up_proj", "up_proj", "down_proj"))


@dataclass(frozen=True)
class Matrices:
    """Equal matrices: one, or those of all experts of a block.

    Args:
        shape: `(out_features, in_features)` of each.
        n: how many.
    """

    shape: tuple[int, int]
    n: int = 1


@dataclass(frozen=True)
class WeightHeaders:
    """Tensors of a model folder.

    Args:
        shapes: by name.
        nbytes: of all weight files.
    """

    shapes: Mapping[str, tuple[int, ...]]
    nbytes: int

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def layers(self, with_experts: bool, n_classes: int = 0) -> dict[str, Matrices]:
        """What a search would cover, judged by names.

        Args:
            with_experts: whether routed experts are searched.
            n_classes: of a model that classifies images, whose head is no layer; else 0.
        """
        kernels = {
            name.removesuffix(".weight"): Matrices((shape[0], math.prod(shape[1:])))
            for name, shape in self.shapes.items()
            if len(shape) == 4 and name.endswith(".weight")
        }
        made = kernels | {
            name.removesuffix(".weight"): Matrices((shape[0], shape[1]))
            for name, shape in self.shapes.items()
            if len(shape) == 2
            and name.endswith(".weight")
            and not (shape[0] == n_classes and _is_head(name))
            and not any(part in name for part in _OUTSIDE)
            and not name.endswith(_GATES)
            and (with_experts or ".experts." not in name)
        }
        return made | self._stacked() if with_experts else made

    def _stacked(self) -> dict[str, Matrices]:
        """Experts that a file has as one tensor `[n_experts, ...]` of each kind."""
        stacks = {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if len(shape) == 3 and name.removesuffix(".weight").endswith(_STACKS)
        }
        made = {}
        for name, shape in stacks.items():
            module = name.rpartition(".")[0]
            first = stacks.get(f"{module}.gate_up_proj") or stacks.get(f"{module}.up_proj", shape)
            last = stacks.get(f"{module}.down_proj", shape)
            # Columns of the first are rows of the last, or both are stored transposed.
            turned = first[2] != last[1] and first[1] == last[2]
            rows, columns = shape[:0:-1] if turned else shape[1:]
            made[name] = Matrices((rows, columns), shape[0])
        return made


def read(folder: Path) -> WeightHeaders:
    """Headers of the safetensors files of a folder.

    Raises:
        InvalidModel: no such file, or one with a header that cannot be.
    """
    files = sorted(folder.glob("*.safetensors"))[:_MAX_FILES]
    if not files:
        raise InvalidModel("The model folder has no .safetensors file: convert the weights.")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            shapes |= header(file)
        except UNREADABLE as error:
            raise InvalidModel(f"{file.name} is not safetensors: {reason(error)}.") from error
    return WeightHeaders(shapes, sum(file.stat().st_size for file in files))


def reason(error: Exception) -> str:
    """What is wrong with a header, in a few words."""
    lacks = f"it has no {error.args[0]}" if isinstance(error, KeyError) and error.args else ""
    return lacks[:200] or str(error)[:200] or type(error).__name__


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a safetensors file; raises what `UNREADABLE` names."""
    n_bytes = file.stat().st_size
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 2 <= size <= min(MAX_HEADER_BYTES, n_bytes - 8):
            raise ValueError(f"its header has {size:,} bytes")
        told: dict[str, Any] = json.loads(stream.read(size))
    told.pop("__metadata__", None)
    if len(told) > _MAX_TENSORS:
        raise ValueError(f"it names {len(told):,} tensors")
    found = {}
    for name, entry in told.items():
        shape = tuple(entry["shape"])
        first, last = entry["data_offsets"]
        whole = all(type(n) is int and 0 <= n < _MAX_SIZE for n in (*shape, first, last))
        if len(shape) > 8 or not whole or not first <= last <= n_bytes - 8 - size:
            raise ValueError(f"tensor {name[:80]!r} has the shape {shape[:8]}"[:200])
        found[name] = shape
    return found


def sample_length(file: Path) -> int:
    """Tokens of each sample of a file that requests may name."""
    return header(file)["input_ids"][1]


def _is_head(name: str) -> bool:
    """Whether a weight lies in no block, or in what models call their head."""
    return re.search(r"\.\d+\.", name) is None or name.startswith(("classifier.", "head.", "fc."))
