import numpy as np
import pytest
from instances import MENU, random_space

from bitfront import formats
from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.space import Layer, SearchSpace, shapes
from bitfront.trial import Trial, TrialState

INT2, INT4, INT8 = (formats.named(f"int{bits}_g64") for bits in (2, 4, 8))
CHANNEL = formats.named("int4_channel")


def layer(name, shape=(16, 64), group=None):
    return Layer(name, shape, group or name)


@pytest.fixture
def space():
    """Two tied layers, one of odd width, one pinned."""
    layers = (
        layer("model.layers.0.q_proj", group="qk"),
        layer("model.layers.0.o_proj", shape=(16, 80)),
        layer("model.layers.0.k_proj", group="qk"),
    )
    return SearchSpace(layers, (INT2, CHANNEL, INT8), ((layer("embed"), INT8),), fixed_bytes=10)


def test_layers_of_a_group_are_one_row(space):
    assert space.groups == ((0, 2), (1,))


def test_a_format_that_does_not_fit_is_not_allowed(space):
    np.testing.assert_array_equal(space.allowed, [[1, 1, 1], [0, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(space.group_allowed, [[1, 1, 1], [0, 1, 0]])


def test_a_group_allows_only_what_fits_all_its_layers():
    layers = (layer("a", group="g"), layer("b", shape=(16, 80), group="g"))
    space = SearchSpace(layers, (INT2, CHANNEL))
    np.testing.assert_array_equal(space.group_allowed, [[0, 1]])


def test_decode_names_every_layer_and_encode_is_its_inverse(space):
    allocation = space.decode([2, 1])
    assert allocation.formats == {
        "model.layers.0.q_proj": "int8_g64",
        "model.layers.0.k_proj": "int8_g64",
        "model.layers.0.o_proj": "int4_channel",
        "embed": "int8_g64",
    }
    np.testing.assert_array_equal(space.encode(allocation), [2, 1])


@pytest.mark.parametrize("seed", range(10))
def test_encode_inverts_decode_on_random_spaces(seed):
    rng = np.random.default_rng(seed)
    space = random_space(rng, 12, 5)
    choice = np.where(space.group_allowed, rng.random(space.group_allowed.shape), -1).argmax(axis=1)
    np.testing.assert_array_equal(space.encode(space.decode(choice)), choice)


@pytest.mark.parametrize("choice", [[2], [2, 1, 0], [2, 3], [-1, 1]])
def test_what_is_no_choice_is_not_decoded(space, choice):
    with pytest.raises(ValueError, match="Not 2 indices below 3"):
        space.decode(choice)


def test_a_decoded_choice_that_does_not_fit_is_refused_as_any_other(space):
    with pytest.raises(InvalidArgument, match="does not fit"):
        space.encode(space.decode([2, 0]))


def test_a_decoded_allocation_is_what_its_formats_are(space):
    decoded = space.decode([2, 1])
    plain = Allocation(dict(decoded.formats))
    assert decoded == plain
    assert decoded == space.decode([2, 1])
    assert decoded != space.decode([1, 1])
    assert decoded.digest == plain.digest
    trial = Trial(0, decoded, "calibration", "sweep", TrialState.RUNNING)
    assert Trial.from_json(trial.to_json()).allocation == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.0.k_proj": "int2_g64"}, "no single format"),
        ({"model.layers.0.o_proj": "int2_g64"}, "does not fit"),
        ({"model.layers.0.o_proj": "int3_g64"}, "not on the menu: int2_g64, int4_channel"),
        ({"model.layers.0.o_proj": None}, "no single format"),
    ],
)
def test_allocations_of_other_spaces_are_refused(space, change, message):
    allocation = space.decode([2, 1])
    changed = type(allocation)(dict(allocation.formats) | change)
    with pytest.raises(InvalidArgument, match=message):
        space.encode(changed)


@pytest.mark.parametrize(
    ("layers", "menu", "message"),
    [
        ((), (INT2,), "at least one layer"),
        ((layer("a"),), (), "at least one layer and one format"),
        ((layer("a"), layer("a")), (INT2,), "Repeated layer names: a"),
        ((layer("a"),), (INT2, INT2), "Repeated format names: int2_g64"),
        ((layer("a"),), (INT2,) * 257, "at most 256 formats, not 257"),
        ((layer("a"), layer("b", (16, 80))), (INT2, INT4), "No format of the menu fits layer 'b'"),
    ],
)
def test_unusable_spaces_are_refused(layers, menu, message):
    with pytest.raises(InvalidArgument, match=message):
        SearchSpace(layers, menu)


def test_pinned_layers_and_fixed_tensors_are_outside_the_search(space):
    assert space.outside_bytes == 10 + INT8.nbytes((16, 64))
    assert space.n_weights == 16 * 64 * 2 + 16 * 80


def test_uniform_takes_the_next_larger_format_where_one_does_not_fit():
    layers = (layer("a"), layer("odd", (16, 80)))
    channels = tuple(formats.named(f"int{bits}_channel") for bits in (3, 5, 8))
    space = SearchSpace(layers, (INT4, *channels))
    assert space.uniform(0).tolist() == [0, 2]
    assert space.uniform(3).tolist() == [3, 3]


def test_uniform_takes_the_largest_that_fits_where_nothing_larger_does():
    layers = (layer("a"), layer("odd", (16, 80)))
    space = SearchSpace(layers, (INT8, formats.named("int2_channel"), CHANNEL))
    assert space.uniform(0).tolist() == [0, 2]


def test_a_layer_without_a_place_is_outside_the_blocks_and_of_its_own_kind():
    head = layer("lm_head.0.dense")
    assert (head.block, head.kind) == (-1, "lm_head.0.dense")


def test_the_place_of_a_layer_is_no_part_of_a_study_identity():
    """Its digest hashes `repr`: folders made before layers knew their places go on."""
    placed = Layer("model.layers.3.fc", (16, 64), "fc", 3, "fc")
    assert repr(placed) == "Layer(name='model.layers.3.fc', shape=(16, 64), group='fc')"


def test_shapes_counts_layers(space):
    assert shapes(space.layers) == {(16, 64): 2, (16, 80): 1}


def test_menus_of_the_instances_have_misfits():
    spaces = [random_space(np.random.default_rng(seed), 8, len(MENU)) for seed in range(5)]
    assert not all(space.group_allowed.all() for space in spaces)


def test_a_known_digest_is_not_made_again(space):
    assert space.decode([2, 1], "known").digest == "known"
