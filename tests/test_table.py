import numpy as np
import pytest
from instances import random_space

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.table import LayerTable


@pytest.fixture
def space():
    return random_space(np.random.default_rng(2), 6, 4)


def table(space, **options):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(space.layers), len(space.formats)))
    return LayerTable(space, values, "kl", **options)


@pytest.mark.parametrize(("reduction", "combine"), [("sum", np.sum), ("max", np.max)])
def test_rows_of_a_group_are_combined_as_said(space, reduction, combine):
    made = table(space, reduction=reduction)
    for row, group in enumerate(space.groups):
        expected = combine(made.values[list(group)], axis=0)
        allowed = space.group_allowed[row]
        np.testing.assert_allclose(made.grouped[row, allowed], expected[allowed])
        assert np.isinf(made.grouped[row, ~allowed]).all()
    assert not space.group_allowed.all()


def test_total_is_the_sum_over_layers(space):
    made = table(space)
    choice = space.uniform(0)
    by_layer = {i: choice[row] for row, group in enumerate(space.groups) for i in group}
    assert made.total(choice) == pytest.approx(sum(made.values[i, c] for i, c in by_layer.items()))


def test_wrong_shapes_and_reductions_are_refused(space):
    with pytest.raises(InvalidArgument, match=r"has shape \(2, 2\), its space needs"):
        LayerTable(space, np.zeros((2, 2)), "kl")
    with pytest.raises(InvalidArgument, match="use 'sum' or 'max'"):
        table(space, reduction="mean")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_entries_are_refused_with_their_place(space, bad):
    values = np.zeros((len(space.layers), len(space.formats)))
    values[3, 0] = bad
    with pytest.raises(
        NonFinite, match=f"at layer '{space.layers[3].name}', format 'int4_channel'"
    ):
        LayerTable(space, values, "kl")


def test_entries_of_formats_that_do_not_fit_are_ignored(space):
    values = np.where(space.allowed, 1.0, np.nan)
    grouped = LayerTable(space, values, "kl").grouped
    assert np.isnan(values).any()
    assert not np.isnan(grouped).any()
