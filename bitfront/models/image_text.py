"""Images with text: what multimodal models are fed, what is scored, and which layers see what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidModel, InvalidText, first_line
from bitfront.models.tasks import Task, device_of

_ONE_LAYOUT = "make all of one layout, with one image each."
VISION, PROJECTOR, LANGUAGE = "vision", "projector", "language"


@dataclass(frozen=True, repr=False)
class ImageText(Task):
    """Next tokens of a text about an image: LLaVA and Qwen2-VL shapes.

    A sample is one row of float32 numbers: token ids, of which one run stands for the image, then
    its pixels. All samples of a model have one layout. Outputs are logits
    `[n_samples, n_scored, vocabulary]` where the next token is text: what a model would say in the
    place of an image's own tokens is nothing that it was trained for, and nobody reads it. The
    image acts on the score through the text that attends to it.

    Args:
        length: tokens of a sample, those of the image included.
        image_start: position of the image's first token.
        n_image_tokens: how many it has.
        image_token: their id.
        pixels: shape of what the vision tower reads of one image: `(channels, height, width)`, or
            `(n_patches, n_numbers)` where `grid` is given.
        grid: patches of an image in time, height and width, for towers that read patches of any
            image in one sequence (Qwen2-VL).
        balanced: input statistics give the tokens of images and of text the same weight in sum,
            whatever their number; else each token the same.
    """

    length: int
    image_start: int
    n_image_tokens: int
    image_token: int
    pixels: tuple[int, ...]
    grid: tuple[int, int, int] | None = None
    balanced: bool = False

    name = "image-text"
    fed = "images and text"
    metrics = ("kl_divergence", "top1_error")
    decodes = True

    def __repr__(self) -> str:
        return f"ImageText(balanced={self.balanced})"  # the samples have a digest of their own

    @classmethod
    def of(cls, config: Any) -> ImageText:
        """The layout of one small image between two tokens, as a model's configuration has it.

        Raises:
            InvalidModel: the layout is another one, or its images look at later tokens once it is
                told which these are.
        """
        if config.model_type == "gemma3":
            raise InvalidModel(
                "Images of gemma3 look at later tokens where its processor marks them, and "
                "bitfront feeds no marks: take a model of LLaVA's or Qwen2-VL's shape, or task "
                "text, which judges its language model alone."
            )
        try:
            return cls._laid_out(config)
        except (AttributeError, TypeError) as error:
            raise InvalidModel(
                f"{config.model_type} has images of a layout that bitfront does not know "
                f"({first_line(error)}): take a model of LLaVA's or Qwen2-VL's shape."
            ) from error

    @classmethod
    def _laid_out(cls, config: Any) -> ImageText:
        vision, token = config.vision_config, int(config.image_token_id)
        if merged := getattr(vision, "spatial_merge_size", None):
            n_numbers = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            return cls(3, 1, 1, token, (merged**2, n_numbers), (1, merged, merged))
        n_patches = (vision.image_size // vision.patch_size) ** 2
        whole = getattr(config, "vision_feature_select_strategy", "default") != "default"
        shape = (vision.num_channels, vision.image_size, vision.image_size)
        return cls(n_patches + whole + 2, 1, n_patches + whole, token, shape)

    @cached_property
    def is_image(self) -> Tensor:
        """Which tokens stand for the image, bool `[length]`."""
        position = torch.arange(self.length)
        return (position >= self.image_start) & (position < self.image_start + self.n_image_tokens)

    @cached_property
    def scored(self) -> Tensor:
        """Positions whose next token is text, int64 `[n_scored]`."""
        return (~self.is_image[1:]).nonzero()[:, 0]

    def sample(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Samples of token ids `[n, length]` and what the tower reads, `[n, *pixels]`."""
        return torch.cat([tokens.float(), pixels.float().reshape(len(tokens), -1)], dim=1)

    def tokens(self, samples: Tensor) -> Tensor:
        """Token ids of samples, int64 `[n_samples, length]`."""
        return samples[:, : self.length].long()  # float32 holds ids below 2^24 exactly

    def outputs(self, model: nn.Module, samples: Tensor) -> Tensor:
        """Logits of the next tokens that are text, `[n_samples, n_scored, vocabulary]`."""
        tokens = self.tokens(samples)
        pixels = samples[:, self.length :].reshape(-1, *self.pixels)
        given: dict[str, Any] = {"pixel_values": pixels.to(next(model.parameters()).dtype)}
        if self.grid is not None:
            given["pixel_values"] = given["pixel_values"].flatten(0, 1)
            given["image_grid_thw"] = torch.tensor([self.grid] * len(samples)).to(tokens.device)
            given["mm_token_type_ids"] = (tokens == self.image_token).int()
        logits: Tensor = model(input_ids=tokens, use_cache=False, **given).logits
        return logits[:, self.scored.to(logits.device)]

    def n_scored(self, samples: Tensor) -> int:
        """Text tokens but the first."""
        return len(self.scored)

    def labels(self, samples: Tensor) -> Tensor:
        """The next tokens."""
        return self.tokens(samples)[:, self.scored.to(samples.device) + 1]

    def targets(self, sample: Tensor, scored: Tensor) -> Tensor:
        """The next tokens of the text."""
        return self.labels(sample[None])[0].to(scored.device)

    def loss(self, scored: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats per text token."""
        return cross_entropy(scored.float(), targets)

    def probe(self, model: nn.Module) -> Tensor:
        """Tokens 0 and a black image."""
        tokens = torch.where(self.is_image, self.image_token, 0)[None]
        return self.sample(tokens, torch.zeros(1, *self.pixels)).to(device_of(model))

    def behind_noise(self, tokens: Tensor) -> tuple[ImageText, Tensor]:
        """Samples of texts behind an image of Gaussian noise, and their layout.

        Args:
            tokens: ids of text, int64 `[n, n_tokens]`.
        """
        layout = replace(self, length=self.image_start + self.n_image_tokens + tokens.shape[1])
        before = tokens[:, :1].expand(-1, self.image_start)
        of_image = torch.full((len(tokens), self.n_image_tokens), self.image_token)
        noise = torch.Generator().manual_seed(0)
        pixels = torch.randn(len(tokens), *self.pixels, generator=noise)
        return layout, layout.sample(torch.cat([before, of_image, tokens], dim=1), pixels)

    def n_positions(self, samples: Tensor) -> int:
        """Tokens of a sample."""
        return self.length

    def span(self, samples: Tensor) -> int:
        """Without an image's tokens at the end, which nothing is predicted from."""
        return int(self.scored[-1]) + 2

    def weights(self, n_positions: int) -> Tensor | None:
        """See `Task.weights`: those of the language model, where kinds are balanced."""
        if not self.balanced or n_positions != self.length:
            return None
        n_text = self.length - self.n_image_tokens
        of_image, of_text = self.length / 2 / self.n_image_tokens, self.length / 2 / n_text
        return torch.where(self.is_image, of_image, of_text)

    def check(self, samples: Tensor) -> None:
        """See `Task.check`."""
        width = self.length + prod(self.pixels)
        is_whole = samples.ndim == 2 and len(samples) > 0 and samples.shape[1] == width
        if not is_whole or ((self.tokens(samples) == self.image_token) != self.is_image).any():
            raise InvalidText(
                f"Samples of shape {tuple(samples.shape)} are not rows of {self.length} tokens, "
                f"{self.n_image_tokens} of the image from {self.image_start} on, and its "
                f"{prod(self.pixels)} numbers: {_ONE_LAYOUT}"
            )


def read_samples(
    source: str, task: ImageText, n_samples: int, seed: int
) -> tuple[ImageText, Tensor]:
    """Random samples of a file that a model's own processor filled, and their layout.

    Args:
        source: safetensors with `input_ids`, int `[n, length]`, and `pixel_values`: of one image
            each, `[n, channels, height, width]`, or with `image_grid_thw`, int `[n, 3]`, patches
            `[n * n_patches, n_numbers]`. All have the same layout.
        task: any of the model.
        n_samples: how many.
        seed: which.

    Raises:
        InvalidText: no such file, too few samples, or of several layouts.
    """
    try:
        with safe_open(source, framework="pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tokens, pixels = held["input_ids"], held["pixel_values"]
        grid = held.get("image_grid_thw")
        if tokens.ndim != 2 or tokens.is_floating_point() or pixels.ndim < 2 or not len(tokens):
            raise ValueError(
                f"input_ids are {tokens.dtype} {tuple(tokens.shape)}, "
                f"pixel_values {tuple(pixels.shape)}"
            )
        if not torch.isfinite(pixels).all():
            raise ValueError("pixel_values have NaN or infinity")
        if grid is not None:
            pixels = pixels.reshape(len(tokens), -1, pixels.shape[-1])
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise InvalidText(
            f"Cannot read {source} ({type(error).__name__}: {error}): give safetensors with "
            "input_ids and pixel_values of whole samples, as the model's processor makes them."
        ) from error
    is_image = tokens == task.image_token
    grids = [] if grid is None else grid.unique(dim=0).tolist()
    n_image_tokens, start = int(is_image[0].sum()), int(is_image[0].int().argmax())
    if not n_image_tokens or len(grids) > 1 or len(pixels) != len(tokens):
        raise InvalidText(f"{source} has images of several sizes, or none: {_ONE_LAYOUT}")
    shape = tuple(map(int, pixels.shape[1:]))
    size = (grids[0][0], grids[0][1], grids[0][2]) if grids else None
    made = replace(
        task,
        length=tokens.shape[1],
        image_start=start,
        n_image_tokens=n_image_tokens,
        pixels=shape,
        grid=size,
    )
    if len(tokens) < n_samples:
        raise InvalidText(f"{source} has {len(tokens):,} samples, {n_samples:,} are needed.")
    samples = made.sample(tokens, pixels)
    made.check(samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return made, samples[order[:n_samples]]


def check_none_shared(calibration: Tensor, evaluation: Tensor, sources: tuple[str, str]) -> None:
    """Check that no sample is in both sets.

    Raises:
        InvalidText: they share some.
    """
    ours, theirs = ({row.numpy().tobytes() for row in x} for x in (calibration, evaluation))
    if n_shared := len(ours & theirs):
        raise InvalidText(
            f"Calibration samples {sources[0]!r} and evaluation samples {sources[1]!r} share "
            f"{n_shared:,}: give two files with different samples."
        )


def parts_of(model: nn.Module) -> Mapping[str, str]:
    """Part of each module by name: vision tower, language model, or projector between them.

    A tower is the module with the vision configuration of the model. Of a model without one all is
    language.
    """
    config: Any = model.config
    seeing = getattr(config, "vision_config", None)
    speaking = getattr(config, "text_config", None)
    roots: dict[str, str] = {}
    for name, module in model.named_modules():
        own = getattr(module, "config", None)
        if name and own is not None and not any(name.startswith(f"{root}.") for root in roots):
            for part, wanted in ((VISION, seeing), (LANGUAGE, speaking)):
                if wanted is not None and type(own) is type(wanted):
                    roots[name] = part
    between = PROJECTOR if VISION in roots.values() else LANGUAGE
    speaker: Any = model
    head = speaker.get_output_embeddings()
    roots |= {name: LANGUAGE for name, module in model.named_modules() if module is head}
    return {
        name: next((p for x, p in roots.items() if f"{name}.".startswith(f"{x}.")), between)
        for name, _ in model.named_modules()
    }


def language_modules(model: nn.Module) -> list[nn.Module]:
    """Modules of the language model, which caches keys and values; all without a vision tower."""
    part_of = parts_of(model)
    return [module for name, module in model.named_modules() if part_of[name] == LANGUAGE]
