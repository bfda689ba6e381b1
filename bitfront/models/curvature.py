"""Top eigenvalues of every layer's own Hessian, from Hessian-vector products that layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.models.gradients import frozen, require_finite
from bitfront.models.matrices import as_matrix, as_stored
from bitfront.models.tasks import mean_loss, task_of
from bitfront.space import Layer, SearchSpace


@dataclass(frozen=True, eq=False)
class TopEigenvalues:
    """Largest eigenvalue of each layer's Hessian of the mean loss per token, `[n_layers]`.

    Args:
        mean: over the sequences of the last iteration; negative where curvature or noise is.
        standard_error: of the mean, from the spread over those sequences.
    """

    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]


def top_eigenvalues(
    model: nn.Module,
    tokens: Tensor,
    space: SearchSpace,
    n_iterations: int,
    n_sharing: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> TopEigenvalues:
    """Power iteration, several layers at once.

    With a vector v_m and a random sign s_m for each layer of a set, one product of the Hessian with
    the vectors s_m v_m gives layer l the value s_l sum_m s_m H_lm v_m, whose mean over signs is
    H_ll v_l: one product serves the set, and the terms between its layers average out, slowly.
    Each step adds the product to the vector times its quotient, which halves that noise. The
    quotients reported are those of the last vectors on fresh signs.

    Args:
        model: causal language model; left as it was.
        tokens: int64 `[n_sequences, length]`; every iteration sees all of them.
        space: its layers.
        n_iterations: steps of the iteration.
        n_sharing: layers of a set; they are as far apart in the model as can be.
        seed: of starts and signs.
        progress: called with `(products done, products in all)`.

    Raises:
        NonFinite: outputs or curvature overflow; names the layer.
    """
    task_of(model).check(tokens)
    n_layers = len(space.layers)
    n_sets = -(-n_layers // n_sharing)
    mean, error = np.zeros(n_layers), np.zeros(n_layers)
    n_products = n_iterations * len(tokens)
    for index in range(n_sets):
        rows = list(range(index, n_layers, n_sets))
        layers = [space.layers[row] for row in rows]
        show = partial(_products_done, progress, index * n_products, n_sets * n_products)
        mean[rows], error[rows] = _iterated(
            model, tokens, layers, n_iterations, (seed, index), show
        )
    return TopEigenvalues(mean, error)


def _iterated(
    model: nn.Module,
    tokens: Tensor,
    layers: Sequence[Layer],
    n_iterations: int,
    seed: tuple[int, int],
    show: Callable[[int], None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and standard errors of the last quotients of layers that share products."""
    generator = torch.Generator().manual_seed(1_000_003 * seed[0] + seed[1])
    vectors = [_unit(torch.randn(layer.shape, generator=generator)) for layer in layers]
    quotients = np.zeros((len(tokens), len(layers)))
    for iteration in range(n_iterations):
        sums = [torch.zeros_like(v) for v in vectors]
        for index, sequence in enumerate(tokens):
            signs = 2 * torch.randint(2, (len(layers),), generator=generator) - 1
            moved = [sign * v for sign, v in zip(signs, vectors, strict=True)]
            products = hessian_products(model, sequence, [x.name for x in layers], moved)
            for place, (sign, product) in enumerate(zip(signs, products, strict=True)):
                quotients[index, place] = float(sign * (vectors[place] * product).sum())
                sums[place] += sign * product / len(tokens)
            show(iteration * len(tokens) + index + 1)
        kept = quotients.mean(axis=0).clip(min=0)
        steps = zip(vectors, sums, kept, strict=True)
        vectors = [_unit(total + float(share) * v) for v, total, share in steps]
    n = len(tokens)
    spread = quotients.std(axis=0, ddof=1) if n > 1 else np.full(len(layers), np.inf)
    return quotients.mean(axis=0), spread / np.sqrt(n)


def _products_done(
    progress: Callable[[int, int], None] | None, before: int, total: int, done: int
) -> None:
    if progress is not None:
        progress(before + done, total)


def hessian_products(
    model: nn.Module, sequence: Tensor, names: list[str], vectors: list[Tensor]
) -> list[Tensor]:
    """Rows of the Hessian of a sequence's mean loss, times vectors; float32 matrices.

    Args:
        model: causal language model; left as it was.
        sequence: int64 `[length]`.
        names: of the layers.
        vectors: one per layer, `[out_features, in_features]`.
    """
    modules = [model.get_submodule(name) for name in names]
    parameters = [module.get_parameter("weight") for module in modules]
    # Fused attention kernels have no second derivative; the plain one has.
    with frozen(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = mean_loss(model, sequence)
        products = _products(
            loss, parameters, [as_stored(*x) for x in zip(modules, vectors, strict=True)]
        )
    for name, product in zip(names, products, strict=True):
        require_finite(product, "curvature", name)
    pairs = zip(modules, products, strict=True)
    return [as_matrix(module, product).float().cpu() for module, product in pairs]


def _products(
    loss: Tensor, parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Second derivatives times vectors; zeros for parameters that the loss does not depend on."""
    if not loss.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    pairs = zip(found, vectors, strict=True)
    curved = [(g, v.to(g)) for g, v in pairs if g is not None and g.requires_grad]
    gradients, moves = [g for g, _ in curved], [v for _, v in curved]
    return torch.autograd.grad(
        gradients, parameters, moves, allow_unused=True, materialize_grads=True
    )


def _unit(vector: Tensor) -> Tensor:
    """Of length 1; a vector of zeros stays one: nothing curves there."""
    norm = vector.norm()
    return vector / norm if norm > 0 else vector
