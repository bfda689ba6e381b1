"""Mean Hessian trace times squared error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.gradients import frozen, require_finite
from bitfront.models.matrices import outputs_with
from bitfront.models.tasks import device_of, mean_loss, task_of
from bitfront.sensitivity.base import Estimator, scaled_errors, uncertainty
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True, eq=False)
class Traces:
    """Hutchinson estimates of the trace of each layer's Hessian, float64 `[n_layers]`.

    Args:
        mean: of the mean loss per token; negative where curvature or noise is.
        standard_error: of the mean, from the spread over probes and sequences.
        n_probes: how many probes were averaged.
    """

    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    n_probes: int

    @classmethod
    def of(cls, samples: list[NDArray[np.float64]]) -> Traces:
        """Averages of one row `v^T H v [n_layers]` per probe."""
        rows = np.array(samples)
        spread = rows.std(axis=0, ddof=1) if len(rows) > 1 else np.full(rows.shape[1], np.inf)
        return cls(rows.mean(axis=0), spread / np.sqrt(len(rows)), len(rows))

    @property
    def relative_error(self) -> float:
        """Root mean square of the standard errors over that of the means; 0 when all are 0."""
        noise, size = np.linalg.norm(self.standard_error), np.linalg.norm(self.mean)
        return float(noise / size) if size > 0 else (0.0 if noise == 0 else np.inf)


@dataclass(frozen=True)
class HessianTrace(Estimator):
    """Mean trace of a layer's Hessian times its squared weight error.

        1/2 tr(H) / n_weights * ||D||^2        tr(H) = mean of v^T H v over random signs v

    with D = Q(W) - W and H the Hessian of the mean next-token loss of the text. Curvature is
    taken as equal in all directions of a layer, so an outlier input channel is not seen.
    One pass probes all layers at once, each with its own signs: the terms between layers have
    mean zero. Each probe sees one sequence, so the error over probes covers both.

    Cost: a forward and two backward passes per probe, `min_probes` to `max_probes` of them, and one
    copy of the weights for the signs.

    Prefer it only as the literature's reference; `fisher` is cheaper and sees more.

    Source: Dong et al., HAWQ-V2 (2020), section 3; Hutchinson (1990).

    Args:
        min_probes: never stop before.
        max_probes: always stop then.
        tolerance: stop when the standard errors, relative to the traces, are below.
        seed: of the signs and the order of sequences.
    """

    min_probes: int = 8
    max_probes: int = 32
    tolerance: float = 0.1
    seed: int = 0

    needs: ClassVar[str] = "gradients"
    in_nats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 2 <= self.min_probes <= self.max_probes:
            raise InvalidArgument(
                f"min_probes is {self.min_probes} and max_probes {self.max_probes}: "
                "use 2 <= min_probes <= max_probes."
            )
        if self.tolerance < 0:
            raise InvalidArgument(f"tolerance is {self.tolerance}: use 0 or more.")

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`. A negative trace counts as 0; `traces` has the raw ones."""
        traces = self.traces(model, batches, space, progress)
        n_weights = np.array([layer.n_weights for layer in space.layers])
        curvature = np.maximum(traces.mean, 0.0) / n_weights
        values = scaled_errors(model, space, bank, curvature / 2)
        note = uncertainty(space, traces.mean, traces.standard_error, "the trace")
        return self.table(space, values, batches, bank, note=note)

    def traces(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        progress: Callable[[int, int], None] | None = None,
    ) -> Traces:
        """Trace of every layer with its standard error; arguments and errors as `estimate`."""
        task_of(model).check(batches)
        order = np.random.default_rng(self.seed).permutation(len(batches))
        samples: list[NDArray[np.float64]] = []
        while len(samples) < self.max_probes:
            tokens = batches[order[len(samples) % len(order)]]
            samples.append(_curvatures(model, tokens, space, (self.seed, len(samples))))
            if progress is not None:
                progress(len(samples), self.max_probes)
            if len(samples) >= self.min_probes and (
                Traces.of(samples).relative_error <= self.tolerance
            ):
                break
        if progress is not None:
            progress(self.max_probes, self.max_probes)
        return Traces.of(samples)


def _curvatures(
    model: nn.Module, tokens: Tensor, space: SearchSpace, seed: tuple[int, int]
) -> NDArray[np.float64]:
    """`v^T H v` of each layer for one sequence and one set of signs, `[n_layers]`.

    Each layer's weight moves along its signs by a step of its own; the second derivative with
    respect to the steps needs no gradient the size of a weight.
    """
    steps = torch.zeros(len(space.layers), device=device_of(model), requires_grad=True)
    # Fused attention kernels have no second derivative; the plain one has.
    with frozen(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with _stepping(model, space, steps, seed):
            loss = mean_loss(model, tokens)
        slopes = torch.autograd.grad(loss, steps, create_graph=True)[0]
        curvatures = torch.autograd.grad(slopes.sum(), steps)[0]
    for layer, curvature in zip(space.layers, curvatures, strict=True):
        require_finite(curvature, "curvature", layer.name)
    return curvatures.double().cpu().numpy()


@contextmanager
def _stepping(
    model: nn.Module, space: SearchSpace, steps: Tensor, seed: tuple[int, int]
) -> Iterator[None]:
    """Each layer computes with `weight + step * signs`, at steps of zero."""
    handles = []
    for row, layer in enumerate(space.layers):
        hook = _step_hook(steps[row], _signs(layer.shape, (*seed, row)), layer.name)
        handles.append(model.get_submodule(layer.name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _step_hook(
    step: Tensor, signs: NDArray[np.int8], name: str
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        require_finite(output, "output", name)
        direction = torch.from_numpy(signs).to(output)
        return output + step.to(output.dtype) * outputs_with(module, args[0], direction)

    return add


def _signs(shape: tuple[int, int], seed: tuple[int, ...]) -> NDArray[np.int8]:
    """Random signs, int8 `[out_features, in_features]`."""
    n = shape[0] * shape[1]
    generator = np.random.Generator(np.random.SFC64(seed))
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-n // 8)), dtype=np.uint8))[:n]
    return (2 * bits.astype(np.int8) - 1).reshape(shape)
