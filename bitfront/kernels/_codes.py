"""What Triton kernels share: loading packed codes, and turning them into float32 numbers.

The kernels see a block of a weight as `arrays`, a tuple of pointers

    (plane, plane or None, plane or None, scale, zero_point or None, table or None)

its planes widest first, and as `BLOCK`, a tuple of compile-time numbers (`_blocks.compiled`):

    (KIND, OFFSET, GROUP, SCALE, PLANES)

KIND of levels, where ROW_TABLE has 2^b numbers for each row; OFFSET subtracted from integer codes;
GROUP columns to a scale, 0 for the whole row; SCALE the kind of scale; PLANES a tuple of (width,
stride, superblock) in bits and columns.
A word is what one element of a tile holds: one container of 16 bits (one code of 8 bits for e4m3),
or the two (four) of an int32. A lane is one container of a word.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTEGER = tl.constexpr(0)
TABLE = tl.constexpr(1)
E2M1 = tl.constexpr(2)
E4M3 = tl.constexpr(3)
ROW_TABLE = tl.constexpr(4)
FLOAT_SCALE = tl.constexpr(0)
E8M0_SCALE = tl.constexpr(1)
E4M3_SCALE = tl.constexpr(2)


@triton.constexpr_function
def n_parts(BLOCKS, SEGMENT):
    """Blocks to a segment."""
    return len(BLOCKS[int(SEGMENT)])


@triton.constexpr_function
def block_at(BLOCKS, SEGMENT, PART):
    """BLOCK of a part of a segment. Triton 3.6 cannot take a tuple of tuples from another."""
    return BLOCKS[int(SEGMENT)][int(PART)]


@triton.constexpr_function
def n_planes(BLOCK):
    """Planes of a code."""
    return len(BLOCK[4])


@triton.constexpr_function
def plane_width(BLOCK, PLANE):
    """Bits of a field of a plane."""
    return int(BLOCK[4][int(PLANE)][0])


@triton.constexpr_function
def plane_stride(BLOCK, PLANE):
    """Columns from a field to the next."""
    return int(BLOCK[4][int(PLANE)][1])


@triton.constexpr_function
def superblock(BLOCK, PLANE):
    """Columns that a run of containers covers."""
    return int(BLOCK[4][int(PLANE)][2])


@triton.constexpr_function
def n_fields(BLOCK):
    """Codes of the widest plane in one container."""
    return 1 if int(BLOCK[0]) == 3 else 16 // int(BLOCK[4][0][0])


@triton.constexpr_function
def fields_per_scale(BLOCK):
    """Consecutive fields of a container that share a scale."""
    group, stride = int(BLOCK[2]), int(BLOCK[4][0][1])
    fields = 1 if int(BLOCK[0]) == 3 else 16 // int(BLOCK[4][0][0])
    return fields if group == 0 else max(1, min(fields, group // stride))


@triton.constexpr_function
def lanes_of(BLOCK, WORD_BITS):
    """Containers in a word of so many bits (16: one container, whatever its size)."""
    return 1 if int(WORD_BITS) == 16 else (4 if int(BLOCK[0]) == 3 else 2)


@triton.constexpr_function
def mask_at(width, place):
    """Mask of a field of `width` bits at bit `place`."""
    return ((1 << int(width)) - 1) << int(place)


@triton.constexpr_function
def ratio(BLOCK, PLANE):
    """Superblocks of the widest plane in one of plane PLANE."""
    planes = list(BLOCK[4])
    return int(planes[int(PLANE)][2]) // int(planes[0][2])


@triton.constexpr_function
def position(BLOCK, PLANE, FIELD, LANE, ROUND):
    """Bit of a word of plane PLANE that a field of the widest plane has its own bits at.

    In superblock number ROUND of the widest plane among those that share the word; 0 where
    `load_words` has shifted it.
    """
    planes = list(BLOCK[4])
    width, own, whole = (int(number) for number in planes[int(PLANE)])
    field = int(FIELD) + int(ROUND) % (whole // int(planes[0][2])) * (16 // int(planes[0][0]))
    return width * field * (int(planes[0][1]) // own) + 16 * int(LANE)


@triton.constexpr_function
def low_bit(BLOCK, PLANE):
    """Bit of a code that plane PLANE begins at."""
    return sum(int(width) for width, _, _ in list(BLOCK[4])[: int(PLANE)])


@triton.constexpr_function
def n_levels(BLOCK):
    """Numbers that a code can stand for."""
    return 1 << sum(int(width) for width, _, _ in list(BLOCK[4]))


@triton.constexpr_function
def excess(BLOCK, FIELD, LANE, ROUND, FIRST):
    """What the sum of `raised` over the planes from FIRST on exceeds an integer level by."""
    total = float(BLOCK[1])
    for plane in range(int(FIRST), len(list(BLOCK[4]))):
        at = position(BLOCK, plane, FIELD, LANE, ROUND)
        total += 2.0 ** (8 - at % 8 + low_bit(BLOCK, plane))
    return total


@triton.constexpr_function
def magic(place):
    """Float32 pattern of 2^(23 - place); with a code at bit `place` it reads as their sum."""
    return (150 - int(place)) << 23


@triton.jit
def columns(word, UNIT: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Column of field 0 and lane 0 of a word, in units of `UNIT` columns (1 or LANES)."""
    STRIDE: tl.constexpr = plane_stride(BLOCK, 0) // LANES
    SUPERBLOCK: tl.constexpr = superblock(BLOCK, 0) // UNIT
    if n_fields(BLOCK) == 1:
        column = word * (LANES // UNIT)
    else:
        column = word // STRIDE * SUPERBLOCK + word % STRIDE * (LANES // UNIT)
    return column


@triton.jit
def load_plane(plane, offset, valid, LANES: tl.constexpr, POLICY: tl.constexpr):
    """Words of one plane as int32."""
    if LANES > 1:
        plane = plane.to(tl.pointer_type(tl.int32), bitcast=True)
    return tl.load(plane + offset, mask=valid, other=0, eviction_policy=POLICY).to(tl.int32)


@triton.jit
def _narrow_words(
    plane,
    row_offset,
    container,
    valid,
    PLANE: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Words of plane PLANE beside containers of the widest, shifted so that field 0 lines up.

    Strides and superblocks are powers of two times each other, so the codes beside one container
    of the widest plane lie in one container of a narrower plane.
    """
    STRIDE: tl.constexpr = plane_stride(BLOCK, 0)
    SUPERBLOCK: tl.constexpr = superblock(BLOCK, 0)
    WIDTH: tl.constexpr = plane_width(BLOCK, PLANE)
    OWN: tl.constexpr = plane_stride(BLOCK, PLANE)
    RATIO: tl.constexpr = superblock(BLOCK, PLANE) // SUPERBLOCK
    whole, place = container // STRIDE, container % STRIDE
    word = (whole // RATIO * OWN + place % OWN) // LANES
    shift = WIDTH * (whole % RATIO * (SUPERBLOCK // OWN) + place // OWN)
    return load_plane(plane, row_offset + word, valid, LANES, "") >> shift


@triton.jit
def load_words(arrays, strides, row, word, valid, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Words of all planes, three int32 `[BLOCK_N, BLOCK_W]`; those that do not exist are the first.

    Args:
        arrays: see above.
        strides: words to a row, of each plane.
        row: int64 `[BLOCK_N, 1]`.
        word: of the widest plane, `[1, BLOCK_W]`.
        valid: which words to load, `[1, BLOCK_W]`.
        LANES: containers in a word.
        BLOCK: see above.
    """
    first = load_plane(arrays[0], row * strides[0] + word, valid, LANES, "evict_first")
    second, third = first, first
    if n_planes(BLOCK) > 1:
        second = _narrow_words(arrays[1], row * strides[1], word * LANES, valid, 1, LANES, BLOCK)
    if n_planes(BLOCK) > 2:
        third = _narrow_words(arrays[2], row * strides[2], word * LANES, valid, 2, LANES, BLOCK)
    return first, second, third


@triton.jit
def _shifted(word, FROM: tl.constexpr, TO: tl.constexpr):
    if FROM >= TO:
        word = word >> (FROM - TO)
    else:
        word = word << (TO - FROM)
    return word


@triton.jit
def e4m3(word, LANE: tl.constexpr):
    """Float32 of the e4m3 number in byte `LANE`: its bits as float32, whose bias is 120 larger."""
    sign = _shifted(word, 8 * LANE + 7, 31) & -2147483648
    return (sign | (_shifted(word, 8 * LANE, 20) & 0x07F00000)).to(tl.float32, bitcast=True) * (
        2.0**120
    )


@triton.jit
def raised(word, nothing, AT: tl.constexpr, WIDTH: tl.constexpr, LOW: tl.constexpr):
    """Float32 `2^(8 - AT % 8 + LOW) + 2^LOW * bits` of the WIDTH bits at AT of a word.

    The byte they are in is moved to the top of the mantissa, once for all its fields, so that what
    is added is small: a sum of products can carry it and lose it by one subtraction at its end,
    where `integer_levels` subtracts from every number. `nothing` is a 0 that the compiler does not
    know: it would make the pattern anew for every number instead of keeping it in a register.
    """
    PLACE: tl.constexpr = 15 + AT % 8
    bits = _shifted(word, AT - AT % 8, 15) & mask_at(WIDTH, PLACE)
    return (bits | (((150 - PLACE + LOW) << 23) + nothing)).to(tl.float32, bitcast=True)


@triton.jit
def integer_levels(words, nothing, FIELD: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr):
    """Float32 integer levels of one field of containers."""
    WIDTH: tl.constexpr = plane_width(BLOCK, 0)
    PLACE: tl.constexpr = WIDTH * FIELD
    # Left where the bits are, as the low ones of a float32: no shift, no conversion.
    bits = (words[0] & mask_at(WIDTH, PLACE)) | (magic(PLACE) + nothing)
    EXCESS: tl.constexpr = 2.0 ** (23 - PLACE) + excess(BLOCK, FIELD, 0, ROUND, 1)
    level = bits.to(tl.float32, bitcast=True) - EXCESS
    for p in tl.static_range(1, n_planes(BLOCK)):
        level += raised(
            words[p], nothing,
            position(BLOCK, p, FIELD, 0, ROUND), plane_width(BLOCK, p), low_bit(BLOCK, p),
        )  # fmt: skip
    return level


@triton.jit
def levels(
    words, table, row, nothing,
    FIELD: tl.constexpr, LANE: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Float32 levels of one field of one lane of `words`, before the scale.

    Args:
        words: see `load_words`.
        table: levels of a TABLE, or of a ROW_TABLE row by row.
        row: int64 `[BLOCK_N, 1]`.
        nothing: 0 that the compiler does not know, see `raised`.
        FIELD: which field of the widest plane.
        LANE: which container of the word; 0 for INTEGER.
        ROUND: see `position`.
        BLOCK: see above.
    """
    KIND: tl.constexpr = BLOCK[0]
    WIDTH: tl.constexpr = plane_width(BLOCK, 0)
    AT: tl.constexpr = WIDTH * FIELD + 16 * LANE
    if KIND == INTEGER:
        level = integer_levels(words, nothing, FIELD, ROUND, BLOCK)
    elif KIND == E4M3:
        level = e4m3(words[0], LANE)
    elif KIND == E2M1:
        sign = _shifted(words[0], AT + 3, 31) & -2147483648
        size = _shifted(words[0], AT, 22) & 0x01C00000
        level = (sign | size).to(tl.float32, bitcast=True) * (2.0**126)
    else:
        code = _shifted(words[0], AT, 0) & mask_at(WIDTH, 0)
        if n_planes(BLOCK) > 1:
            LOW: tl.constexpr = low_bit(BLOCK, 1)
            more = _shifted(words[1], position(BLOCK, 1, FIELD, LANE, ROUND), LOW)
            code |= more & mask_at(plane_width(BLOCK, 1), LOW)
        if KIND == ROW_TABLE:
            table += row * n_levels(BLOCK)
        level = tl.load(table + code).to(tl.float32)
    return level


@triton.jit
def load_scale(scale, offset, valid, BLOCK: tl.constexpr):
    """Float32 scales; those of E4M3_SCALE without the scale of the matrix."""
    stored = tl.load(scale + offset, mask=valid, other=0)
    if BLOCK[3] == E8M0_SCALE:
        number = (stored.to(tl.int32) << 23).to(tl.float32, bitcast=True)
    elif BLOCK[3] == E4M3_SCALE:
        number = e4m3(stored.to(tl.int32), 0)
    else:
        number = stored.to(tl.float32)
    return number
