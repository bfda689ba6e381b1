"""Recipe for llm-compressor: the allocation, quantized by its own methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.export._recipes import searched, write_recipe
from bitfront.export._schemes import config_groups
from bitfront.export.base import Exporter
from bitfront.models.bank import WeightBank
from bitfront.models.load import LoadedModel

MODIFIERS = ("QuantizationModifier", "GPTQModifier")


@dataclass(frozen=True)
class LlmCompressor(Exporter):
    """`recipe.json` for `llmcompressor.oneshot(recipe=...)`: one config group per format.

    No weights: llm-compressor quantizes the model anew, on its own calibration data. Embedding
    and head stay as they are. Words of `QuantizationMixin` in llmcompressor 0.14; asymmetric
    integers get whole zero points there.

    Args:
        modifier: `GPTQModifier`, or `QuantizationModifier` for plain rounding.
    """

    modifier: str = "GPTQModifier"

    carries_inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.modifier not in MODIFIERS:
            raise InvalidArgument(
                f"modifier is {self.modifier!r}: give one of {', '.join(MODIFIERS)}."
            )

    def write(
        self, model: LoadedModel, allocation: Allocation, bank: WeightBank, directory: Path
    ) -> None:
        """Write the recipe.

        Raises:
            InvalidArgument: a format that compressed-tensors does not know; names the layer.
            StorageError: it could not be written; nothing half-written is left.
        """
        groups = config_groups(searched(model, allocation))
        fields = {"config_groups": groups, "ignore": ["lm_head"]}
        recipe = {"quantize_stage": {"quantize_modifiers": {self.modifier: fields}}}
        write_recipe(directory, model, allocation, "recipe.json", recipe)
