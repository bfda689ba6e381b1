"""What corrections share and what they do not."""

import numpy as np

from bitfront import formats
from bitfront.search._corrections import features_of
from bitfront.space import Layer, SearchSpace

MENU = tuple(map(formats.named, ("int2_g64", "int4_g64")))


def features(*layers):
    return features_of(SearchSpace(layers, MENU))


def layer(block, kind):
    name = kind if block < 0 else f"model.layers.{block}.{kind}"
    return Layer(name, (64, 64), name, block, kind)


def test_layers_outside_the_blocks_have_a_kind_but_no_depth():
    blocks = [layer(b, "fc") for b in range(4)]
    found = features(layer(-1, "model.project_in.0"), *blocks, layer(-1, "head.dense"))
    n_kinds = 3
    kind, depth = found[:, 0, :n_kinds], found[:, 0, n_kinds : n_kinds + 3]
    assert (kind.sum(axis=1) == 1).all()
    assert (kind[[0, 5]] @ kind[1:5].T == 0).all()
    assert (depth[[0, 5]] == 0).all()
    np.testing.assert_array_equal(depth[1:5], features(*blocks)[:, 0, 1:4])
    assert (depth[1:5] != 0).any(axis=1).all()


def test_layers_that_share_only_their_last_name_share_no_correction():
    parts = ("attn.c_proj", "mlp.c_proj")
    found = features(*(layer(b, part) for b in range(2) for part in parts))
    kind = found[:, 0, :2]
    np.testing.assert_array_equal(kind, [[1, 0], [0, 1]] * 2)
