"""Fronts over HTTP are the fronts of the report."""

import csv
import io
import json

import pyarrow.parquet
import pytest

from bitfront.report.points import FORMATS, encoded

MEDIA = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", ["calibration", "evaluation"])
def test_the_bytes_are_those_of_the_report(client, bench, done, name, text):
    expected = encoded(bench.store.trials.front(done.id, text), name)
    url = f"/v1/studies/{done.id}/front?text={text}"
    asked = client.get(f"{url}&format={name}")
    accepted = client.get(url, headers={"Accept": f"{MEDIA[name]}, */*;q=0.1"})
    assert asked.content == accepted.content == expected
    assert asked.headers["Content-Type"].partition(";")[0] == MEDIA[name]


def test_all_formats_have_the_same_points(client, done):
    url = f"/v1/studies/{done.id}/front"
    points = client.get(url).json()
    rows = list(csv.DictReader(io.StringIO(client.get(f"{url}?format=csv").text)))
    table = pyarrow.parquet.read_table(io.BytesIO(client.get(f"{url}?format=parquet").content))
    assert len(points) > 1
    assert [point["number"] for point in points] == [int(row["number"]) for row in rows]
    assert table.column("number").to_pylist() == [point["number"] for point in points]
    assert [json.loads(row["allocation"]) for row in rows] == [p["allocation"] for p in points]
    assert [dict(row) for row in table.column("allocation").to_pylist()] == [
        point["allocation"] for point in points
    ]


def test_no_point_beats_another(client, done):
    points = [p["values"] for p in client.get(f"/v1/studies/{done.id}/front").json()]
    for one in points:
        others = [p for p in points if p is not one]
        assert not any(p["kl"] <= one["kl"] and p["bytes"] <= one["bytes"] for p in others)


def test_allocations_can_be_left_out(client, done):
    points = client.get(f"/v1/studies/{done.id}/front?allocations=false").json()
    assert [point["allocation"] for point in points] == [{}] * len(points)


def test_a_front_that_is_known_is_not_sent_again(client, done):
    url = f"/v1/studies/{done.id}/front"
    tag = client.get(url).headers["ETag"]
    again = client.get(url, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_study_without_measurements_has_an_empty_front(client, bench):
    assert client.get(f"/v1/studies/{bench.study().id}/front").json() == []


def test_a_type_that_nobody_writes_is_refused(client, done):
    answer = client.get(f"/v1/studies/{done.id}/front", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
