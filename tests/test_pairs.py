"""Pairs: interactions of neighbours measured once, stored, and given to the solver."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bitfront import Choice
from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.inputs import check_names
from bitfront.pairs import neighbours
from bitfront.run import opened, run_study

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")
N_PAIRS = 6


@pytest.fixture(scope="module")
def study(tiny_study):
    return tiny_study(
        4, 2, formats=FORMATS, searches=(Choice("sweep", {"solver": "quadratic"}),),
        n_search_sequences=4, n_trials=6, n_pairs=N_PAIRS, tied=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    run_study(study, directory)
    return directory


def test_pairs_are_neighbours_of_large_losses(study, folder):
    with opened(study, folder) as job:
        pairs = neighbours(job.problem, N_PAIRS)
        assert list(job.problem.pairs) == pairs
    assert len(pairs) == N_PAIRS
    assert all(second == first + 1 for first, second in pairs)


def test_with_them_the_kl_of_two_layers_is_exact(study, folder):
    with opened(study, folder) as job:
        problem, measurement = job.problem, job.measurement
        space, n_all = problem.space, len(measurement.references["calibration"].tokens)

        def kl(*groups):
            rows = (row for group in groups for row in space.groups[group])
            formats = {space.layers[row].name: FORMATS[0] for row in rows}
            return measurement.screened(Allocation(formats), n_all)

        for (first, second), values in problem.pairs.items():
            together = kl(first) + kl(second) + values[0, 0]
            assert together == pytest.approx(kl(first, second), rel=1e-4)
            assert values[0, 0] != 0
            assert np.count_nonzero(values) == 1


def test_a_continued_run_measures_no_pair_again(study, folder, monkeypatch):
    before = json.loads((folder / "pairs.json").read_text())
    called = []
    with opened(study, folder) as job:
        monkeypatch.setattr(type(job.measurement), "screened", lambda *a: called.append(a))
    with opened(study, folder) as job:
        assert len(job.problem.pairs) == N_PAIRS
    assert not called
    assert json.loads((folder / "pairs.json").read_text()) == before


def test_without_pairs_nothing_is_measured(study, tmp_path):
    with opened(replace(study, n_pairs=0), tmp_path) as job:
        assert not job.problem.pairs
    assert not (tmp_path / "pairs.json").exists()


def test_a_damaged_file_is_named(study, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "pairs.json").write_text("[1, 2")
    with pytest.raises(MismatchedArtifact, match=r"pairs\.json"), opened(study, tmp_path):
        pass


@pytest.mark.parametrize("estimator", ["weight_error", "blend:by=rank"])
def test_pairs_in_nats_are_not_added_to_what_only_ranks(study, estimator):
    ranking = replace(study, estimator=Choice.parse(estimator))
    with pytest.raises(InvalidArgument, match=r"only ranks weights.*fisher_directional"):
        check_names(ranking)
    check_names(replace(ranking, n_pairs=0))
