"""Comparison: estimators on one model, passes shared, continued where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfront import Choice, Study
from bitfront.compare import _rank, allocations, compare, read_comparison, within
from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.report.comparison import Compared, comparison_table, write_comparison
from bitfront.results import Results
from bitfront.run import opened
from bitfront.sensitivity.layer_influence import LayerInfluence

CHOSEN = tuple(map(Choice, ("fisher", "layer_influence", "output_error", "weight_error")))
N = 12


@pytest.fixture(scope="module")
def study(tiny_study) -> Study:
    return tiny_study(
        4, 1, formats=("int2_g32", "int3_g32", "int4_g32", "int8_g32"), n_search_sequences=2,
        estimator=Choice("weight_error"), tied=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(study: Study, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("compared")
    compare(study, CHOSEN, directory, N)
    return directory


def test_every_estimator_has_a_row_the_best_first(folder: Path) -> None:
    rows = read_comparison(folder)
    assert {row.estimator for row in rows} == {str(choice) for choice in CHOSEN}
    taus = [row.tau["all"] for row in rows]
    assert taus == sorted(taus, reverse=True)
    assert rows[0].tau["all"] > 0.8
    assert all(row.seconds > 0 and row.error is None for row in rows)


def test_those_that_share_a_pass_say_so(folder: Path) -> None:
    shared = {row.estimator: row.shared for row in read_comparison(folder)}
    assert shared["fisher"] == ()  # alone among those given in asking for gradients
    assert shared["output_error"] == ()


def test_allocations_are_measured_once_and_finished_estimators_not_run_again(
    folder: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Results(folder).trials("calibration")
    assert len(before) == N
    ran = []
    monkeypatch.setattr(
        "bitfront.compare._group", lambda job, group, *rest: ran.append(group) or []
    )
    again = compare(study, CHOSEN, folder, N)
    assert not ran
    assert Results(folder).trials("calibration") == before
    assert again == read_comparison(folder)


def test_an_estimator_that_gives_other_values_now_is_run_again(
    folder: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(LayerInfluence, "version", LayerInfluence.version + 1)
    monkeypatch.setattr(
        "bitfront.compare._group", lambda job, group, *rest: ran.extend(group) or []
    )
    compare(study, CHOSEN, folder, N)
    assert [type(each) for each in ran] == [LayerInfluence]


def test_one_that_fails_is_a_row_and_the_others_go_on(study: Study, tmp_path: Path) -> None:
    """A menu with a format that overflows nothing, and an estimator asked for the impossible."""
    broken = Choice("leave_one_in", {"max_sequences": 1})
    directory = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        from bitfront.errors import NonFinite
        from bitfront.sensitivity.leave_one_in import LeaveOneIn

        def overflow(*_args: object, **_kwargs: object) -> None:
            raise NonFinite("The output of layer 'x' is not finite")

        patch.setattr(LeaveOneIn, "estimate", overflow)
        rows = compare(study, (broken, Choice("weight_error")), directory, 4)
    assert [row.error is None for row in rows] == [True, False]
    repaired = compare(study, (broken, Choice("weight_error")), directory, 4)
    assert all(row.error is None for row in repaired)


def test_allocations_are_spread_evenly_over_the_ranges(study: Study, folder: Path) -> None:
    with opened(study, folder) as job:
        made = allocations(job.problem, 45)
        bits = [job.problem.cost("code_bits").total(job.problem.space.encode(a)) for a in made]
    per_weight = np.array(bits) / job.problem.space.n_weights
    counts = [members.sum() for members in within(per_weight.tolist()).values()]
    assert len(made) == 45
    assert min(counts) >= 10


def test_shown_as_table_and_page(folder: Path, tmp_path: Path) -> None:
    rows = read_comparison(folder)
    assert comparison_table(rows).row_count == len(rows)
    write_comparison(tmp_path / "page.html", "tiny <b>", rows)
    page = (tmp_path / "page.html").read_text()
    assert all(row.estimator in page for row in rows)
    assert "tiny <b>" not in page


def test_bad_requests_are_refused_before_anything_is_made(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UnknownPlugin, match="Did you mean 'fisher'"):
        compare(study, (Choice("fishr"),), tmp_path / "out", N)
    with pytest.raises(InvalidArgument, match="n_allocations"):
        compare(study, CHOSEN, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def test_what_ranks_nothing_comes_before_what_ranks_the_wrong_way() -> None:
    rows = [Compared(str(tau), {"all": tau}) for tau in (None, -0.5, 0.0, 0.5)]
    assert [row.tau["all"] for row in sorted(rows, key=_rank)] == [0.5, 0.0, -0.5, None]


def test_what_failed_comes_after_what_ranks_nothing() -> None:
    rows = [Compared("failed", error="why"), Compared("no order", {"all": None}), Compared("none")]
    assert [row.estimator for row in sorted(rows, key=_rank)] == ["no order", "none", "failed"]


def test_the_folder_keeps_json_rows(folder: Path) -> None:
    rows = json.loads((folder / "comparison.json").read_text())
    assert {"estimator", "tau", "seconds", "peak_mb", "shared", "note", "error"} == set(rows[0])


def test_pairs_with_inputs_are_judged_by_the_table_that_a_search_would_use(study, tmp_path):
    menu = ("int4_g32", "int4_g32_aint4", "int2_g32")
    paired = replace(study, formats=menu, estimator=Choice("fisher"), n_search_sequences=1)
    chosen = [Choice("fisher"), Choice("weight_error")]
    rows = {row.estimator: row for row in compare(paired, chosen, tmp_path, 3)}
    with opened(paired, tmp_path) as job:
        searched = job.problem.loss
        judged = job.results.load_table("compared-fisher", job.problem.space)
    np.testing.assert_array_equal(judged.values, searched.values)
    assert (judged.values[:, 1] > judged.values[:, 0]).all()
    assert rows["fisher"].seconds > 0
    assert "only ranks weights" in rows["weight_error"].error


def test_experts_hardly_visited_are_judged_as_a_search_judges_them(study, moe_folder, tmp_path):
    routed = replace(study, model=str(moe_folder), formats=("int2_g64", "int4_g64"))
    chosen = [Choice("fisher"), Choice("weight_error")]
    rows = {row.estimator: row for row in compare(routed, chosen, tmp_path, 3)}
    assert "saw too few tokens: their scores are imputed" in rows["fisher"].note
    assert "imputed" not in rows["weight_error"].note
