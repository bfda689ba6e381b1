"""Makes `tests/data/tiny_vit`, a ViT that reads handwritten digits, in seconds on one core.

The images are the 1,797 of scikit-learn's `load_digits` (8 x 8 pixels, each drawn as a square of
four); the last 597 are never trained on.
"""

import json
from pathlib import Path

import torch
from digits import N_TRAINED, PIXELS, small_digits
from transformers import ViTConfig, ViTForImageClassification

FOLDER = Path(__file__).parent / "tiny_vit"
N_STEPS, N_IMAGES, LEARNING_RATE = 350, 64, 2e-3


def untrained() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
            initializer_range=0.05,
            num_labels=10,
            id2label={i: f"digit {i}" for i in range(10)},
            label2id={f"digit {i}": i for i in range(10)},
        )
    )


def train(model: ViTForImageClassification, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=N_STEPS, pct_start=0.1
    )
    model.train()
    for _ in range(N_STEPS):
        rows = torch.randint(len(pixels), (N_IMAGES,), generator=generator)
        # Noise and few steps: a model that is sure of everything has its KL in two or three images.
        noisy = pixels[rows] + 0.5 * torch.randn(pixels[rows].shape, generator=generator)
        model(noisy, labels=labels[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    pixels, labels = small_digits()
    model = untrained()
    train(model, pixels[:N_TRAINED], labels[:N_TRAINED])
    with torch.no_grad():
        right = model(pixels[N_TRAINED:]).logits.argmax(-1) == labels[N_TRAINED:]
    print(f"accuracy on unseen digits {right.float().mean():.3f}")
    model.save_pretrained(FOLDER)
    (FOLDER / "preprocessor_config.json").write_text(json.dumps(PIXELS, indent=1) + "\n")
