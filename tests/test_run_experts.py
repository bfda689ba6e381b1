"""A search over the experts of a tiny trained mixture, from the text to the checkpoint."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from bitfront import Budget, Choice, Study, TextSource, export_checkpoint, run_study
from bitfront.banks import stored_bank
from bitfront.cli import app
from bitfront.experts import TokensSeen
from bitfront.inputs import load_searched
from bitfront.models.patch import PatchedModel
from bitfront.report.page import html
from bitfront.report.study import report_data
from bitfront.results import Results
from bitfront.run import opened
from tests.export.exports import load


@pytest.fixture(scope="module")
def study(moe_folder, calibration_file, evaluation_file):
    return Study(
        model=str(moe_folder),
        budget=Budget.parse("3.2bpw"),
        calibration=TextSource(str(calibration_file), 4, 64),
        evaluation=TextSource(str(evaluation_file), 2, 64),
        formats=("int2_g64", "int3_g64", "int4_g64", "int8_g64"),
        searches=(Choice("sweep"),),
        n_trials=8,
        n_search_sequences=2,
        n_finalists=4,
        pinned="int8_g32",
        dtype="float32",
    )


@pytest.fixture(scope="module")
def searched(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    records = []
    catch = logging.Handler()
    catch.emit = records.append
    logger = logging.getLogger("bitfront")
    logger.addHandler(catch)
    front = run_study(study, folder)
    logger.removeHandler(catch)
    return front, folder, [record.getMessage() for record in records]


def test_experts_of_a_block_differ_and_beat_uniform(study, searched):
    front, folder, _ = searched
    chosen = front.best("kl", **study.budget.bounds())
    assert chosen.origin != "uniform"
    space = Results(folder).space
    by_block = {}
    for layer in space.layers:
        if layer.active < 1:
            formats = by_block.setdefault(layer.block, {}).setdefault(layer.group, set())
            formats.add(chosen.allocation.formats[layer.name])
    for experts in by_block.values():
        assert all(len(formats) == 1 for formats in experts.values())
    assert any(len(set.union(*experts.values())) > 1 for experts in by_block.values())
    larger = next(
        t for t in front.trials if t.origin == "uniform" and t.values["bits_per_weight"] > 3.2
    )
    assert chosen.values["bits_per_weight"] <= 3.2 < larger.values["bits_per_weight"]


def test_tokens_of_experts_are_kept_reported_and_warned_of(searched):
    _, folder, messages = searched
    seen = TokensSeen.load(folder / "experts.json")
    assert [sum(counts) for counts in seen.counts.values()] == [4 * 64 * 2] * 2
    assert seen.n_unseen > 0
    warned = [message for message in messages if "saw too few" in message]
    assert warned == [
        f"{seen.n_unseen} of 16 experts saw too few tokens: their scores are imputed."
    ]
    data = report_data(folder)
    assert f"{seen.n_unseen} of 16 experts saw too few" in data.loss.note
    page = html(data)
    assert seen.summary in page
    assert page.count("imputed") == 1
    assert page.count('class="few"') == seen.n_unseen


def test_a_second_run_and_the_command_say_the_same(study, searched, evaluation_file):
    _, folder, _ = searched
    before = (folder / "experts.json").stat().st_mtime_ns
    given = ["search", study.model, "--budget", "3.2bpw", "--out", str(folder), "--json"]
    texts = ["--calibration", study.calibration.source, "--evaluation", str(evaluation_file)]
    sizes = ["--n-sequences", "4", "--n-evaluation-sequences", "2", "--sequence-length", "64"]
    rest = [
        "--search",
        "sweep",
        "--n-trials",
        "8",
        "--n-search-sequences",
        "2",
        "--pin",
        "int8_g32",
    ]
    last = ["--n-finalists", "4", "--dtype", "float32"]
    result = CliRunner().invoke(app, [*given, *texts, *sizes, *rest, *last])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.splitlines()[-1])
    counts = TokensSeen.load(folder / "experts.json").counts
    assert answer["tokens_of_experts"] == {name: list(c) for name, c in counts.items()}
    assert (folder / "experts.json").stat().st_mtime_ns == before


def test_the_checkpoint_predicts_what_was_measured(study, searched, tmp_path):
    front, folder, _ = searched
    chosen = front.best("kl", **study.budget.bounds())
    export_checkpoint(study, chosen, tmp_path / "out", "packed", folder)
    loaded = load("packed", tmp_path / "out", dtype=torch.float32)
    tokens = torch.arange(24)[None] * 7 % 512
    with torch.no_grad():
        found = loaded(tokens).logits
    expected = expected_logits(study, chosen, folder, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


def expected_logits(study, chosen, folder, tokens):
    model, space = load_searched(study)
    bank = stored_bank(study, model, space, chosen.allocation, Results(folder))
    with PatchedModel(model.module, bank) as patched, torch.no_grad():
        patched.apply(chosen.allocation)
        return model.module(tokens).logits


def test_experts_are_unseen_by_the_text_that_the_estimator_looks_at(study, tmp_path):
    """One sequence of four: there several experts see nothing, and KL of nothing is 0."""
    few = Choice("leave_one_in", {"max_sequences": 1})
    menu = ("int2_g64", "int4_g64")
    with opened(replace(study, estimator=few, formats=menu), tmp_path) as job:
        loss = job.problem.loss
        routed = [row for row, layer in enumerate(loss.space.layers) if layer.active < 1]
        assert (loss.values[routed] > 0).all()
        n_whole = TokensSeen.load(tmp_path / "experts.json").n_unseen
        assert int(loss.note.split(" of 16 experts")[0]) > n_whole


@pytest.mark.parametrize("experts", ["block", "cluster:3"])
def test_coarser_groups_are_searched_too(experts, study, tmp_path):
    few = replace(
        study, experts=experts, n_trials=5, n_finalists=1, estimator=Choice("weight_error")
    )
    front = run_study(few, tmp_path)
    chosen = front.best("kl", **few.budget.bounds())
    blocks = {
        name.rpartition(".experts.")[0] for name in chosen.allocation.formats if ".experts." in name
    }
    assert len(blocks) == 2
    for block in blocks:
        kinds = {f for name, f in chosen.allocation.formats.items() if name.startswith(block)}
        assert len(kinds) <= {"block": 1, "cluster:3": 3}[experts]
