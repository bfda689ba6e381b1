"""lm-eval on the model of a packed checkpoint, and our own scorer against it."""

import json
import sys

import numpy as np
import pytest

from bitfront.errors import InvalidArgument, InvalidText
from bitfront.exam import examined, of_files, of_tasks, points
from bitfront.harness import answers_to_tasks, check_installed, task_of
from bitfront.models.load import load_model
from tests.cli.commands import one_line

N = 9


@pytest.fixture
def lm_eval(tmp_path, monkeypatch):
    """The library; what `datasets` makes of the rows of a file does not outlive the test."""
    library = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return library


@pytest.fixture
def folder_of_tasks(tiny_items, tmp_path):
    """A task over the rows of the file, as a user writes it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    # JSON is YAML.
    (folder / "book.yaml").write_text(json.dumps(task_of(tiny_items, "my_book")))
    return folder


def test_the_harness_finds_on_a_packed_checkpoint_what_we_find(
    lm_eval, exported, tiny_items, folder_of_tasks
):
    """The same tokens, likelihoods, lengths and paired answers, quantized and not."""
    folder = exported("packed")
    theirs = list(examined(points(folder), of_tasks(["my_book"], folder_of_tasks, N)))
    ours = list(examined(points(folder), of_files([tiny_items], N)))
    assert [row.items for row in theirs] == ["my_book"] * 2
    for mine, other in zip(ours, theirs, strict=True):
        first, second = mine.answers.log_likelihoods, other.answers.log_likelihoods
        assert np.allclose(first, second, atol=1e-3)
        assert (mine.answers.n_bytes == other.answers.n_bytes).all()
        assert (mine.answers.right == other.answers.right).all()
    assert ours[1].paired.n_lost == theirs[1].paired.n_lost
    assert np.abs(theirs[1].answers.margins - theirs[0].answers.margins).max() > 0


def test_a_task_without_choices_is_refused(lm_eval, tiny_folder, tiny_items):
    loaded = load_model(str(tiny_folder), dtype="float32", device="cpu")
    task = task_of(tiny_items, "likely") | {"output_type": "loglikelihood", "metric_list": []}
    task = task | {"doc_to_target": "{{choices[answer]}}"} | {"metric_list": [{"metric": "acc"}]}
    del task["doc_to_choice"]
    with pytest.raises(InvalidText, match="'likely' is not of multiple choice"):
        answers_to_tasks(loaded, [task], n=2)


def test_without_the_library_the_command_says_how_to_get_it(exported, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'bitfront\[lm-eval\]'"):
        check_installed()
    code, _, errors = run("evaluate", exported("packed"), "--tasks", "arc_easy")
    assert one_line(code, errors)
