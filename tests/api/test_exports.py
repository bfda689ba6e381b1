"""Many fronts as one archive."""

import hashlib
import io
import json
import zipfile

import pyarrow.parquet
import pytest

from bitfront.api import signing
from bitfront.budget import Budget
from bitfront.kv_cache import KVCache
from bitfront.signatures import is_signed


@pytest.fixture
def two(bench, done):
    """Two complete studies."""
    other = bench.study(n_trials=4)
    bench.work()
    return [done.id, other.id]


def test_an_export_has_the_points_of_every_front(client, bench, two):
    answer = client.get("/v1/exports", params={"study": two})
    assert answer.headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    table = pyarrow.parquet.read_table(io.BytesIO(archive.read("fronts.parquet")))
    found = list(zip(*(table.column(n).to_pylist() for n in ("study_id", "number")), strict=True))
    fronts = [(i, bench.store.trials.front(i)) for i in sorted(two)]
    assert found == [(i, trial.number) for i, front in fronts for trial in front.trials]
    key = signing.public_key(signing.private_key(bench.settings.home))
    for study_id, front in fronts:
        manifest = json.loads(archive.read(f"{study_id}/manifest.json"))
        assert is_signed(manifest, key)
        assert [p["number"] for p in manifest["points"]] == [t.number for t in front.trials]
        assert manifest["study"]["request"]["budget"] == "4.25bpw"
    lines = archive.read("SHA256SUMS").decode().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert sums == {
        name: hashlib.sha256(archive.read(name)).hexdigest()
        for name in archive.namelist()
        if name != "SHA256SUMS"
    }


def test_a_study_of_caches_is_exported_with_what_it_asked_for(client, bench):
    cache = KVCache(("int4_g32", "bf16"), batch=2, context=512)
    study = bench.study(kv_cache=cache, budget=Budget(9, "MB"))
    answer = client.get("/v1/exports", params={"study": study.id})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    request = json.loads(archive.read(f"{study.id}/manifest.json"))["study"]["request"]
    assert KVCache.from_fields(request["kv_cache"]) == cache


def test_the_same_data_make_the_same_bytes(bench, client, two):
    first = client.get("/v1/exports", params={"study": two})
    again = bench.client().get("/v1/exports", params={"study": [*reversed(two), two[0]]})
    assert first.content == again.content
    known = client.get(
        "/v1/exports", params={"study": two}, headers={"If-None-Match": first.headers["ETag"]}
    )
    assert known.status_code == 304


def test_a_study_without_a_front_is_there_with_no_points(client, bench):
    study = bench.study()
    answer = client.get("/v1/exports", params={"study": study.id})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert json.loads(archive.read(f"{study.id}/manifest.json"))["points"] == []
    assert pyarrow.parquet.read_table(io.BytesIO(archive.read("fronts.parquet"))).num_rows == 0


def test_one_study_of_another_owner_makes_the_whole_export_fail(bench, two):
    other = bench.client(key=bench.key("b"))
    mine = bench.study("b").id
    assert other.get("/v1/exports", params={"study": mine}).status_code == 200
    assert other.get("/v1/exports", params={"study": [mine, two[0]]}).status_code == 404


@pytest.mark.parametrize("query", ["", "study=", "study=x", "study=" + "0" * 33])
def test_ids_that_are_none_are_refused(client, query):
    assert client.get(f"/v1/exports?{query}").status_code == 422


def test_no_more_than_two_hundred_at_once(client):
    query = "&".join(f"study={n:032x}" for n in range(201))
    assert client.get(f"/v1/exports?{query}").status_code in {414, 422}
