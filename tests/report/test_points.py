import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitfront.errors import InvalidArgument, StorageError
from bitfront.report.points import VALUES, points, write_points
from tests.report.studies import made_up


def read_csv(path):
    with path.open(newline="") as file:
        return [
            {
                "values": {q: float(row[q]) for q in VALUES},
                "allocation": json.loads(row["allocation"]),
                "origin": row["origin"],
                "number": int(row["number"]),
            }
            for row in csv.DictReader(file)
        ]


def read_parquet(path):
    table = pq.read_table(path)
    assert table.schema.field("allocation").type == pa.map_(pa.string(), pa.string())
    return [
        {
            "values": {q: row[q] for q in VALUES},
            "allocation": dict(row["allocation"]),
            "origin": row["origin"],
            "number": row["number"],
        }
        for row in table.to_pylist()
    ]


READ = {"json": lambda path: json.loads(path.read_text()), "csv": read_csv, "parquet": read_parquet}


@pytest.mark.parametrize("format", READ)
def test_every_format_reads_back_equal(tmp_path, format):
    front = made_up().front
    write_points(front, tmp_path / "front", format)
    assert READ[format](tmp_path / "front") == points(front)
    assert [p.name for p in tmp_path.iterdir()] == ["front"]


def test_points_are_the_trials_of_the_front():
    data = made_up()
    rows = points(data.front)
    assert [row["number"] for row in rows] == [t.number for t in data.front.trials]
    assert rows[0]["allocation"] == data.front.trials[0].allocation.formats
    assert list(rows[0]["values"]) == list(VALUES)
    assert isinstance(rows[0]["values"]["bytes"], int)


@pytest.mark.parametrize("format", ["json", "csv"])
def test_a_text_stream_gets_what_a_file_gets(tmp_path, format):
    front, stream = made_up().front, io.StringIO()
    write_points(front, stream, format)
    write_points(front, tmp_path / "front", format)
    assert stream.getvalue() == (tmp_path / "front").read_text()


def test_parquet_goes_to_the_bytes_below_a_text_stream():
    front, raw = made_up().front, io.BytesIO()
    stream = io.TextIOWrapper(raw)
    write_points(front, stream, "parquet")
    assert pq.read_table(io.BytesIO(raw.getvalue())).num_rows == len(front.trials)
    with pytest.raises(InvalidArgument, match="give a file"):
        write_points(front, io.StringIO(), "parquet")


def test_unknown_format_lists_the_known():
    with pytest.raises(InvalidArgument, match="json, csv, parquet"):
        write_points(made_up().front, io.StringIO(), "xml")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "front.json"
    target.write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_points(made_up().front, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_below_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_points(made_up().front, tmp_path / "file" / "front.json")
