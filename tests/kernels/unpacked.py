"""Weights in float64 from their stored tensors, read anew: one column at a time, no shared code.

Also random stored tensors: any bits of a plane are codes, padding columns hold rubbish.
"""

import numpy as np
import torch

from bitfront import formats
from bitfront.formats.base import Format

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def random_tensors(format: Format, shape, generator, codes=None, scale=None):
    """Stored tensors, random but where containers are all `codes` or scales all `scale`."""
    made = {}
    for name, stored in format.stored(shape).items():
        if stored.dtype == "int16":
            bits = torch.randint(-(1 << 15), 1 << 15, stored.shape, generator=generator)
            made[name] = (bits if codes is None else torch.full_like(bits, codes)).to(torch.int16)
        elif name == "weight":
            bits = torch.randint(0, 256, stored.shape, dtype=torch.uint8, generator=generator)
            bits[(bits & 127) == 127] = 0  # NaN, which no encoder writes
            made[name] = bits.view(torch.float8_e4m3fn)
        elif name == "zero_point":
            top = 2**format.num_bits - 1
            made[name] = (torch.rand(stored.shape, generator=generator) * top).half()
        elif stored.dtype == "uint8":
            made[name] = torch.randint(
                120, 132, stored.shape, dtype=torch.uint8, generator=generator
            )
        else:
            size = torch.rand(stored.shape, generator=generator) + 0.25
            if stored.dtype == "float16" or format.name == "nvint4":
                size[..., 1::3] *= -1  # the scale of a symmetric integer may be negative
            made[name] = size.to(getattr(torch, stored.dtype))
            if scale is not None:
                made[name].fill_(scale)
    return made


def codes_of(format: Format, tensors, n_columns):
    """Code of every column, int `[n_rows, n_columns]`, by the scheme in bitfront/packing.py."""
    planes = {k: v.cpu().numpy().view(np.uint16) for k, v in tensors.items() if "codes" in k}
    codes = np.zeros((len(next(iter(planes.values()))), n_columns), dtype=np.int64)
    low_bit = 0
    for width in (8, 4, 2, 1):
        if f"codes_{width}bit" not in planes:
            continue
        plane, n_fields = planes[f"codes_{width}bit"], 16 // width
        padded = plane.shape[1] * n_fields
        stride = next(s for s in (32, 16, 8, 4, 2, 1) if padded % (n_fields * s) == 0)
        for column in range(n_columns):
            superblock, rest = divmod(column, n_fields * stride)
            field, place = divmod(rest, stride)
            word = plane[:, superblock * stride + place].astype(np.int64)
            codes[:, column] += (word >> (width * field) & (2**width - 1)) << low_bit
        low_bit += width
    return codes


def float6(codes, mantissa_bits):
    """Numbers of 6-bit floats: those without exponent have no hidden one."""
    exponent, mantissa = (
        codes >> mantissa_bits & 2 ** (5 - mantissa_bits) - 1,
        codes & (2**mantissa_bits - 1),
    )
    bias = 2 ** (4 - mantissa_bits) - 1
    hidden = exponent > 0
    size = (hidden + mantissa / 2**mantissa_bits) * 2.0 ** (np.maximum(exponent, 1) - bias)
    return size * np.where(codes & 32, -1, 1)


def weight_of(name: str, tensors, shape):
    """Float64 weight `[n_rows, n_columns]` on the CPU."""
    format = formats.named(name)
    if name.startswith(("fp8", "mxfp8")):
        level = tensors["weight"].cpu().double().numpy()
    else:
        codes = codes_of(format, tensors, shape[1])
        if name.startswith(("mxfp4", "nvfp4", "fp4")):
            level = E2M1[codes & 7] * np.where(codes & 8, -1, 1)
        elif "fp6" in name:
            level = float6(codes, 3 if "e2m3" in name else 2)
        elif name == "mxint8":
            level = codes.astype(np.uint8).view(np.int8) / 64
        elif name.startswith("sign"):
            level = 2 * codes - 1
        elif name == "nvint4":
            level = codes - 8
        elif name.startswith("lut"):
            level = np.take_along_axis(tensors["table"].cpu().double().numpy(), codes, axis=1)
        elif name.startswith(("nf", "gauss")):
            level = np.array(format.levels(), dtype=np.float32).astype(float)[codes]
        else:
            level = codes - (2 ** (format.num_bits - 1) if name.endswith("sym") else 0)
    scale = tensors["scale"].cpu() if "scale" in tensors else torch.ones(shape[0], 1)
    scale = 2.0 ** (scale.double() - 127) if scale.dtype == torch.uint8 else scale.double()
    if "global_scale" in tensors:
        scale = scale * tensors["global_scale"].cpu().double()
    each = shape[1] // scale.shape[1]
    if "zero_point" in tensors:
        level = level - tensors["zero_point"].cpu().double().numpy().repeat(each, axis=1)
    return torch.from_numpy(level * scale.numpy().repeat(each, axis=1))
