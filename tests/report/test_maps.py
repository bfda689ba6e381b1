from dataclasses import replace

import numpy as np
import pytest

from bitfront.report.maps import bit_map_figure, bit_views, sensitivity_views, swatches
from bitfront.table import LayerTable
from tests.report.studies import expert_layers, made_up


def test_the_bit_map_shows_the_chosen_allocation():
    data = made_up()
    view = bit_views(data)[0]
    assert "(chosen)" in view.label
    for row, kind in enumerate(("self_attn.q_proj", "self_attn.o_proj")):
        for block in range(3):
            name = data.chosen.allocation.formats[f"model.layers.{block}.{kind}"]
            assert view.hover[row][block] == name
            assert view.texts[row][block] == name.removeprefix("int").removesuffix("_g64")
            assert swatches(data.space.formats)[view.values[row][block]].name == name


def test_there_is_a_view_for_each_point_of_the_front():
    data = made_up()
    assert len(bit_views(data)) == len(data.front.trials)
    assert len({view.label for view in bit_views(data)}) == len(data.front.trials)


def test_a_cell_of_several_layers_says_how_many_have_each_format():
    data = made_up(expert_layers(5))
    names = ["int3_g64"] * 3 + ["int2_g64"] * 2
    formats = dict(zip((x.name for x in data.space.layers), names, strict=True))
    trial = replace(data.chosen, allocation=type(data.chosen.allocation)(formats))
    view = bit_views(replace(data, chosen=trial))[0]
    assert (view.texts, view.hover) == ((("3",),), (("int3_g64 ×3, int2_g64 ×2",),))


def test_formats_have_distinct_colours_in_order_of_bits():
    menu = swatches(made_up(bits=(8, 2, 4, 3)).space.formats)
    assert [s.name for s in menu] == ["int2_g64", "int3_g64", "int4_g64", "int8_g64"]
    assert len({s.colour for s in menu}) == 4


@pytest.mark.parametrize("bits", [(4,), (2, 3, 4, 5, 6, 8)])
def test_each_format_falls_on_its_own_colour(bits):
    data = made_up(bits=bits)
    heat = bit_map_figure(data).data[0]
    for index, swatch in enumerate(swatches(data.space.formats)):
        position = (index - heat.zmin) / (heat.zmax - heat.zmin)
        below = [c for edge, c in heat.colorscale if edge <= position]
        assert below[-1] == swatch.colour


def test_sensitivity_is_the_logarithm_of_the_table():
    data = made_up()
    per_weight, per_layer = (
        next(v for v in sensitivity_views(data) if v.label == f"int2_g64, {unit}")
        for unit in ("per weight", "per layer")
    )
    expected = np.log10(data.loss.values[:, 0]).reshape(3, 4).T
    np.testing.assert_allclose(per_layer.values, expected)
    np.testing.assert_allclose(per_weight.values, expected - np.log10(128 * 128))


def test_entries_without_loss_are_left_empty_and_lossless_formats_out():
    data = made_up()
    values = data.loss.values.copy()
    values[0, 0], values[:, 3] = -1.0, 0.0
    views = sensitivity_views(replace(data, loss=LayerTable(data.space, values, "kl")))
    assert views[0].values[0][0] is None
    assert not any(view.label.startswith("int8_g64") for view in views)
