"""What a results folder promises when its files are damaged: one line that names the file."""

import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report.studies import made_up

from bitfront import Budget, Choice, Study
from bitfront.errors import BitfrontError, InvalidArgument, MismatchedArtifact
from bitfront.report.points import write_points
from bitfront.report.study import report_data
from bitfront.report.terminal import front_table
from bitfront.results import Results

GARBAGE = {
    "binary": b"\x93\xff\x00\x80garbage\xfe\n" * 20,
    "empty": b"\n",
    "not an object": b"[1, 2]\n",
    "text": b"not json\n",
    "zip": b"PK\x03\x04" + bytes(100) + b"\n",
}
READERS = {
    "study.json": lambda folder: Results(folder).study,
    "identity.json": lambda folder: Results(folder).identity,
    "space.json": lambda folder: Results(folder).space,
    "tables/fisher.npz": lambda folder: Results(folder).load_table("fisher", Results(folder).space),
    "trials.jsonl": lambda folder: Results(folder).trials(),
    "environment.json": lambda folder: Results(folder).environment,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a small made-up study, all files in place."""
    return filled(tmp_path)


def filled(directory: Path) -> Path:
    data, results = made_up(), Results(directory)
    study = Study("model", Budget.parse("3.5bpw"), estimator=Choice("fisher"))
    results.claim(data.space, {"model": "a digest"})
    results.save_table("fisher", data.loss)
    for trial in (*data.calibrations, *data.evaluations):
        results.append(trial)
    results.finish(study, {"bitfront": "0"})
    return directory


def test_an_intact_folder_is_read(folder: Path) -> None:
    data = report_data(folder)
    share = 1000 / (1000 + 2 * 12 * 128**2)
    assert data.provenance == {
        "bitfront": "0",
        "model": "a digest",
        "never quantized": f"1,000 bytes, {share:.1%} of the model: not in bits per weight",
    }
    assert len(data.evaluations) == len(made_up().evaluations)


@pytest.mark.parametrize(
    ("name", "garbage"),
    # An empty log is a study without measurements.
    [x for x in itertools.product(READERS, GARBAGE) if x != ("trials.jsonl", "empty")],
)
def test_damaged_files_are_named_in_one_line(name: str, garbage: str, folder: Path) -> None:
    (folder / name).write_bytes(GARBAGE[garbage])
    with pytest.raises(MismatchedArtifact) as refused:
        READERS[name](folder)
    message = str(refused.value)
    assert message.startswith(f"{folder / name} is damaged (")
    assert "another folder" in message
    assert ("remove the file" in message) == (name not in ("identity.json", "trials.jsonl"))
    assert ("remove line 1 of it" in message) == (name == "trials.jsonl")
    assert "\n" not in message


@pytest.mark.parametrize("name", READERS)
def test_files_that_cannot_be_read_are_named_in_one_line(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(MismatchedArtifact) as refused:
        READERS[name](folder)
    assert f"{folder / name} cannot be read (Is a directory)" in str(refused.value)


def test_tables_cut_or_altered_anywhere_are_refused(folder: Path) -> None:
    path = folder / "tables" / "fisher.npz"
    intact, space = path.read_bytes(), Results(folder).space
    for n_bytes in range(0, len(intact), 97):
        path.write_bytes(intact[:n_bytes])
        with pytest.raises(MismatchedArtifact):
            Results(folder).load_table("fisher", space)
    for position in range(60, len(intact), 97):
        path.write_bytes(
            intact[:position] + bytes([intact[position] ^ 0xFF]) + intact[position + 1 :]
        )
        try:
            Results(folder).load_table("fisher", space)
        except MismatchedArtifact:
            continue


def test_a_space_is_read_as_it_was_written(folder: Path) -> None:
    assert Results(folder).space == made_up().space


def test_layers_of_a_folder_from_before_places_have_none(folder: Path) -> None:
    fields = json.loads((folder / "space.json").read_text())
    fields["layers"] = [row[:3] for row in fields["layers"]]
    (folder / "space.json").write_text(json.dumps(fields))
    layers = Results(folder).space.layers
    assert all((x.block, x.kind) == (-1, x.name) for x in layers)
    assert report_data(folder).grid.columns == ("none",)


def test_tables_of_another_space_are_refused(folder: Path) -> None:
    fields = json.loads((folder / "space.json").read_text())
    fields["layers"].pop()
    (folder / "space.json").write_text(json.dumps(fields))
    with pytest.raises(MismatchedArtifact, match=r"fisher.npz is damaged"):
        READERS["tables/fisher.npz"](folder)


def test_a_last_line_cut_inside_a_character_is_dropped(folder: Path) -> None:
    before = Results(folder).trials()
    with (folder / "trials.jsonl").open("ab") as file:
        file.write(b'{"number": 99, "\xc3')
    assert Results(folder).trials() == before


def test_reports_tell_the_environment_of_the_latest_finished_run(folder: Path) -> None:
    assert report_data(folder).provenance["bitfront"] == "0"
    Results(folder).finish(Results(folder).study, {"bitfront": "1"})
    assert report_data(folder).provenance["bitfront"] == "1"


def test_a_folder_whose_first_search_was_cut_says_so(folder: Path) -> None:
    (folder / "study.json").unlink()
    for read in (lambda: Results(folder).study, lambda: report_data(folder)):
        with pytest.raises(InvalidArgument, match="no finished search yet"):
            read()


def test_a_point_of_fewer_code_bits_is_kept_though_another_is_smaller_and_better(
    folder: Path,
) -> None:
    """Groups of 32 have more scales: 3.5 code bits of them may weigh more than 4 of others."""
    first = Results(folder).front().trials[0]
    rows = {4.0: (0.30, 4.125), 3.5: (0.32, 4.5)}
    (folder / "trials.jsonl").unlink()
    for number, (bits, (kl, stored)) in enumerate(rows.items()):
        values = {**first.values, "kl": kl, "bits": bits, "bytes": 1e6 * stored}
        Results(folder).append(replace(first, number=number, values=values))
    front = Results(folder).front()
    assert front.best("kl", bits=3.5).values["kl"] == 0.32
    assert front.best("kl", bytes=4.2e6).values["kl"] == 0.30


def test_a_folder_without_a_study_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not a results folder"):
        _ = Results(tmp_path).space


def claim(folder: Path, **identity: str) -> None:
    results = Results(folder)
    results.claim(made_up().space, identity)


def left(folder: Path) -> set[str]:
    return {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}


def test_a_claim_keeps_what_is_of_the_same_identity(folder: Path) -> None:
    for empty in (False, True):
        if empty:
            (folder / "trials.jsonl").unlink()
        before = left(folder)
        claim(folder, model="a digest")
        assert left(folder) == before


def test_a_claim_is_refused_while_the_folder_holds_trials_of_another(folder: Path) -> None:
    before = left(folder)
    (folder / "trials.jsonl").write_bytes((folder / "trials.jsonl").read_bytes()[:1] + b"\n")
    with pytest.raises(MismatchedArtifact, match="model was a digest, is another"):
        claim(folder, model="another")
    assert left(folder) == before


def test_a_claim_of_other_layers_names_what_makes_layers(folder: Path) -> None:
    with pytest.raises(MismatchedArtifact, match=r"of ties, experts, KV cache, runtime\) was"):
        claim(folder, model="a digest", layers="another")


@pytest.mark.parametrize("content", [None, b"", b"\n", b'{"number": 0, "alloc'])
def test_a_claim_drops_what_is_left_of_another_without_trials(folder: Path, content) -> None:
    (folder / "trials.jsonl").unlink()
    if content is not None:
        (folder / "trials.jsonl").write_bytes(content)
    results = Results(folder)
    results.admit({"model": "another"})
    claim(folder, model="another")
    assert results.identity == {"model": "another"}
    assert results.load_table("fisher", results.space) is None


EDITS = {
    "number": {"number": "three"},
    "negative number": {"number": -1},
    "text": {"text": "calibrated"},
    "origin": {"origin": None},
    "state": {"state": "RUNNING"},
    "error": {"error": 7},
    "target": {"target": ["3.5bpw"]},
    "no values": {"values": None},
    "values of a list": {"values": [["kl", 0.1]]},
    "kl in words": {"values.kl": "0.1"},
    "kl that is no number": {"values.kl": math.nan},
    "infinite kl": {"values.kl": math.inf},
    "kl beyond floats": {"values.kl": 10**400},
    "kl that is true": {"values.kl": True},
    "missing kl": {"values": {"bytes": 1.0}},
    "allocation in words": {"allocation": "int4_g64"},
    "formats of a list": {"allocation.formats": ["int4_g64"]},
    "format that is a number": {"allocation.formats.model.layers.0.mlp.up_proj": 4},
    "unknown format": {"allocation.formats.model.layers.0.mlp.up_proj": "int5_g64"},
    "unknown layer": {"allocation.formats.model.layers.9.mlp.up_proj": "int4_g64"},
    "missing layer": {"allocation.formats": {"model.layers.0.mlp.up_proj": "int4_g64"}},
    "unknown field": {"kl": 0.1},
    "unknown field of the allocation": {"allocation.model": "other"},
}


@pytest.mark.parametrize("text", ["calibration", "evaluation"])
@pytest.mark.parametrize("edit", EDITS)
def test_edited_trials_are_refused_by_line(edit: str, text: str, folder: Path) -> None:
    path = folder / "trials.jsonl"
    lines = path.read_text().splitlines()
    index = next(i for i, line in enumerate(lines) if json.loads(line)["text"] == text)
    for place, value in EDITS[edit].items():
        lines[index] = edited(lines[index], place, value)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MismatchedArtifact) as refused:
        Results(folder).trials()
    message = str(refused.value)
    assert message.startswith(f"{path} is damaged (line {index + 1}: ")
    assert f"remove line {index + 1} of it and search again, which keeps the others" in message
    assert "\n" not in message


def edited(line: str, place: str, value: object) -> str:
    """A trial with one value changed; `place` is its path, layer names last."""
    fields = json.loads(line)
    *parents, name = place.split(".", 2 if place.startswith("allocation") else 1)
    inner = fields
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return json.dumps(fields)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=3,
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("fuzzed"))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_trial_holds_it_is_read_or_refused(data: st.DataObject, fuzzed: Path) -> None:
    path = fuzzed / "trials.jsonl"
    intact = path.read_bytes()
    lines = path.read_text().splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    fields: Any = json.loads(lines[index])
    inner = data.draw(st.sampled_from([fields, fields["values"], fields["allocation"]]))
    name = data.draw(st.sampled_from(sorted(inner)))
    inner[name] = data.draw(ANYTHING)
    lines[index] = json.dumps(fields)
    path.write_text("\n".join(lines) + "\n")
    refused = ""
    try:
        report = report_data(fuzzed)
        front_table(report.front, report.chosen)
        write_points(report.front, io.StringIO(), "csv")
    except BitfrontError as error:
        refused = str(error)
    finally:
        path.write_bytes(intact)
    assert "\n" not in refused
