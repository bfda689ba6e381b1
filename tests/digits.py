"""Real images that a dependency carries: the handwritten digits of scikit-learn."""

import torch
from sklearn.datasets import load_digits

N_TRAINED = 1_200
"""The tiny ViT was trained on the first so many."""


def grey() -> tuple[torch.Tensor, torch.Tensor]:
    """Grey values uint8 `[1797, 8, 8]` and labels int64 `[1797]`."""
    data = load_digits()
    return (torch.tensor(data.images) * 255 / 16).round().to(torch.uint8), torch.tensor(data.target)


PIXELS = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 0,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""Image processor of models that read them."""


def small_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as `preprocessor_config.json` of the tiny ViT makes them, and labels."""
    values, labels = grey()
    large = values.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    pixels = (large.float() / 255 - 0.5) / 0.5
    return pixels[:, None].repeat(1, 3, 1, 1), labels.long()
