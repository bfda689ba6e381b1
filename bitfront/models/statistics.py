"""Input statistics of layers: Gram matrices, from one pass of hooks."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import torch
from torch import nn

from bitfront.errors import NonFinite
from bitfront.models.layers import get_weight
from bitfront.models.matrices import gram, input_rows, n_groups, n_rows, output_rows, reading
from bitfront.models.tasks import Task, device_of, run, task_of
from bitfront.quantizers.base import Quantizer

Inputs = tuple[torch.Tensor, ...]
SMALLEST = 1e-6
"""Of |y|^2 over its mean in one call: a position with less counts as if it had that."""
POST_NORM = frozenset(
    (
        *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"),
        *("mpnet", "roberta", "xlm-roberta"),
    )
)
"""Types of models with a layer norm after each sum of a layer's output and the residual."""


def counts_relative(model: nn.Module, quantizer: Quantizer) -> bool:
    """Whether a quantizer counts an error at a position relative to what a layer puts out there.

    Args:
        model: which; of `POST_NORM` those that want Gram matrices do, unless told.
        quantizer: which.
    """
    if not quantizer.needs_hessian or quantizer.needs_fisher:
        return False
    if quantizer.relative is not None:
        return quantizer.relative
    return getattr(getattr(model, "config", None), "model_type", None) in POST_NORM


def input_grams(
    model: nn.Module,
    tokens: torch.Tensor,
    layer_names: Sequence[str],
    relative: bool = False,
) -> dict[str, torch.Tensor]:
    """Mean of x x^T over the inputs of each layer, float32 `[in_features, in_features]`.

    Of a convolution x is a patch of its input, one for each position of the output; in a grouped
    one (depthwise) each group reads its own, and has a matrix: `[n_groups, in_features,
    in_features]`. Layers that read the same tensor alike (q/k/v, gate/up) share one matrix object,
    computed once. The mean is over the tokens a layer truly saw; a layer that saw none gets zeros.

    Args:
        model: causal language model.
        tokens: token ids, int64 `[n_sequences, sequence_length]`.
        layer_names: module names; memory is one matrix per distinct input among them.
        relative: the mean of x x^T / |y|^2 instead, y what the layer puts out there; one matrix per
            layer.

    Raises:
        NonFinite: an input, with `relative` or an output, holds NaN or infinity; names the layer.
    """
    sums = (_RelativeGramSums if relative else _GramSums)(task_of(model))
    hooks = [
        model.get_submodule(name).register_forward_hook(sums.hook(name)) for name in layer_names
    ]
    try:
        with torch.no_grad():
            for sequence in tokens:
                run(model, sequence[None])
    finally:
        for hook in hooks:
            hook.remove()
    means = {name: sums.mean(name) for name in sums.totals}
    for name in layer_names:
        if name not in sums.owner:
            sums.owner[name] = name
            means[name] = torch.zeros(gram_shape(model, name), device=device_of(model))
    return {name: means[sums.owner[name]] for name in layer_names}


def gram_shape(model: nn.Module, name: str) -> tuple[int, ...]:
    """That of the Gram matrix of a layer's inputs; three numbers where groups have their own."""
    width, groups = get_weight(model, name).shape[1], n_groups(model.get_submodule(name))
    return (width, width) if groups == 1 else (groups, width, width)


class LayerStatistics(Mapping[str, torch.Tensor]):
    """A tensor of each layer, computed when asked for, a bounded number of layers per pass.

    Ask in the order of `n_numbers`: only the tensors of the current run of layers are held, and
    stepping back costs another pass.

    Args:
        n_numbers: size of each layer's tensor, in order of use.
        max_bytes: memory of the tensors of one pass; at least one layer is always taken.
    """

    def __init__(self, n_numbers: Mapping[str, int], max_bytes: int) -> None:
        self._runs = _runs(n_numbers, max_bytes)
        self._run_of = {name: run for run in self._runs for name in run}
        self._held: dict[str, torch.Tensor] = {}

    @abstractmethod
    def of_run(self, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """The tensors of some layers, from one pass."""

    def __getitem__(self, name: str) -> torch.Tensor:
        run = self._run_of[name]
        if name not in self._held:
            self._held = {}
            self._held = self.of_run(run)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._run_of)

    def __len__(self) -> int:
        return len(self._run_of)


