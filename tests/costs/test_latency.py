"""Latency: a measured table read, interpolated, and refused where it says nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bitfront import Choice, Study, formats
from bitfront.costs.latency import Latency
from bitfront.errors import InvalidArgument
from bitfront.places import located
from bitfront.pricing import cost_tables
from bitfront.space import Layer, SearchSpace
from bitfront.timings import LayerCall, RestOfStep, Timing, Timings, rest_digest

MENU = tuple(formats.named(name) for name in ("int2_g64", "int4_g64", "int8_g64"))
SPEED = {"int2_g64": 3.0, "int4_g64": 2.0, "int8_g64": 1.0}


def space_of(*shapes):
    layers = tuple(Layer(f"l{i}", shape, f"l{i}") for i, shape in enumerate(shapes))
    return SearchSpace(layers, MENU, ((Layer("head", (512, 64), "head"), MENU[2]),), 10)


def table_of(space, batch=1, context=2048):
    """A device whose time is 500 ns and a format's own price per stored byte."""
    entries = {
        LayerCall(layer.shape, f.name, batch): Timing(
            tuple(500 + SPEED[f.name] * f.nbytes(layer.shape) + jitter for jitter in (0, -3, 9))
        )
        for layer in space.layers
        for f in space.formats
    }
    entries[RestOfStep(rest_digest(space), batch, context)] = Timing((40_001.0,))
    return Timings("a device", "float32", {"torch": "2"}, "2026-01-01", entries)


@pytest.fixture
def space():
    return space_of((64, 64), (256, 64), (64, 1024))


@pytest.fixture
def file(space, tmp_path):
    table_of(space).save(tmp_path / "t.json")
    return tmp_path / "t.json"


def test_measured_shapes_are_looked_up_and_the_rest_of_the_step_is_outside(space, file):
    (table,) = Latency(str(file)).cost(space)
    for row, layer in enumerate(space.layers):
        for column, format in enumerate(space.formats):
            expected = 500 + SPEED[format.name] * format.nbytes(layer.shape)
            assert table.values[row, column] == expected  # the median of the rounds
    assert table.outside == 40_001
    assert "a device" in table.note


def test_a_located_study_finds_its_table_from_any_folder(
    space, file, tiny_study, tmp_path_factory, monkeypatch
):
    choice = Choice("latency", {"table": file.name, "rest_ms": 0.5})
    study = tiny_study(1, 1, costs=(Choice("memory"), choice))
    monkeypatch.chdir(file.parent)
    stored = Study.from_json(located(study).to_json())
    expected = cost_tables(study, space)[1].values
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    np.testing.assert_array_equal(cost_tables(stored, space)[1].values, expected)
    assert stored.costs[0] == Choice("memory")
    assert stored.costs[1].params["rest_ms"] == 0.5


def test_other_shapes_lie_between_their_neighbours(space, file):
    other = space_of((64, 64), (128, 64), (128, 512), (256, 1024))
    (table,) = Latency(str(file), rest_ms=0.04).cost(other)
    assert table.outside == 40_000
    smallest, between, same_bytes, beyond = table.values
    assert (smallest < between).all()
    known = Latency(str(file)).cost(space)[0].values
    assert (between < known[1]).all()
    # As many bytes as a measured shape take as long; beyond the last, time grows as bytes do.
    np.testing.assert_allclose(same_bytes, known[2], rtol=0.05)
    np.testing.assert_allclose(beyond / known[2], 4.0, rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "menu", "shape", "told"),
    [
        ({"batch": 16}, MENU, (64, 64), r"no time of int2_g64 at batch 16.*--batch 16"),
        ({}, (formats.named("int5_g64"),), (64, 64), r"int5_g64.*--formats int5_g64"),
        ({}, MENU, (4096, 4096), r"near a layer of 4096x4096.*--shapes 4096x4096"),
        ({"context": 7}, MENU, (64, 64), r"rest of this model.*--context 7.*rest_ms"),
        ({}, MENU, (128, 64), r"rest of this model"),
    ],
)
def test_what_the_table_lacks_is_refused_with_what_to_run(changes, menu, shape, told, file):
    space = replace(space_of(shape), formats=menu)
    with pytest.raises(InvalidArgument, match=told) as refused:
        Latency(str(file), **changes).cost(space)
    assert "\n" not in str(refused.value)
    assert "bitfront profile" in str(refused.value)


def test_a_format_that_fits_no_layer_needs_no_time(file):
    """No profile could have timed it: nothing is asked of the table, nor is it named."""
    narrow = space_of((64, 64), (256, 64))
    wide = replace(narrow, formats=(formats.named("int4_g128"), *MENU))
    (table,) = Latency(str(file), rest_ms=0.04).cost(wide)
    (without,) = Latency(str(file), rest_ms=0.04).cost(narrow)
    np.testing.assert_array_equal(table.values[:, 1:], without.values)
    more = replace(wide, formats=(*wide.formats, formats.named("int5_g64")))
    with pytest.raises(InvalidArgument, match="--formats int5_g64 "):
        Latency(str(file), rest_ms=0.04).cost(more)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bitfront_timings": 2}', "not json", None])
def test_what_is_no_table_is_refused(text, space, tmp_path):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidArgument, match="table of latencies"):
        Latency(str(path)).cost(space)
    with pytest.raises(InvalidArgument, match="needs a table"):
        Latency().cost(space)


@pytest.mark.parametrize("samples", [[], [-1.0], [0.0], ["a"], [None], [float("inf")]])
def test_times_that_cannot_be_are_refused(samples, space, file):
    fields = json.loads(file.read_text())
    fields["layers"][0]["samples_ns"] = samples
    file.write_text(json.dumps(fields))
    with pytest.raises(InvalidArgument, match="no table of latencies"):
        Latency(str(file)).cost(space)


def test_a_table_reads_back_as_it_was(space, file):
    stored, made = Timings.load(file), table_of(space)
    assert stored.entries.keys() == made.entries.keys()
    assert (stored.device, stored.dtype, stored.versions) == (made.device, "float32", made.versions)
    assert Timings.load(file).entries == stored.entries


def test_the_rest_of_a_step_is_that_of_the_model_whatever_the_menu(space):
    other_menu = replace(space, formats=MENU[1:])
    assert rest_digest(other_menu) == rest_digest(space)
    assert rest_digest(replace(space, fixed_bytes=11)) != rest_digest(space)
    assert rest_digest(replace(space, pinned=())) != rest_digest(space)
