"""Weight files of anybody: refused in one line, at once and in little memory, or read."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.api import weights
from bitfront.errors import InvalidModel
from bitfront.models import weight_files

SECONDS = 5.0
"""Five times what is promised, for a busy machine."""
NBYTES = 200e6

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def packed(header, data=bytes(16)) -> bytes:
    """A file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


GOOD = packed({"a.weight": ENTRY, "__metadata__": {"format": "pt"}})
BAD = {
    "empty": b"",
    "no header": bytes(8),
    "short": GOOD[:-1],
    "cut in its header": GOOD[:40],
    "longest header": b"\xff" * 8 + b"{}",
    "header past the end": (10**9).to_bytes(8, "little") + b"{}",
    "header of 26 MB": packed(json.dumps({"a": ENTRY}).encode() + b" " * 26_000_000),
    "not UTF-8": packed(b"{\xff\xfe}"),
    "deep": packed(b'{"a":' * 100_000),
    "list": packed([]),
    "overlapping": packed({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 24]}}, bytes(24)),
    "with a gap": packed({"a": ENTRY, "b": {**ENTRY, "data_offsets": [20, 36]}}, bytes(36)),
    "backwards": packed({"a": {**ENTRY, "data_offsets": [16, 0]}}),
    "negative": packed({"a": {**ENTRY, "data_offsets": [-16, 0]}}),
    "past the end": packed({"a": {**ENTRY, "data_offsets": [0, 2**62]}}),
    "of another size": packed({"a": {**ENTRY, "shape": [2, 3]}}),
    "of overflowing size": packed({"a": {**ENTRY, "shape": [2**33, 2**33]}}),
    "of another dtype": packed({"a": {**ENTRY, "dtype": "F64"}}),
    "of no dtype": packed({"a": {**ENTRY, "dtype": "PICKLE"}}),
    "without a dtype": packed({"a": {"shape": [2, 2], "data_offsets": [0, 16]}}),
    "with bytes to spare": GOOD + b"x",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def refusal(read, folder, data):
    """What a file of some bytes is refused with, if it is; nothing but InvalidModel may do it."""
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text("{}")
    message = None
    tracemalloc.start()
    begun = time.monotonic()
    try:
        read(folder)
    except InvalidModel as error:
        message = str(error)
    seconds, peak = time.monotonic() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < SECONDS
    assert peak < NBYTES
    assert message is None or ("\n" not in message and 0 < len(message) < 1_000)
    return message


def loaded(folder):
    """As a worker reads a model before torch does."""
    weight_files.check(folder)
    weight_files.digest(folder)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_weight_file_is_refused(folder, name):
    assert refusal(loaded, folder, BAD[name])
    refusal(weights.read, folder, BAD[name])


def test_a_whole_file_is_read(folder):
    assert refusal(loaded, folder, GOOD) is None
    assert refusal(weights.read, folder, GOOD) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I8", "F8_E4M3", "X"]) | JSON,
        "shape": st.lists(st.integers(-2, 2**40), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(-2, 64), max_size=3) | JSON,
    },
)
HEADERS = st.dictionaries(st.text(max_size=12), ENTRIES | JSON, max_size=4).map(packed)


@st.composite
def damaged(draw):
    """The good file with some bytes changed, and an end cut off."""
    data = bytearray(GOOD)
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=6)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200) | HEADERS | damaged())
def test_any_bytes_are_refused_or_read(folder, data):
    refusal(loaded, folder, data)
    refusal(weights.read, folder, data)
