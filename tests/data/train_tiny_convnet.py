"""Makes `tests/data/tiny_convnet`, in a minute: `python -m tests.data.train_tiny_convnet`.

An EfficientNet of three blocks (depthwise kernels of 3 x 3 and 5 x 5, squeeze and excitation, batch
norms) that tells the handwritten digits of scikit-learn apart, each pixel drawn 4 x 4 large.
"""

import json
from pathlib import Path

import torch
from digits import N_TRAINED, PIXELS, small_digits
from torch.nn.functional import cross_entropy
from transformers import EfficientNetConfig, EfficientNetForImageClassification

FOLDER = Path(__file__).parent / "tiny_convnet"
N_STEPS = 300


def untrained() -> EfficientNetForImageClassification:
    torch.manual_seed(0)
    return EfficientNetForImageClassification(
        EfficientNetConfig(
            image_size=32,
            width_coefficient=0.25,
            depth_coefficient=1.0,
            kernel_sizes=[3, 5, 3],
            in_channels=[32, 64, 96],
            out_channels=[64, 96, 160],
            depthwise_padding=[],
            strides=[1, 2, 2],
            num_block_repeats=[1, 1, 1],
            expand_ratios=[1, 4, 4],
            hidden_dim=320,
            batch_norm_momentum=0.1,
            dropout_rate=0.0,
            drop_connect_rate=0.0,
            initializer_range=0.1,
            num_labels=10,
            id2label={i: f"digit {i}" for i in range(10)},
            label2id={f"digit {i}": i for i in range(10)},
        )
    )


def train(model: EfficientNetForImageClassification) -> None:
    pixels, labels = (x[:N_TRAINED] for x in small_digits())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, N_STEPS)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(N_STEPS):
        rows = torch.randint(N_TRAINED, (64,), generator=generator)
        loss = cross_entropy(model(pixels[rows]).logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = untrained()
    train(model)
    pixels, labels = (x[N_TRAINED:] for x in small_digits())
    with torch.no_grad():
        right = (model(pixels).logits.argmax(dim=1) == labels).float().mean()
    print(f"{right:.1%} of {len(labels)} images that were held out")
    model.save_pretrained(FOLDER)
    (FOLDER / "preprocessor_config.json").write_text(json.dumps(PIXELS, indent=1) + "\n")
