"""Packed codes come back exactly, lie where the scheme says, and take no byte too many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront import packing
from bitfront.errors import InvalidArgument

BITS = range(1, 9)


def random_codes(shape, num_bits, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**num_bits, shape, dtype=torch.uint8, generator=generator)


@given(
    num_bits=st.sampled_from(BITS),
    n_rows=st.integers(1, 9),
    n_columns=st.integers(1, 700),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_round_trip(num_bits, n_rows, n_columns, seed):
    codes = random_codes((n_rows, n_columns), num_bits, seed)
    before = codes.clone()
    planes = packing.pack(codes, num_bits)
    shapes = packing.plane_shapes((n_rows, n_columns), num_bits)
    assert {name: tuple(plane.shape) for name, plane in planes.items()} == shapes
    assert list(planes) == list(shapes)
    assert all(plane.dtype == torch.int16 for plane in planes.values())
    assert torch.equal(packing.unpack(planes, num_bits, n_columns), codes)
    assert torch.equal(codes, before)
    on_device = packing.packed_by_torch(codes, num_bits)  # what a GPU does
    assert list(on_device) == list(planes)
    assert all(torch.equal(on_device[name], planes[name]) for name in planes)
    assert torch.equal(packing.unpacked_by_torch(planes, num_bits, n_columns), codes)


@pytest.mark.parametrize("num_bits", BITS)
@pytest.mark.parametrize("n_columns", [2048, 1024, 960, 576, 40])
def test_field_f_of_container_j_holds_the_column_of_the_scheme(num_bits, n_columns):
    codes = random_codes((3, n_columns), num_bits)
    planes = packing.pack(codes, num_bits)
    low_bit = 0
    for width in packing.plane_widths(num_bits):
        stride = packing.stride(n_columns, width)
        for column in range(0, n_columns, 7):
            run, j = divmod(column, stride)
            superblock, field = divmod(run, 16 // width)
            containers = planes[f"codes_{width}bit"][:, superblock * stride + j].int() & 0xFFFF
            found = containers >> (width * field) & (2**width - 1)
            expected = codes[:, column].int() >> low_bit & (2**width - 1)
            assert torch.equal(found, expected)
        low_bit += width
    assert low_bit == num_bits


@pytest.mark.parametrize("num_bits", BITS)
def test_rows_larger_than_a_chunk_and_many_rows_round_trip(num_bits):
    for shape in [(1, 300_016), (1025, 592)]:
        codes = random_codes(shape, num_bits)
        planes = packing.pack(codes, num_bits)
        assert torch.equal(packing.unpack(planes, num_bits, shape[1]), codes)


@pytest.mark.parametrize("num_bits", BITS)
def test_a_code_of_b_bits_takes_b_bits(num_bits):
    for n_columns in (16, 48, 576, 960, 1536, 4096):
        shapes = packing.plane_shapes((5, n_columns), num_bits)
        assert sum(16 * n * k for n, k in shapes.values()) == 5 * n_columns * num_bits


def test_stride_is_that_of_the_kernels_where_it_needs_no_padding():
    assert all(packing.stride(4096, width) == 32 for width in (8, 4, 2, 1))
    assert [packing.stride(576, width) for width in (8, 4, 2, 1)] == [32, 16, 8, 4]


def test_codes_that_are_a_view_are_packed_as_they_look():
    codes = random_codes((64, 48), 3).T
    planes = packing.pack(codes, 3)
    assert torch.equal(packing.unpack(planes, 3, 64), codes)


@pytest.mark.parametrize("num_bits", [0, 9])
def test_other_widths_are_refused(num_bits):
    with pytest.raises(InvalidArgument, match="1 to 8"):
        packing.plane_shapes((4, 64), num_bits)
