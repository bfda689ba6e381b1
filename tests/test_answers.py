"""Intervals and paired tests, against numbers of others and against each other."""

import numpy as np
import pytest
from scipy.stats import binom

from bitfront.answers import Answers, Paired, bootstrap, mcnemar, sign_flips, wilson
from bitfront.errors import MismatchedArtifact


def answers(log_likelihoods, right, n_bytes=None):
    table = np.array(log_likelihoods, dtype=np.float64)
    lengths = np.ones(table.shape) if n_bytes is None else np.array(n_bytes, dtype=np.float64)
    return Answers(table, lengths, np.array(right))


@pytest.fixture
def ragged():
    """Three items of which the last has two choices; the right ones are 0, 2 and 1."""
    return answers(
        [[-1.0, -2.0, -3.0], [-4.0, -9.0, -6.0], [-2.0, -2.5, -np.inf]],
        [0, 2, 1],
        [[1, 1, 1], [1, 2, 3], [4, 4, 1]],
    )


def test_accuracy_goes_by_likelihood_and_by_likelihood_per_byte(ragged):
    assert ragged.correct.tolist() == [True, False, False]
    assert ragged.correct_norm.tolist() == [True, True, False]
    assert ragged.values["answer_error"] == pytest.approx(2 / 3)
    assert ragged.values["answer_error_norm"] == pytest.approx(1 / 3)


def test_margins_and_losses_of_the_right_choice(ragged):
    assert ragged.margins.tolist() == pytest.approx([1.0, -2.0, -0.5])
    shares = np.exp([-1 + 1, -6 + 4, -2.5 + 2]) / [
        np.exp([0, -1, -2]).sum(), np.exp([0, -5, -2]).sum(), np.exp([0, -0.5]).sum()
    ]  # fmt: skip
    assert ragged.losses.tolist() == pytest.approx((-np.log(shares)).tolist())
    assert ragged.values["answer_loss"] == pytest.approx(float(-np.log(shares).mean()))


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617)],
)
def test_wilson_is_that_of_the_formula(n_right, n, low, high):
    """Bounds of the closed form with z = 1.95996."""
    z, share = 1.959964, n_right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    interval = wilson(n_right, n)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (6, 0), (9, 2), (4, 4)])
def test_mcnemar_is_twice_the_tail_of_fair_coins(lost, gained):
    n, fewer = lost + gained, min(lost, gained)
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, 2 * binom.cdf(fewer, n, 0.5)))
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_margins_tell_what_accuracies_cannot():
    """Every item loses a little: no answer changes, and the margins leave no doubt."""
    rng = np.random.default_rng(0)
    before = answers(rng.normal(0, 5, (200, 4)), rng.integers(0, 4, 200))
    moved = before.log_likelihoods.copy()
    moved[np.arange(200), before.right] -= 0.02 + 0.001 * rng.random(200)
    after = Answers(moved, before.n_bytes, before.right)
    paired = Paired.of(after, before)
    assert paired.accuracy_p > 0.05
    assert paired.margin_p < 0.001
    assert paired.margin_interval.low <= paired.margin <= paired.margin_interval.high < 0


def test_the_same_model_differs_from_itself_in_nothing():
    rng = np.random.default_rng(1)
    same = answers(rng.normal(size=(30, 3)), rng.integers(0, 3, 30))
    paired = Paired.of(same, same)
    assert (paired.n_lost, paired.n_gained, paired.accuracy, paired.margin) == (0, 0, 0.0, 0.0)
    assert paired.accuracy_p == paired.margin_p == 1.0
    assert paired.margin_interval.low == paired.margin_interval.high == 0.0


def test_lost_and_gained_are_counted_apart():
    before = answers([[0, -1]] * 5 + [[-1, 0]] * 3, [0] * 8)
    after = answers([[-1, 0]] * 4 + [[0, -1]] * 4, [0] * 8)
    paired = Paired.of(after, before)
    assert (paired.n_lost, paired.n_gained) == (4, 3)
    assert paired.accuracy == pytest.approx(-1 / 8)
    assert paired.accuracy_interval.low < -1 / 8 < paired.accuracy_interval.high


def test_p_values_of_random_signs_are_even_where_nothing_differs():
    """Of 200 samples without a difference about one in ten has a p-value below 0.1."""
    rng = np.random.default_rng(2)
    below = [sign_flips(rng.normal(size=12), seed) < 0.1 for seed in range(60)]
    assert 0.01 <= np.mean(below) <= 0.25


def test_bootstrap_is_as_wide_as_the_standard_error_says():
    differences = np.random.default_rng(3).normal(0.3, 1.0, 400)
    interval = bootstrap(differences)
    error = differences.std() / 20
    assert (interval.high - interval.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)


def test_answers_to_other_items_are_not_paired():
    with pytest.raises(MismatchedArtifact, match="different items"):
        Paired.of(answers([[0, 1]], [0]), answers([[0, 1]], [1]))
