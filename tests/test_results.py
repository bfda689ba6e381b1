"""What a results folder promises when its files are damaged: one line that names the file."""

import json
from pathlib import Path

import pytest
from report.studies import made_up

from bitfront import Budget, Study
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.report.study import report_data
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
    "environment.json": report_data,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a small made-up study, all files in place."""
    data, results = made_up(), Results(tmp_path)
    results.claim(Study("model", Budget.parse("3.5bpw")), data.space, {"model": "a digest"})
    results.save_table("fisher", data.loss)
    for trial in (*data.calibrations, *data.evaluations):
        results.append(trial)
    report_data(tmp_path, {"bitfront": "0"})
    return tmp_path


def test_an_intact_folder_is_read(folder: Path) -> None:
    data = report_data(folder)
    share = 1000 / (1000 + 2 * 12 * 128**2)
    assert data.provenance == {
        "bitfront": "0",
        "model": "a digest",
        "never quantized": f"1,000 bytes, {share:.1%} of the model: not in bits per weight",
    }
    assert len(data.evaluations) == len(made_up().evaluations)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_named_in_one_line(name: str, garbage: str, folder: Path) -> None:
    if (name, garbage) == ("trials.jsonl", "empty"):
        pytest.skip("an empty log is a study without measurements")
    (folder / name).write_bytes(GARBAGE[garbage])
    with pytest.raises(MismatchedArtifact) as refused:
        READERS[name](folder)
    message = str(refused.value)
    assert message.startswith(f"{folder / name} is damaged (")
    assert "another folder" in message
    assert ("remove the file" in message) == (name != "identity.json")
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


def test_tables_of_another_space_are_refused(folder: Path) -> None:
    fields = json.loads((folder / "space.json").read_text())
    fields["layers"].pop()
    (folder / "space.json").write_text(json.dumps(fields))
    with pytest.raises(MismatchedArtifact, match=r"fisher.npz is damaged"):
        report_data(folder)


def test_a_last_line_cut_inside_a_character_is_dropped(folder: Path) -> None:
    before = Results(folder).trials()
    with (folder / "trials.jsonl").open("ab") as file:
        file.write(b'{"number": 99, "\xc3')
    assert Results(folder).trials() == before


def test_a_folder_without_a_study_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not a results folder"):
        _ = Results(tmp_path).space
