"""Inline PTX that makes two 16-bit floats of two codes at once, for the left operand of `gemm`.

A code is put into the mantissa of a number whose last place is 1, by one `lop3` for each plane, and
that number is taken away by one `fma`, both on a register that holds two neighbouring columns.
Kim et al. 2022, "Who Says Elephants Can't Run", do so for 4 and 8 bits in fp16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitfront.kernels._codes import (
    E2M1,
    INTEGER,
    n_planes,
    position,
)


@triton.constexpr_function
def twice_float(number, BRAIN):
    """Pattern of a number as two bf16 or two fp16; exact, neither zero nor subnormal.

    Triton lets a compile-time function call nothing that it does not know, `struct` included.
    """
    exponent_bits, mantissa_bits = (8, 7) if int(BRAIN) else (5, 10)
    digits, _, exponent = abs(float(number)).hex().removeprefix("0x1").partition("p")
    mantissa = int((digits.removeprefix(".") or "0").ljust(13, "0"), 16)
    assert mantissa % (1 << (52 - mantissa_bits)) == 0, number
    bits = (int(exponent) + (1 << (exponent_bits - 1)) - 1) << mantissa_bits
    bits |= (mantissa >> (52 - mantissa_bits)) | (int(number < 0) << 15)
    return hex(bits << 16 | bits)


@triton.constexpr_function
def twice(bits):
    """Pattern of 16 bits in both halves of a register."""
    return hex(bits << 16 | bits)


@triton.constexpr_function
def moved(source, target, shift):
    """The instruction that shifts right (left where negative), and the register with its result."""
    if shift == 0:
        return "", source
    name = "shr.u32" if shift > 0 else "shl.b32"
    return f"{name} {target},{source},{abs(shift)};", target


@triton.constexpr_function
def can_assemble(BLOCK, BRAIN):
    """Whether there is PTX for a block: fp4, and integers that fit the mantissa."""
    bits = sum(int(width) for width, _, _ in list(BLOCK[4]))
    return int(BLOCK[0]) == 2 or (int(BLOCK[0]) == 0 and bits <= (7 if int(BRAIN) else 10))


@triton.constexpr_function
def integer_assembly(BLOCK, FIELD, ROUND, BRAIN):
    """Text for one field of int16 containers: planes to 16-bit floats."""
    widths = [int(width) for width, _, _ in list(BLOCK[4])]
    mantissa = 7 if int(BRAIN) else 10
    n_bits = sum(widths)
    # Left in its byte where it fits, so that fields of a byte share a shift.
    place = widths[0] * int(FIELD) % 8
    place = place if place + n_bits <= mantissa else 0
    lines, so_far, low = [], twice_float(2.0**mantissa, BRAIN), 0
    for i, width in enumerate(widths):
        at = position(BLOCK, i, FIELD, 0, ROUND)
        line, register = moved(f"${i + 1}", "u", at - place - low)
        mask = twice(((1 << width) - 1) << (place + low))
        lines += [line, f"lop3.b32 t,{register},{mask},{so_far},0xea;"]
        so_far, low = "t", low + width
    kind = "bf16x2" if int(BRAIN) else "f16x2"
    excess = 2.0 ** (mantissa - place) + int(BLOCK[1])
    lines += [
        f"mov.b32 s,{twice_float(2.0**-place, BRAIN)}; mov.b32 c,{twice_float(-excess, BRAIN)};",
        f"fma.rn.{kind} $0,t,s,c;",
    ]
    return "{.reg .b32 t,u,s,c; " + " ".join(filter(None, lines)) + "}"


@triton.constexpr_function
def e2m1_assembly(FIELD, BRAIN):
    """Text for one field of fp4: sign, exponent and mantissa put in place, then the bias."""
    line, register = moved("$1", "u", 4 * int(FIELD) - 12)
    down, mask, bias = (6, 0x01C0, 2.0**126) if int(BRAIN) else (3, 0x0E00, 2.0**14)
    kind = "bf16x2" if int(BRAIN) else "f16x2"
    return (
        f"{{.reg .b32 t,u,s,c; {line} and.b32 t,{register},0x80008000; shr.u32 c,{register},{down};"
        f" lop3.b32 t,c,{twice(mask)},t,0xea; mov.b32 c,0x80008000;"
        f" mov.b32 s,{twice_float(bias, BRAIN)}; fma.rn.{kind} $0,t,s,c;}}"
    )


@triton.constexpr_function
def constraints(BLOCK):
    """Registers of `integer_assembly`: the output, then one for each input."""
    return "=r" + ",r" * len(list(BLOCK[4]))


@triton.jit
def assembled_levels(
    words,
    FIELD: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Levels of one field of containers in fp16 or bf16, exact; zero points are left to `gemm`."""
    BRAIN: tl.constexpr = DTYPE == tl.bfloat16
    inputs = (words[0].to(tl.int16),)
    if BLOCK[0] == E2M1:
        made = tl.inline_asm_elementwise(
            e2m1_assembly(FIELD, BRAIN), "=r,r", inputs, dtype=tl.int16, is_pure=True, pack=2
        )
    else:
        tl.static_assert(BLOCK[0] == INTEGER)
        for p in tl.static_range(1, n_planes(BLOCK)):
            # `*inputs` is not known to triton
            inputs = inputs + (words[p].to(tl.int16),)  # type: ignore[assignment]  # noqa: RUF005
        made = tl.inline_asm_elementwise(
            integer_assembly(BLOCK, FIELD, ROUND, BRAIN), constraints(BLOCK), inputs,
            dtype=tl.int16, is_pure=True, pack=2,
        )  # fmt: skip
    return made.to(DTYPE, bitcast=True)
