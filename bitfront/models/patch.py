"""PatchedModel: a model whose weights are swapped for quantized ones, and put back."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.models.bank import WeightBank
from bitfront.models.caches import RoundedCaches
from bitfront.models.fixed import FixedTensors, weights_of
from bitfront.models.layers import get_weight, set_weight
from bitfront.models.rounded_inputs import RoundedInputs


class PatchedModel:
    """A model that takes allocations and returns to its own weights at the end of the block.

        with PatchedModel(model, bank) as patched:
            patched.apply(allocation)

    Only layers whose format differs from the one they hold are swapped, so consecutive candidates
    cost what they change. Originals are copied when first replaced; they come back after
    exceptions too. Caches that have a format, and inputs of layers whose format is a pair, are
    rounded in every forward pass. To measure what a checkpoint holds, `as_stored` gives norms,
    biases and the like the values that it stores while an allocation of all weights is applied.

    Args:
        model: weights change in place, keeping dtype and device.
        bank: where quantized weights come from.
        as_stored: whether all other tensors of a whole allocation are rounded as they are stored.
    """

    def __init__(self, model: nn.Module, bank: WeightBank, as_stored: bool = False) -> None:
        self.model = model
        self.bank = bank
        self._held: dict[str, str] = {}
        self._originals: dict[str, torch.Tensor] = {}
        self._caches = RoundedCaches(model, bank.space)
        self._inputs = RoundedInputs(model, bank)
        self._weights = weights_of(bank.space)
        self._fixed = FixedTensors(model, bank.space, bank.base) if as_stored else None

    def __enter__(self) -> PatchedModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.apply(Allocation({}))
        self._originals.clear()

    def apply(self, allocation: Allocation) -> None:
        """Give each layer its format; a layer that is not named gets its own weight back."""
        caches = {x: f for x, f in allocation.formats.items() if self.bank.space.is_cache(x)}
        for layer in [x for x in self._held if x not in allocation.formats]:
            set_weight(self.model, layer, self._originals[layer])
            del self._held[layer]
        if caches != self._caches.formats:
            self._caches.apply(caches)
        for layer, format in allocation.formats.items():
            if layer not in caches and self._held.get(layer) != format:
                self._swap(layer, format)
        self._inputs.apply(allocation.formats)
        if self._fixed is not None:
            if self._weights <= allocation.formats.keys():
                self._fixed.round()
            else:
                self._fixed.restore()

    def error(self, layer: str) -> torch.Tensor:
        """Held minus original weight of a layer, float32 `[out_features, in_features]`."""
        held = get_weight(self.model, layer).float()
        return (
            held - self._originals[layer].float() if layer in self._held else torch.zeros_like(held)
        )

    def _swap(self, layer: str, format: str) -> None:
        before = self._held.get(layer)
        if before is not None and self.bank.stored_as(before) == self.bank.stored_as(format):
            self._held[layer] = format  # only the inputs differ
            return
        held = get_weight(self.model, layer)
        weight = self.bank.weight(layer, format, held.device)
        if layer not in self._originals:
            self._originals[layer] = held.clone()
        # Marked before writing: an interrupt halfway must still restore this layer.
        self._held[layer] = format
        set_weight(self.model, layer, weight)
