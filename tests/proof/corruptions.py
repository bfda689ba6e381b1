"""What goes wrong between an exporter and an engine without a word."""

import numpy as np
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

LAYER = "model.layers.1.mlp.down_proj"


def swap_scales(folder):
    """Two rows of one layer get each other's scales."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    scale = next(
        t for name, t in tensors.items() if name in (f"{LAYER}.scale", f"{LAYER}.weight_scale")
    )
    scale[[0, 1]] = scale[[1, 0]]
    save_file(tensors, path, {"format": "pt"})


def flip_codes(folder):
    """A few bytes of codes of one layer are inverted."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = (f"{LAYER}.codes", f"{LAYER}.weight_packed")
    name = next(n for n in tensors if n.startswith(names))
    numbers = tensors[name].view(-1)
    numbers[:8] = ~numbers[:8]
    save_file(tensors, path, {"format": "pt"})


def invert(folder, layer=LAYER):
    """All codes of one layer are inverted."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.startswith(f"{layer}.codes"):
            tensor.bitwise_not_()
    save_file(tensors, path, {"format": "pt"})


def flip_blocks(folder):
    """The codes of the first blocks of one tensor of a GGUF file are inverted."""
    path = folder / "model.gguf"
    tensor = next(t for t in GGUFReader(path).tensors if t.name == "blk.1.ffn_down.weight")
    size, start = tensor.data.shape[1], int(tensor.data_offset)
    data = np.memmap(path, dtype=np.uint8, mode="r+")
    rows = data[start : start + tensor.data.size].reshape(-1, size)
    n_bytes = {"Q4_0": 18, "Q8_0": 34}[tensor.tensor_type.name]
    rows[:8, 2:n_bytes] = ~rows[:8, 2:n_bytes]
    data.flush()
