"""Items put to points of a study and to checkpoints, and lm-eval's own answers to the same."""

import json

import numpy as np
import pytest

from bitfront.budget import Budget
from bitfront.errors import InvalidArgument
from bitfront.exam import UNQUANTIZED, examined, of_files, points
from bitfront.results import Results
from tests.cli.commands import one_line


@pytest.fixture(scope="module")
def best(proven):
    return Results(proven[1]).front().best("kl", bits_per_weight=5.0)


@pytest.fixture(scope="module")
def of_study(proven, tiny_items):
    return list(examined(points(proven[1]), of_files([tiny_items])))


def test_the_unquantized_model_comes_first_and_the_point_is_paired_with_it(of_study, best):
    first, second = of_study
    assert (first.point, first.paired) == (UNQUANTIZED, None)
    assert second.point == f"trial {best.number}"
    assert second.sizes["bytes"] == best.values["bytes"]
    lost = int((first.answers.correct & ~second.answers.correct).sum())
    assert second.paired.n_lost == lost
    assert second.paired.margin_interval.low < second.paired.margin_interval.high


@pytest.mark.parametrize("exporter", ["packed", "fake_quant", "gguf"])
def test_a_checkpoint_answers_as_the_point_that_it_was_made_of(
    exporter, exported, of_study, tiny_items
):
    first, second = examined(points(exported(exporter)), of_files([tiny_items]))
    expected = [row.answers.log_likelihoods for row in of_study]
    assert np.allclose(first.answers.log_likelihoods, expected[0], atol=1e-4)
    # Norms are stored in bfloat16, scales of GGUF in float16.
    assert np.abs(second.answers.log_likelihoods - expected[1]).max() < 0.25
    between = np.abs(second.answers.log_likelihoods - expected[0]).mean()
    assert np.abs(second.answers.log_likelihoods - expected[1]).mean() < 0.5 * between


def test_trials_and_budgets_are_points_and_the_model_is_as_before(proven, tiny_items):
    chosen = points(proven[1], [Budget.parse("5bpw")], [0, 1])
    rows = list(examined(chosen, of_files([tiny_items], n=6)))
    assert [row.point for row in rows][2:] == ["trial 0", "trial 1"]
    assert rows[0].answers.n == 6
    apart = [
        np.abs(r.answers.log_likelihoods - rows[0].answers.log_likelihoods).max() for r in rows
    ]
    assert apart[2] > apart[3] > 0  # 4 bits, then 8: each starts from the unquantized model


def test_the_command_prints_a_table_and_json(proven, tiny_items, run):
    code, out, errors = run("evaluate", proven[1], "--items", tiny_items, "--n-items", 12)
    assert code == 0, errors
    lines = out.splitlines()
    assert "book: 12 items" in lines[0]
    assert any(line.startswith("unquantized") for line in lines)
    assert max(map(len, lines)) <= 80
    code, out, _ = run("evaluate", proven[1], "--items", tiny_items, "--n-items", 12, "--json")
    rows = [json.loads(line) for line in out.splitlines() if "acc_norm" in line]
    assert [row["n"] for row in rows] == [12, 12]
    assert rows[0]["acc_95"][0] <= rows[0]["acc"] <= rows[0]["acc_95"][1]
    assert {"lost", "gained", "acc_p", "margin_change", "margin_p", "bytes"} <= rows[1].keys()


BAD = {
    "nothing to answer": ([], "Give either --items FILE or --tasks NAMES"),
    "no file": (["--items", "nowhere.jsonl"], "Cannot read nowhere.jsonl"),
    "no trial": (["--trial", "99"], "has no trial 99"),
    "no budget": (["--at", "1bpw"], "No point of the front"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, proven, tiny_items, run):
    options, expected = BAD[case]
    given = [] if case.startswith(("nothing", "no file")) else ["--items", tiny_items]
    code, _, errors = run("evaluate", proven[1], *given, *options)
    assert one_line(code, errors)
    assert expected in errors


def test_a_checkpoint_is_one_point(exported):
    with pytest.raises(InvalidArgument, match="it has one point"):
        points(exported("packed"), trials=[1])
