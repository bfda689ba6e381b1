"""What was proposed is told apart whatever the length of the menu."""

import numpy as np

from bitfront import formats
from bitfront.costs import COSTS
from bitfront.problem import Problem
from bitfront.search._record import Record
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial


def test_a_menu_of_more_than_128_formats_is_kept_as_it_is():
    names = [
        f"int{bits}_g{group}{sign}{inputs}"
        for bits in range(2, 9)
        for group in (16, 32, 64, 128)
        for sign in ("", "_sym")
        for inputs in ("", "_aint8", "_aint4")
    ]
    layer = Layer("model.layers.0.a", (128, 128), "g0", 0, "a")
    space = SearchSpace((layer,), tuple(map(formats.named, names)))
    loss = LayerTable(space, np.ones(space.allowed.shape), "kl")
    problem = Problem(loss, COSTS.build("memory").cost(space), {"bytes": 1e9})
    allocation = space.decode(np.array([150]))
    trial = Trial(0, allocation, "calibration", "sweep", values={"kl": 1.0})
    record = Record(problem, [trial])
    assert len(names) == 168
    assert record.choices[0].tolist() == [150]
    assert not record.is_new(np.array([150]))
    assert record.is_new(np.array([151]))