class InputGrams(LayerStatistics):
    """`input_grams` of as many layers per pass as there is memory for.

    Args:
        model: causal language model; it must not change while matrices are still to be computed.
        tokens: token ids, int64 `[n_sequences, sequence_length]`.
        columns: `in_features` of each layer, in order of use.
        max_bytes: memory of the matrices of one pass; at least one layer is always taken.
        relative: as of `input_grams`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: torch.Tensor,
        columns: Mapping[str, int],
        max_bytes: int = 2**31,
        relative: bool = False,
    ) -> None:
        # Counted as if nothing were shared: sharing is only known after the first forward.
        sizes = {x: width**2 * n_groups(model.get_submodule(x)) for x, width in columns.items()}
        super().__init__(sizes, max_bytes)
        self.model = model
        self.tokens = tokens
        self.relative = relative

    def of_run(self, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Their Gram matrices."""
        return input_grams(self.model, self.tokens, names, self.relative)


def _runs(n_numbers: Mapping[str, int], max_bytes: int) -> list[tuple[str, ...]]:
    runs: list[list[str]] = [[]]
    used = 0
    for name, size in n_numbers.items():
        used += 4 * size
        if runs[-1] and used > max_bytes:
            runs.append([])
            used = 4 * size
        runs[-1].append(name)
    return [tuple(run) for run in runs]


class _GramSums:
    """Running sums of x x^T; layers called with the same tensor share the first one's sum."""

    read = "input"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.owner: dict[str, str] = {}
        self.totals: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last: tuple[Callable[[], torch.Tensor | None], str, Hashable]
        self._last = (lambda: None, "", None)

    def hook(self, name: str) -> Callable[[nn.Module, Inputs, torch.Tensor], None]:
        def add(module: nn.Module, inputs: Inputs, output: torch.Tensor) -> None:
            x = inputs[0]
            self._claim(name, x, reading(module))
            if self.owner[name] == name:
                rows = input_rows(module, self._weighted(x.detach()))
                self._add(name, self._scaled(rows, module, output.detach()))

        return add

    def _scaled(self, rows: torch.Tensor, module: nn.Module, output: torch.Tensor) -> torch.Tensor:
        return rows

    def _weighted(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs `[..., n_positions, in_features]`, times the root of the weight of each."""
        weights = self.task.weights(x.shape[-2]) if x.ndim == 3 else None
        return x if weights is None else x * weights.sqrt().to(x)[:, None]

    def _claim(self, name: str, x: torch.Tensor, read: Hashable) -> None:
        # A weak reference: a dead tensor's address may be taken by another one.
        reference, previous, read_before = self._last
        shared = reference() is x and read == read_before
        if name not in self.owner:
            self.owner[name] = self.owner[previous] if shared else name
        if not shared:
            self._last = (weakref.ref(x), name, read)

    def _add(self, name: str, rows: torch.Tensor) -> None:
        total = gram(rows)
        if not total.isfinite().all():
            raise NonFinite(
                f"The {self.read} of layer {name!r} holds NaN or infinity: "
                "check the model's weights, or run it in float32."
            )
        if name in self.totals:
            self.totals[name] += total
            self._counts[name] += n_rows(rows)
        else:
            self.totals[name], self._counts[name] = total, n_rows(rows)

    def mean(self, name: str) -> torch.Tensor:
        return self.totals[name] / max(self._counts[name], 1)


class _RelativeGramSums(_GramSums):
    """Running sums of x x^T / |y|^2: layers that share x have a y each."""

    read = "input or output"

    def _scaled(self, rows: torch.Tensor, module: nn.Module, output: torch.Tensor) -> torch.Tensor:
        groups = n_groups(module)
        outputs = output_rows(module, output).float()
        by_group = outputs.reshape(*outputs.shape[:-1], groups, outputs.shape[-1] // groups)
        power = by_group.square().sum(dim=-1)
        floor = float(SMALLEST * power.mean()) or 1.0  # 1 where all of them are 0
        scale = power.clamp(min=floor).rsqrt().masked_fill(power.isinf(), torch.nan)
        scaled: torch.Tensor = rows.float() * (scale[..., None] if groups > 1 else scale)
        return scaled

    def _claim(self, name: str, x: torch.Tensor, read: Hashable) -> None:
        self.owner[name] = name
