"""Plain bfloat16 checkpoint with rounded weights, for any engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from bitfront.allocation import Allocation
from bitfront.export.base import HuggingFaceFolder
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel
from bitfront.models.matrices import as_stored


@dataclass(frozen=True)
class FakeQuant(HuggingFaceFolder):
    """Plain bfloat16 Hugging Face folder whose weights have the values of their formats.

    It is as large as the unquantized model and needs no bitfront to load: choose it to measure an
    allocation with other tools. Values are rounded once more, to bfloat16.
    """

    carries_offsets: ClassVar[bool] = True

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the folder.

        Raises:
            StorageError: it could not be written; nothing half-written is left.
        """
        tensors = {}
        for layer, format in allocation.formats.items():
            weight = bank.weight(layer, format).to("cpu", torch.bfloat16)
            tensors[f"{layer}.weight"] = as_stored(model.module.get_submodule(layer), weight)
        self.write_folder(directory, model, allocation, tensors, as_published=True)
