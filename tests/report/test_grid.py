import pytest

from bitfront.report.grid import Grid
from tests.report.studies import GPT2, LLAMA, expert_layers, named_layers


def test_rows_are_kinds_and_columns_blocks():
    grid = Grid.of(named_layers(2))
    assert grid.rows == LLAMA
    assert grid.blocks == (0, 1)
    assert grid.cells[1] == ((1,), (5,))


def test_layers_outside_the_blocks_have_a_column_of_their_own():
    grid = Grid.of(named_layers(2, outside=("lm_head",)))
    assert grid.columns == ("0", "1", "none")
    assert grid.cells[-1] == ((), (), (8,))


def test_a_layer_outside_has_its_own_row_where_its_kind_is_also_in_the_blocks():
    parts = ("attention.output.dense", "intermediate.dense", "output.dense")
    grid = Grid.of(named_layers(2, parts, outside=("cls.predictions.transform.dense",)))
    assert grid.rows == (*parts, "cls.predictions.transform.dense")
    assert grid.cells[-1] == ((), (), (6,))


def test_experts_of_a_block_share_a_cell():
    grid = Grid.of(expert_layers(5, n_blocks=2))
    assert grid.rows == ("mlp.experts.up_proj",)
    assert grid.cells == (((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),)


@pytest.mark.parametrize("outside", [("fc1", "fc2", "head"), ("0", "2", "4")])
def test_a_model_without_blocks_has_a_row_a_layer(outside):
    grid = Grid.of(named_layers(0, outside=outside))
    assert grid.rows == outside
    assert grid.blocks == (-1,)


def test_every_layer_is_in_exactly_one_cell():
    layers = (*named_layers(126, GPT2, ("lm_head",)), *expert_layers(2, n_blocks=126))
    indices = [i for row in Grid.of(layers).cells for cell in row for i in cell]
    assert sorted(indices) == list(range(len(layers)))
