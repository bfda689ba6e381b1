"""Tiny LLaVA and Qwen2-VL that say what a handwritten digit is, and digits unknown to them.

Run as a script it writes the latter to `DIRECTORY/MODEL/calibration.safetensors` (the first 200)
and `evaluation.safetensors` (the other 197) for both models.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from transformers import AutoModelForImageTextToText

from bitfront.models.image_text import ImageText
from bitfront.models.tasks import run, set_task

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("<start>", "<image>", "this", "is", "the", "digit", "which", "even", "odd", ".", *NAMES)
N_TRAINING = 1400
IMAGE = WORDS.index("<image>")
TASKS = {
    "tiny_llava": ImageText(26, 1, 16, IMAGE, (3, 8, 8)),
    "tiny_qwen2_vl": ImageText(14, 1, 4, IMAGE, (16, 24), grid=(1, 4, 4)),
}
DATA = Path(__file__).parent / "data"


@dataclass
class Multimodal:
    """A model that knows its task, and samples that it was not trained on."""

    module: nn.Module
    task: ImageText
    samples: torch.Tensor


def caption(label: int) -> list[int]:
    """Token ids of what is said of a digit."""
    kind = "odd" if label % 2 else "even"
    return [WORDS.index(x) for x in ("this", "is", "the", "digit", NAMES[label])] + [
        WORDS.index(x) for x in ("which", "is", kind, ".")
    ]


def samples_of(task: ImageText, pixels: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """Start, image, caption."""
    images = [IMAGE] * task.n_image_tokens
    tokens = torch.tensor([[0, *images, *caption(label)] for label in labels])
    return task.sample(tokens, pixels)


def digits() -> tuple[torch.Tensor, list[int]]:
    """Images `[1797, 3, 8, 8]` from -1 to 1 in a fixed random order, and their labels."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[order] / 8 - 1
    return images[:, None].expand(-1, 3, -1, -1), torch.tensor(found.target)[order].tolist()


def patches(images: torch.Tensor) -> torch.Tensor:
    """Patches of 2 x 2 pixels in the order of Qwen2-VL's windows, `[n, 16, 24]`."""
    cut = images.reshape(-1, 3, 2, 2, 2, 2, 2, 2)  # n, channel, y, merge, pixel, x, merge, pixel
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)
    twice = cut[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return twice.reshape(len(images), 16, 24)


def samples_for(task: ImageText) -> torch.Tensor:
    """All digits with their captions; the first `N_TRAINING` are trained on."""
    images, labels = digits()
    return samples_of(task, patches(images) if task.grid else images, labels)


def write_samples(task: ImageText, samples: torch.Tensor, path: Path) -> Path:
    """A file such as a processor of the model would fill."""
    pixels = samples[:, task.length :].reshape(-1, *task.pixels)
    held = {"input_ids": task.tokens(samples), "pixel_values": pixels.contiguous()}
    if task.grid is not None:
        held["pixel_values"] = pixels.flatten(0, 1).contiguous()
        held["image_grid_thw"] = torch.tensor([task.grid] * len(samples))
    save_file(held, path)
    return path


def loaded(name: str) -> Multimodal:
    """One of the two."""
    module = AutoModelForImageTextToText.from_pretrained(DATA / name, dtype=torch.float32).eval()
    set_task(module, TASKS[name])
    return Multimodal(module, TASKS[name], samples_for(TASKS[name])[N_TRAINING:])


def with_longer_text(made: Multimodal, n_captions: int) -> Multimodal:
    """The same model, which knows of it, with samples that say their caption so many times."""
    start = made.task.image_start + made.task.n_image_tokens
    tokens = made.task.tokens(made.samples)
    tokens = torch.cat([tokens[:, :start], tokens[:, start:].repeat(1, n_captions)], dim=1)
    pixels = made.samples[:, made.task.length :]
    task = replace(made.task, length=tokens.shape[1])
    set_task(made.module, task)
    return Multimodal(made.module, task, task.sample(tokens, pixels))


def accuracy(made: Multimodal) -> float:
    """Share of unseen digits whose name is the most likely word."""
    names = torch.tensor([WORDS.index(x) for x in NAMES])
    with torch.no_grad():
        said = run(made.module, made.samples).argmax(dim=-1)
    labels = made.task.labels(made.samples)
    is_name = torch.isin(labels, names)
    return float((said == labels)[is_name].float().mean())


if __name__ == "__main__":
    for name, task in TASKS.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        unseen = samples_for(task)[N_TRAINING:]
        write_samples(task, unseen[:200], folder / "calibration.safetensors")
        write_samples(task, unseen[200:], folder / "evaluation.safetensors")
