"""The PTX that kernels write inline, run by numpy: for `TRITON_INTERPRET=1`, without an assembler.

A register is an array of uint32, one element for each time that the assembly runs; a 16-bit
register uses the lower half. Only what a kernel needs is here: straight code without predicates,
memory or 64-bit registers. Semantics: PTX ISA 9.0, sections 9.7.1 to 9.7.8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from triton.runtime import interpreter

Register = NDArray[np.uint32]
_HALF = np.uint32(0xFFFF)


def run(asm: str, inputs: Sequence[Register], n_outputs: int) -> list[Register]:
    """Output registers `$0`, `$1`, ... of assembly whose inputs are numbered after them.

    Raises:
        NotImplementedError: names the instruction that is not known.
    """
    registers = {f"${n_outputs + i}": value for i, value in enumerate(inputs)}
    size = len(inputs[0])

    def read(operand: str) -> Register:
        if operand in registers:
            return registers[operand]
        is_float = operand.lower().startswith("0f")
        value = int(operand[2:], 16) if is_float else int(operand.rstrip("U"), 0)
        return np.full(size, value & 0xFFFFFFFF, np.uint32)

    for name, operands in _statements(asm):
        target, *sources = operands
        if name == "mov.b32" and isinstance(target, list):
            registers |= zip(target, _split(read(sources[0]), len(target)), strict=True)
        elif name == "mov.b32" and isinstance(sources[0], list):
            registers[target] = _joined([read(part) for part in sources[0]])
        else:
            registers[target] = _INSTRUCTIONS[name](*map(read, sources))
    return [registers[f"${i}"] for i in range(n_outputs)]


def _statements(asm: str) -> list[tuple[str, list]]:
    """Names of instructions with their operands; `{a, b}` is a list."""
    text = re.sub(r"//.*", "", asm).strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    found = []
    for statement in filter(None, (part.strip() for part in text.split(";"))):
        if statement.startswith(".reg"):
            continue
        name, _, rest = statement.partition(" ")
        if name != "mov.b32" and name not in _INSTRUCTIONS:
            raise NotImplementedError(f"PTX instruction {name!r} in {statement!r} is not emulated.")
        operands = re.findall(r"\{[^}]*\}|[^,\s]+", rest)
        lists = [[y.strip() for y in x[1:-1].split(",")] if x[0] == "{" else x for x in operands]
        found.append((name, lists))
    return found


def _split(value: Register, n_parts: int) -> list[Register]:
    bits = 32 // n_parts
    return [(value >> np.uint32(bits * i)) & np.uint32((1 << bits) - 1) for i in range(n_parts)]


def _joined(parts: Sequence[Register]) -> Register:
    bits, joined = 32 // len(parts), np.zeros_like(parts[0])
    for i, part in enumerate(parts):
        joined |= (part & np.uint32((1 << bits) - 1)) << np.uint32(bits * i)
    return joined


def _lop3(a: Register, b: Register, c: Register, table: Register) -> Register:
    """Any function of three bits: bit `4a + 2b + c` of the table."""
    found = np.zeros_like(a)
    for i in range(8):
        minterm = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
        found |= np.where(table >> np.uint32(i) & 1, minterm, 0).astype(np.uint32)
    return found


def _prmt(a: Register, b: Register, selector: Register) -> Register:
    """Four of the eight bytes of a and b; bit 3 of a selector copies the byte's sign instead."""
    source = np.stack([*_split(a, 4), *_split(b, 4)])
    parts = []
    for pick in _split(selector, 8)[:4]:
        byte = np.take_along_axis(source, (pick & 7)[None].astype(np.int64), axis=0)[0]
        parts.append(np.where(pick & 8, np.where(byte & 0x80, 0xFF, 0), byte).astype(np.uint32))
    return _joined(parts)


