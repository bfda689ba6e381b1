"""Tiny LLaVA and Qwen2-VL, trained for seconds to say what a handwritten digit is."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from bitfront.models.image_text import ImageText
from bitfront.models.tasks import run, set_task

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("<start>", "<image>", "this", "is", "the", "digit", "which", "even", "odd", ".", *NAMES)
LOOPS = (1, 0, 0, 0, 0, 0, 1, 0, 2, 1)
N_TRAINING, N_STEPS, N_SAMPLES = 1400, 260, 48
IMAGE = WORDS.index("<image>")


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


def llava() -> tuple[nn.Module, ImageText]:
    """A CLIP tower of 3 blocks that gives 16 tokens, and a Llama of 2 blocks, untrained."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=8,
        patch_size=2,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.05,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    task = ImageText(26, 1, 16, IMAGE, (3, 8, 8))
    return LlavaForConditionalGeneration(config), task


def qwen() -> tuple[nn.Module, ImageText]:
    """A tower of 2 blocks whose 16 patches become 4 tokens, and a Qwen2 of 2 blocks, untrained."""
    torch.manual_seed(0)
    vision = {
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 2,
        "hidden_size": 64,
    }
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = Qwen2VLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=len(WORDS)
    )
    task = ImageText(14, 1, 4, IMAGE, (16, 24), grid=(1, 4, 4))
    return Qwen2VLForConditionalGeneration(config), task


def trained(module: nn.Module, task: ImageText) -> Multimodal:
    """Train on the first digits; samples are of the others."""
    images, labels = digits()
    pixels = patches(images) if task.grid else images
    samples = samples_of(task, pixels, labels)
    set_task(module, task)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=N_STEPS)
    module.train()
    for _ in range(N_STEPS):
        batch = samples[torch.randint(N_TRAINING, (48,), generator=generator)]
        logits = run(module, batch)
        loss = cross_entropy(logits.flatten(0, 1), task.labels(batch).flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return Multimodal(module.eval(), task, samples[N_TRAINING:])


def accuracy(made: Multimodal) -> float:
    """Share of unseen digits whose name is the most likely word."""
    names = torch.tensor([WORDS.index(x) for x in NAMES])
    with torch.no_grad():
        said = run(made.module, made.samples).argmax(dim=-1)
    labels = made.task.labels(made.samples)
    is_name = torch.isin(labels, names)
    return float((said == labels)[is_name].float().mean())
