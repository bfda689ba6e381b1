"""What posterior_ilp promises beyond the contract."""

import numpy as np

from bitfront import formats
from bitfront.search import posterior_ilp
from bitfront.space import Layer, SearchSpace

MENU = tuple(map(formats.named, ("int2_g64", "int4_g64")))


def features(*names):
    layers = tuple(Layer(name, (64, 64), name) for name in names)
    return posterior_ilp._features(SearchSpace(layers, MENU))


def test_layers_outside_the_blocks_have_a_kind_but_no_depth():
    blocks = [f"model.layers.{b}.fc" for b in range(4)]
    found = features("model.project_in", *blocks, "head.dense")
    n_kinds = 3
    kind, depth = found[:, 0, :n_kinds], found[:, 0, n_kinds : n_kinds + 3]
    assert (kind.sum(axis=1) == 1).all()
    assert (kind[[0, 5]] @ kind[1:5].T == 0).all()
    assert (depth[[0, 5]] == 0).all()
    np.testing.assert_array_equal(depth[1:5], features(*blocks)[:, 0, 1:4])
    assert (depth[1:5] != 0).any(axis=1).all()