def _dp4a(a_is_signed: bool, b_is_signed: bool) -> Callable[..., Register]:
    def dot(a: Register, b: Register, c: Register) -> Register:
        total = c.astype(np.int64)
        for x, y in zip(_split(a, 4), _split(b, 4), strict=True):
            total += _integer(x, 8, a_is_signed) * _integer(y, 8, b_is_signed)
        return (total & 0xFFFFFFFF).astype(np.uint32)

    return dot


def _integer(value: Register, bits: int, is_signed: bool) -> NDArray[np.int64]:
    wide = value.astype(np.int64)
    return np.where(wide >> (bits - 1) & 1, wide - (1 << bits), wide) if is_signed else wide


def _bfe(a: Register, start: Register, length: Register) -> Register:
    """`length` bits from bit `start`, as unsigned."""
    mask = (np.uint64(1) << np.minimum(length, 32).astype(np.uint64)) - np.uint64(1)
    return ((a.astype(np.uint64) >> start.astype(np.uint64)) & mask).astype(np.uint32)


@dataclass(frozen=True)
class _Float:
    """A float type: from the bits in a register to float64, and back with round to nearest even."""

    bits: int
    decode: Callable[[Register], NDArray[np.float64]]
    encode: Callable[[NDArray[np.float64]], Register]


def _encode_bf16(value: NDArray[np.float64]) -> Register:
    # By way of float32 rounded to odd, or halves would be rounded twice.
    single = value.astype(np.float32)
    bits = single.view(np.uint32)
    inexact = single.astype(np.float64) != value
    beyond = np.abs(single.astype(np.float64)) > np.abs(value)
    odd = np.where(inexact, (bits - beyond.astype(np.uint32)) | 1, bits).astype(np.uint32)
    rounded = (odd + np.uint32(0x7FFF) + ((odd >> np.uint32(16)) & 1)) >> np.uint32(16)
    return np.where(np.isfinite(value), rounded, bits >> np.uint32(16)).astype(np.uint32)


