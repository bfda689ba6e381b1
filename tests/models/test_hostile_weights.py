"""Weight files of anybody: refused in one line, at once and in little memory, or read."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.api import weights
from bitfront.errors import InvalidModel
from bitfront.models import weight_files

SECONDS = 5.0
"""Five times what is promised, for a busy machine."""
NBYTES = 200e6
LARGEST = weights.MAX_HEADER_BYTES
"""Bytes of a header that is still looked at."""

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
    "header of 7 MB": packed(json.dumps({"a": ENTRY}).encode() + b" " * 7_000_000),
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


READ_ALL = """
import sys
from contextlib import suppress
from pathlib import Path

from bitfront.api import weights
from bitfront.errors import InvalidModel
from bitfront.models import weight_files

def most():
    # Unlike `ru_maxrss`, it is not of the process that started this one.
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return 1024 * int(line.split()[1])

for folder in map(Path, sys.argv[1:]):
    with suppress(InvalidModel):
        weights.read(folder)
    with suppress(InvalidModel):
        weight_files.check(folder)
        weight_files.digest(folder)
    print(most())
"""
"""Prints the most memory that this process had after each folder."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def refusal(read, folder, data):
    """What a file of some bytes is refused with, if it is; nothing but InvalidModel may do it."""
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text("{}")
    message, begun = None, time.monotonic()
    try:
        read(folder)
    except InvalidModel as error:
        message = str(error)
    assert time.monotonic() - begun < SECONDS
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


def large(item):
    """The longest header of one item again and again."""
    return packed(b'{"a":[' + b",".join([item] * ((LARGEST - 10) // (len(item) + 1))) + b"]}")


def many():
    """As many tensors without elements as the longest header has place for."""
    entry = '"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    entries = (entry % index for index in range(LARGEST // (len(entry) + 4)))
    return packed(("{" + ",".join(entries) + "}").encode(), b"")


def test_no_weight_file_takes_much_memory(tmp_path):
    """In a process of its own, for Rust takes memory that Python does not see."""
    found = {**BAD, "lists": large(b"[]"), "numbers": large(b"9"), "names": many()}
    for name, data in {"good": GOOD, **found}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(data)
        (tmp_path / name / "config.json").write_text("{}")
    folders = [str(tmp_path / name) for name in ("good", *found)]
    command = [sys.executable, "-c", READ_ALL, *folders]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    before, *most = map(int, told.stdout.split())
    assert len(most) == len(found)
    grown = {name: n - before for name, n in zip(found, most, strict=True)}
    assert {name: n for name, n in grown.items() if n > NBYTES} == {}


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
