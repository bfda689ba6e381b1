"""Tensors of a GGUF file, made one by one as they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to write.

    Args:
        name: in the file.
        kind: type of its blocks.
        shape: of the numbers, not of the bytes.
        make: its bytes, uint8 `[n_rows, n_bytes]` or `[n_bytes]`.
    """

    name: str
    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        """Bytes in the file, padding between tensors left out."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return prod(self.shape) // int(block) * int(size)


def write_tensors(writer: gguf.GGUFWriter, tensors: Sequence[GgufTensor], path: Path) -> None:
    """Write a file: what the writer has been told, then the tensors.

    Args:
        writer: has all fields and no tensor yet.
        tensors: in the order of the file.
        path: of the file.

    Raises:
        OSError: disk full or no permission.
    """
    for tensor in tensors:
        numbers = np.dtype(np.float32)  # the shape is that of numbers
        writer.add_tensor_info(tensor.name, tensor.shape, numbers, tensor.nbytes, tensor.kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        for tensor in tensors:
            # Not by its `write_tensor_data`: numpy's `tofile` is silent about a full disk.
            file.write(np.ascontiguousarray(tensor.make()).data)
            writer.write_padding(file, tensor.nbytes)
        file.flush()
    finally:
        for file in writer.fout or ():
            with suppress(OSError):  # the buffer is not empty after a full disk, and fails again
                file.close()