_FLOATS = {
    "f16": _Float(
        16,
        lambda x: x.astype(np.uint16).view(np.float16).astype(np.float64),
        lambda x: x.astype(np.float16).view(np.uint16).astype(np.uint32),
    ),
    "bf16": _Float(
        16,
        lambda x: ((x & _HALF) << np.uint32(16)).view(np.float32).astype(np.float64),
        _encode_bf16,
    ),
    "f32": _Float(
        32,
        lambda x: x.view(np.float32).astype(np.float64),
        lambda x: x.astype(np.float32).view(np.uint32),
    ),
}
_ARITHMETIC: dict[str, Callable[..., NDArray[np.float64]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "fma": lambda a, b, c: a * b + c,  # in float64 a product of two floats is exact
    "min": np.fmin,
    "max": np.fmax,
}


def _floating(operation: str, kind: str, n_lanes: int) -> Callable[..., Register]:
    """The operation on each lane of a register; rounded once, from float64."""

    def apply(*operands: Register) -> Register:
        lanes = zip(*(_split(x, n_lanes) if n_lanes > 1 else [x] for x in operands), strict=True)
        with np.errstate(over="ignore", invalid="ignore"):
            made = [
                _FLOATS[kind].encode(_ARITHMETIC[operation](*map(_FLOATS[kind].decode, lane)))
                for lane in lanes
            ]
        return _joined(made) if n_lanes > 1 else made[0]

    return apply


def _converted(to: str, source: str) -> Callable[[Register], Register]:
    return lambda a: _FLOATS[to].encode(_FLOATS[source].decode(a))


def _packed(to: str) -> Callable[[Register, Register], Register]:
    """Two float32 as one register, the first in the upper half."""
    convert = _converted(to, "f32")
    return lambda a, b: _joined([convert(b), convert(a)])


_SHIFT_LIMIT = np.uint32(32)
_INSTRUCTIONS: dict[str, Callable[..., Register]] = {
    "mov.b32": lambda a: a,
    "mov.u32": lambda a: a,
    "mov.f32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "not.b32": lambda a: ~a,
    "lop3.b32": _lop3,
    "prmt.b32": _prmt,
    "bfe.u32": _bfe,
    "shl.b32": lambda a, n: np.where(n < 32, a << (n % _SHIFT_LIMIT), 0).astype(np.uint32),
    "shr.u32": lambda a, n: np.where(n < 32, a >> (n % _SHIFT_LIMIT), 0).astype(np.uint32),
    "shr.s32": lambda a, n: (a.view(np.int32) >> np.minimum(n, 31).view(np.int32)).view(np.uint32),
    "add.u32": lambda a, b: a + b,
    "add.s32": lambda a, b: a + b,
    "sub.s32": lambda a, b: a - b,
    "mul.lo.u32": lambda a, b: a * b,
    "mad.lo.u32": lambda a, b, c: a * b + c,
    "cvt.rn.f32.s32": lambda a: a.view(np.int32).astype(np.float32).view(np.uint32),
    "cvt.rn.f32.u32": lambda a: a.astype(np.float32).view(np.uint32),
    "cvt.f32.f16": _converted("f32", "f16"),
    "cvt.f32.bf16": _converted("f32", "bf16"),
    "cvt.rn.f16.f32": _converted("f16", "f32"),
    "cvt.rn.bf16.f32": _converted("bf16", "f32"),
    "cvt.rn.f16x2.f32": _packed("f16"),
    "cvt.rn.bf16x2.f32": _packed("bf16"),
    **{
        f"dp4a.{a}32.{b}32": _dp4a(a == "s", b == "s") for a in ("u", "s") for b in ("u", "s")
    },
    **{
        f"{operation}{rounding}.{kind}{lanes}": _floating(operation, kind, 2 if lanes else 1)
        for operation in _ARITHMETIC
        for rounding in ("", ".rn")
        for kind in _FLOATS
        for lanes in ("", "x2")
        if not (kind == "f32" and lanes)
    },
}  # fmt: skip


def create_inline_asm(builder, asm, constraints, values, types, is_pure, pack):
    """What `tl.inline_asm_elementwise` calls; replaces that of `InterpreterBuilder`."""
    shape = np.broadcast_shapes(*(value.data.shape for value in values))
    inputs = [
        register
        for value in values
        for register in _to_registers(np.broadcast_to(value.data, shape), pack)
    ]
    kinds = [getattr(kind, "scalar", kind) for kind in types]
    dtypes = [np.dtype(interpreter._get_np_dtype(kind)) for kind in kinds]
    counts = [max(1, pack * dtype.itemsize // 4) for dtype in dtypes]
    outputs = iter(run(asm, inputs, sum(counts)))
    results = [
        interpreter.TensorHandle(
            _from_registers([next(outputs) for _ in range(n)], dtype, pack).reshape(shape), kind
        )
        for n, dtype, kind in zip(counts, dtypes, kinds, strict=True)
    ]
    return _Results(results)


@dataclass(frozen=True)
class _Results:
    handles: list

    def get_result(self, index: int):
        return self.handles[index]


def _to_registers(data: NDArray, pack: int) -> list[Register]:
    """Elements of `pack` at a time: narrow ones share registers, wide ones have one each."""
    rows = np.ascontiguousarray(data).reshape(-1, pack)
    if rows.dtype.itemsize * pack < 4:
        unsigned = np.dtype(f"u{rows.dtype.itemsize}")
        return [rows.view(unsigned)[:, 0].astype(np.uint32)]
    return [np.ascontiguousarray(column) for column in rows.view(np.uint32).T]


def _from_registers(registers: Sequence[Register], dtype: np.dtype, pack: int) -> NDArray:
    rows = np.ascontiguousarray(np.stack(registers, axis=1))
    if dtype.itemsize * pack < 4:
        return rows.astype(f"u{dtype.itemsize}").view(dtype)
    return rows.view(dtype)
