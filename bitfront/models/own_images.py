"""Images that need no data: noise, or noise made to look like what batch norms remember."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.models.gradients import frozen
from bitfront.models.tasks import device_of, run

N_STEPS = 100
"""Steps of `distilled_images` unless told otherwise."""

STEP = 0.1
"""Adam's step, in standard deviations of the first noise."""

TOGETHER = 32
"""Images whose statistics are taken together: memory grows with it, that of a backward pass."""

SCALES = tuple(2.0**power for power in range(-3, 9))
"""Standard deviations that are tried for the noise: pixels of 0 to 1 up to those of 0 to 255."""


def random_images(model: nn.Module, shape: torch.Size, seed: int) -> Tensor:
    """Gaussian noise, float32 `[n_images, channels, height, width]`.

    Its mean is 0. Its standard deviation is 1; of a model with batch norms it is that of `SCALES`
    whose statistics are nearest to theirs, since not every processor makes pixels of deviation 1.

    Args:
        model: of image classification, with or without batch norms.
        shape: of the images.
        seed: of the noise.

    Raises:
        NonFinite: the model gives no finite statistics at any scale.
    """
    noise = _noise(shape, seed)
    return noise * _scale(model, noise[:TOGETHER]) if _norms(model) else noise


def distilled_images(
    model: nn.Module, shape: torch.Size, seed: int, n_steps: int = N_STEPS
) -> Tensor:
    """Noise moved until the model's batch norms see what they saw in training, float32 as `shape`.

    Starts from `random_images` and minimizes by Adam the mean of `distances` and that of the
    pixels from the mean 0 and the deviation of the noise, which keeps them in the range of images.
    No labels and no data. Images are made in batches of at most `TOGETHER`, about equal in size.

    ZeroQ (Cai et al. 2020, section 3.1), which adds up the distances as they are; here each is
    relative to the power of its norm's inputs, so that none outweighs the others for its units.

    Cost: `n_steps` forward and backward passes over the images.

    Args:
        model: of image classification with batch norms; left as it was.
        shape: `[n_images, channels, height, width]`.
        seed: of the noise; the same on a device gives the same images.
        n_steps: of Adam.

    Raises:
        InvalidArgument: the model has no batch norm that keeps statistics.
        NonFinite: statistics of the model's activations are not finite.
    """
    if not _norms(model):
        raise InvalidArgument(
            f"text 'distilled' needs batch norms with running statistics, and "
            f"{type(model).__name__} has none: take 'calibration', or 'random' noise."
        )
    noise = _noise(shape, seed)
    scale = _scale(model, noise[:TOGETHER])
    batches = noise.tensor_split(math.ceil(len(noise) / TOGETHER))
    return torch.cat([_distilled(model, batch, scale, n_steps).cpu() for batch in batches])


def distances(model: nn.Module, images: Tensor) -> Tensor:
    """How far the inputs of each batch norm are from its running statistics, `[n_norms]`.

        (|m - mean|^2 + |s - deviation|^2) / |deviation|^2

    with m and s the mean and the standard deviation of its inputs over images and positions, by
    channel: 0 where they agree, 1 for inputs that are constantly at the mean. A norm that runs
    twice counts twice. Differentiable in the images.

    Args:
        model: with batch norms, in evaluation mode.
        images: `[n_images, channels, height, width]`.
    """
    found: list[Tensor] = []

    def measure(norm: Any, args: tuple[Any, ...]) -> None:
        found.append(_distance(args[0], norm.running_mean, norm.running_var, norm.eps))

    with _before(_norms(model), measure):
        run(model, images)
    return torch.stack(found)


def _distilled(model: nn.Module, noise: Tensor, scale: float, n_steps: int) -> Tensor:
    """One batch, on the model's device; what Adam moves is in units of `scale`, as the noise is."""
    pixels = noise.to(device_of(model), copy=True).requires_grad_()
    zeros = pixels.new_zeros(pixels.shape[1])
    adam = torch.optim.Adam([pixels], lr=STEP)
    with frozen(model), torch.enable_grad(), _repeatable():
        for step in range(n_steps):
            own = _distance(pixels, zeros, zeros + 1, 1e-5)
            loss = torch.cat([distances(model, pixels * scale), own[None]]).mean()
            if not math.isfinite(loss.item()):
                raise NonFinite(
                    f"Statistics of the inputs of batch norms are {loss.item()} at step {step} of "
                    "distilling: check the weights, or run the model in float32."
                )
            pixels.grad = torch.autograd.grad(loss, pixels)[0]
            adam.step()
    return pixels.detach() * scale


@contextmanager
def _repeatable() -> Iterator[None]:
    """Convolutions of cuDNN sum gradients in one order; its settings are as before on exit."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _scale(model: nn.Module, noise: Tensor) -> float:
    """The deviation of `SCALES` at which noise is nearest to the statistics of batch norms."""
    noise = noise.to(device_of(model))
    with frozen(model), torch.no_grad():
        found = {x: distances(model, noise * x).mean().item() for x in SCALES}
    finite = {x: distance for x, distance in found.items() if math.isfinite(distance)}
    if not finite:
        raise NonFinite(
            "Inputs of batch norms are not finite on Gaussian images: check the weights."
        )
    return min(finite, key=lambda x: finite[x])


def _distance(inputs: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """See `distances`; `inputs [n, channels, height, width]`, the others `[channels]`."""
    inputs = inputs.float()
    wanted = variance.float() + eps
    found = inputs.var(dim=(0, 2, 3), correction=0) + eps
    apart = (inputs.mean(dim=(0, 2, 3)) - mean.float()).square()
    return (apart + (found.sqrt() - wanted.sqrt()).square()).sum() / wanted.sum()


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Batch norms that remember what they saw in training."""
    norms = [x for x in model.modules() if isinstance(x, nn.BatchNorm2d)]
    return [x for x in norms if x.running_mean is not None and x.running_var is not None]


@contextmanager
def _before(
    norms: list[nn.BatchNorm2d], look: Callable[[Any, tuple[Any, ...]], None]
) -> Iterator[None]:
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
