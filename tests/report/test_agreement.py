import pytest

from bitfront.report.agreement import main_format, tau, uniform_at
from tests.report.studies import bare_trial, made_up

UNIFORMS = [bare_trial(1.0, 100), bare_trial(0.1, 200), bare_trial(0.0, 400)]


def test_tau_counts_pairs_in_order():
    # 5 of 6 pairs agree, 1 disagrees: (5 - 1) / 6
    assert tau([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(4 / 6)
    assert tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


@pytest.mark.parametrize(("predicted", "measured"), [([], []), ([1], [2]), ([1, 1], [1, 2])])
def test_tau_is_nothing_where_there_is_no_order(predicted, measured):
    assert tau(predicted, measured) is None


def test_uniform_is_interpolated_geometrically():
    baseline = uniform_at(UNIFORMS, 150)
    assert baseline.kl == pytest.approx(0.1**0.5)
    assert (baseline.below, baseline.above) == (UNIFORMS[0], UNIFORMS[1])


def test_uniform_of_the_same_size_is_taken_as_it_is():
    assert uniform_at(UNIFORMS, 200).kl == 0.1


def test_of_uniforms_only_those_count_that_no_other_beats():
    worse = [bare_trial(0.3, 200), bare_trial(2.0, 100), bare_trial(1.5, 150)]
    for uniforms in ([*UNIFORMS, *worse], [*worse, *UNIFORMS]):
        assert uniform_at(uniforms, 200).kl == 0.1
        assert uniform_at(uniforms, 150).kl == pytest.approx(0.1**0.5)


@pytest.mark.parametrize("n_bytes", [99, 201, 400, 500])
def test_no_baseline_outside_the_lossy_uniforms(n_bytes):
    assert uniform_at(UNIFORMS, n_bytes) is None


def test_a_uniform_baseline_is_called_by_its_format():
    data = made_up()
    assert [main_format(t, data.space) for t in data.uniforms] == [
        f.name for f in data.space.formats
    ]
