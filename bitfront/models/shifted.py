"""Inputs of layers before and after the layers ahead of them were quantized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import nn

from bitfront.allocation import Allocation
from bitfront.formats import named
from bitfront.models.layers import get_weight, set_weight
from bitfront.models.matrices import gram, input_rows, n_rows
from bitfront.models.statistics import gram_shape
from bitfront.models.tasks import device_of, run
from bitfront.quantizers.base import Quantizer
from bitfront.quantizers.rtn import Rtn
from bitfront.space import SearchSpace

Inputs = tuple[torch.Tensor, ...]


class ShiftedGrams(Mapping[str, torch.Tensor]):
    """`shifted_grams` of each layer, its predecessors quantized by an allocation.

    Quantizes a copy of the model layer by layer as matrices are asked for, so that what comes out
    of `WeightBank.build` is what the matrices were measured with:

        grams = ShiftedGrams(model, tokens, space, allocation, quantizer)
        WeightBank.build(directory, model, space, quantizer, grams, used=allocation)

    Ask in the order of the space; stepping back begins again. Costs memory for a copy of the model,
    and for every group of layers two forward passes up to it.

    Args:
        model: the unquantized causal language model; it must not change meanwhile.
        tokens: token ids, int64 `[n_sequences, sequence_length]`.
        space: the layers, in the order that the model runs them.
        allocation: the format of each.
        quantizer: how codes are chosen; a `gptaq`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: torch.Tensor,
        space: SearchSpace,
        allocation: Allocation,
        quantizer: Quantizer,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.allocation = allocation
        self.quantizer = quantizer
        self._pinned = [layer.name for layer, _ in space.pinned if layer.name in allocation.formats]
        by_group = groupby(space.layers, key=lambda layer: layer.group)
        self._runs = [tuple(layer.name for layer in run) for _, run in by_group]
        self._run_of = {name: i for i, run in enumerate(self._runs) for name in run}
        self._begin()

    def _begin(self) -> None:
        self._at = -1
        self._held: dict[str, torch.Tensor] = {}
        self._changed = copy.deepcopy(self.model)
        for name in self._pinned:
            self._swap(name, Rtn(), None)

    def __getitem__(self, name: str) -> torch.Tensor:
        wanted = self._run_of[name]
        if wanted < self._at:
            self._begin()
        while self._at < wanted:
            for layer, statistics in self._held.items():
                self._swap(layer, self.quantizer, statistics)
            self._at += 1
            names = self._runs[self._at]
            self._held = shifted_grams(self.model, self._changed, self.tokens, names)
        return self._held[name]

    def _swap(self, name: str, quantizer: Quantizer, statistics: torch.Tensor | None) -> None:
        if name not in self.allocation.formats:
            return
        # As `WeightBank.build` does it: of a pair the weight's format, by `rtn` without inputs.
        if statistics is not None and not statistics.any():
            quantizer, statistics = Rtn(), None
        format = named(self.allocation.formats[name]).weight_format
        weight = get_weight(self.model, name).float()
        set_weight(self._changed, name, quantizer.quantize(weight, format, statistics).dequantize())

    def __iter__(self) -> Iterator[str]:
        return iter(self._run_of)

    def __len__(self) -> int:
        return len(self._run_of)


def shifted_grams(
    model: nn.Module, changed: nn.Module, tokens: torch.Tensor, layer_names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Means of y y^T and (x - y) y^T, float32 `[2, n_groups, in_features, in_features]` by layer.

    x is the input of a layer in `model`, y in `changed`; there is one group but in convolutions
    whose groups read inputs of their own. Where both do not see the same tokens
    (experts), (x - y) counts as 0.

    Args:
        model: causal language model.
        changed: the same with other weights before these layers.
        tokens: token ids, int64 `[n_sequences, sequence_length]`.
        layer_names: module names.
    """
    device = device_of(model)
    sums: dict[str, torch.Tensor] = {}
    counts = dict.fromkeys(layer_names, 0)
    for sequence in tokens:
        before = _inputs(model, sequence[None], layer_names)
        after = _inputs(changed, sequence[None], layer_names)
        for name, y in after.items():
            x = before.get(name)
            shift = x - y if x is not None and x.shape == y.shape else torch.zeros_like(y)
            products = torch.stack([gram(y), gram(shift, y)])
            sums[name] = products if name not in sums else sums[name] + products
            counts[name] += n_rows(y)
    for name in set(layer_names) - set(sums):
        sums[name] = torch.zeros(2, *gram_shape(model, name), device=device)
    means = {name: sums[name] / max(counts[name], 1) for name in layer_names}
    return {name: mean[:, None] if mean.ndim == 3 else mean for name, mean in means.items()}


class _AllSeen(Exception):
    """Ends a forward pass once every wanted input was seen."""


def _inputs(
    model: nn.Module, tokens: torch.Tensor, layer_names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Float32 rows of inputs of the layers that are called."""
    found: dict[str, torch.Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, Inputs], None]:
        def keep(module: nn.Module, inputs: Inputs) -> None:
            found[name] = input_rows(module, inputs[0].detach()).float()
            if len(found) == len(layer_names):
                raise _AllSeen

        return keep

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(record(name)) for name in layer_names
    ]
    try:
        with torch.no_grad():
            run(model, tokens)
    except _AllSeen:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found
