"""The PTX emulator: known words, identities on random words, and kernels that assemble inline."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder

from tests.kernels import ptx


@pytest.fixture
def words():
    """Three registers of fresh random words."""
    seed = np.random.SeedSequence()
    print("entropy", seed.entropy)
    return np.random.default_rng(seed).integers(0, 1 << 32, (3, 1000), dtype=np.uint32)


@pytest.fixture
def assembled(monkeypatch):
    monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", ptx.create_inline_asm)


def one(asm, *inputs):
    return ptx.run(asm, [np.atleast_1d(np.asarray(x, np.uint32)) for x in inputs], 1)[0]


KNOWN = {
    "prmt.b32 $0,$1,$2,0x5410;": ((0x33221100, 0x77665544), 0x55441100),
    "prmt.b32 $0,$1,$2,0x8f70;": ((0x332211F0, 0x87665544), 0xFFFF87F0),
    "bfe.u32 $0,$1,4,8;": ((0x12345678,), 0x67),
    "shr.s32 $0,$1,4;": ((0x80000000,), 0xF8000000),
    "shl.b32 $0,$1,32;": ((1,), 0),
    "dp4a.u32.s32 $0,$1,$2,$3;": ((0x01FF0280, 0xFF01FE7F, 10), 0x80 * 127 + 2 * -2 + 255 - 1 + 10),
    "dp4a.s32.s32 $0,$1,$2,$3;": ((0x000000FF, 0x00000002, 1), 0xFFFFFFFF),
    "{.reg .f16 l,h; mov.b32 {l,h},$1; mov.b32 $0,{h,l};}": ((0x3C00BC00,), 0xBC003C00),
    "sub.rn.f16x2 $0,$1,0x64086408;": ((0x640F6400,), 0x4700C800),  # 15 - 8, 0 - 8
    "fma.rn.f16x2 $0,$1,$2,$3;": ((0x3C003C01, 0x3C013C01, 0xBC01BC02), 0x00000010),  # 2^-20
    "add.rn.bf16x2 $0,$1,$2;": ((0x3F803F80, 0x3B803B81), 0x3F803F81),  # a half, and above it
    "cvt.rn.bf16x2.f32 $0,$1,$2;": ((0x3F800000, 0x40008001), 0x3F804001),
    "add.f32 $0,$1,0f3F800000;": ((0x40000000,), 0x40400000),
    "cvt.rn.f32.s32 $0,$1;": ((0xFFFFFFFF,), 0xBF800000),
    "lop3.b32 $0,$1,0x000f000f,0x64006400,0xea;": ((0xABCD1234,), 0x640D6404),
}


@pytest.mark.parametrize("asm", KNOWN)
def test_known_words(asm):
    inputs, expected = KNOWN[asm]
    assert hex(one(asm, *inputs)[0]) == hex(expected)


def test_lop3_is_the_function_of_its_table(words):
    a, b, c = words
    for table, function in {
        0xEA: (a & b) | c,
        0x96: a ^ b ^ c,
        0xCA: (a & b) | (~a & c),
        0xC0: a & b,
    }.items():
        assert np.array_equal(one(f"lop3.b32 $0,$1,$2,$3,{table};", *words), function)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_lanes_of_a_register_round_as_torch_does(words, kind, name):
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    a, b, c = (torch.from_numpy(x.view(np.int16).copy()).view(dtype).double() for x in words)
    exact = {"add": a + b, "sub": a - b, "mul": a * b, "fma": a * b + c}[name]
    n_inputs = 3 if name == "fma" else 2
    operands = ",".join(f"${i}" for i in range(n_inputs + 1))
    found = one(f"{name}.rn.{kind}x2 {operands};", *words[:n_inputs])
    found = torch.from_numpy(found.view(np.int16).copy()).view(dtype)
    spacing = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).tiny)
    finite = exact.isfinite() & (exact.abs() < torch.finfo(dtype).max)
    assert ((found.double() - exact).abs() <= 0.5 * spacing)[finite].all()
    assert torch.equal(found.isnan(), exact.isnan())


def test_an_unknown_instruction_is_named():
    with pytest.raises(NotImplementedError, match=r"'popc\.b32'"):
        one("popc.b32 $0,$1;", 1)


@triton.jit
def _two_nibbles(words, low, high, N: tl.constexpr):
    place = tl.arange(0, N)
    word = tl.load(words + place)
    first, second = tl.inline_asm_elementwise(
        "{.reg .b32 t; shr.u32 t,$2,4; lop3.b32 $1,t,0x000f000f,0x64006400,0xea;"
        "lop3.b32 $0,$2,0x000f000f,0x64006400,0xea;"
        "sub.rn.f16x2 $0,$0,0x64006400; sub.rn.f16x2 $1,$1,0x64006400;}",
        "=r,=r,r", [word], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
    )  # fmt: skip
    tl.store(low + place, first)
    tl.store(high + place, second)


@triton.jit
def _scaled(words, scale, out, N: tl.constexpr):
    place = tl.arange(0, N)
    made = tl.inline_asm_elementwise(
        "{.reg .f16 s; mul.f16 s,$1,$2; cvt.f32.f16 $0,s;}",
        "=r,h,h", [tl.load(words + place), tl.load(scale)], dtype=tl.float32, is_pure=True, pack=1,
    )  # fmt: skip
    tl.store(out + place, made)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's own assembler runs")
def test_a_kernel_that_assembles_inline_runs_interpreted(assembled):
    words = torch.randint(-(1 << 15), 1 << 15, (64,), dtype=torch.int16)
    low, high = torch.full((2, 64), torch.nan, dtype=torch.float16)
    _two_nibbles[(1,)](words, low, high, N=64)
    assert torch.equal(low, (words & 15).half())
    assert torch.equal(high, (words >> 4 & 15).half())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's own assembler runs")
def test_narrow_registers_and_scalars(assembled):
    x, scale, out = torch.randn(64).half(), torch.tensor([0.5]).half(), torch.full((64,), torch.nan)
    _scaled[(1,)](x, scale, out, N=64)
    assert torch.equal(out, (x * scale).float())
