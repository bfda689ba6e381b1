"""Checkpoints, tables and reports: files of workers, looked up by name."""

import hashlib
import json
import stat

import pytest

from bitfront.api import signing
from bitfront.errors import StorageError
from bitfront.signatures import is_signed


@pytest.fixture
def place(client, bench, done):
    """Address of a written checkpoint."""
    answer = client.post(f"/v1/studies/{done.id}/checkpoints", json={"at": "5bpw"})
    assert answer.status_code == 202, answer.text
    bench.work()
    return answer.headers["Location"]


def test_a_point_is_chosen_by_its_size_and_written_once(client, bench, done, place):
    root = f"/v1/studies/{done.id}/checkpoints"
    made = client.get(place).json()
    assert made["state"] == "COMPLETE"
    assert {client.get(link).status_code for link in made["links"].values()} == {200}
    trial = client.get(made["links"]["trial"]).json()
    assert trial["text"] == "evaluation"
    assert trial["values"]["bits_per_weight"] <= 5
    again = client.post(root, json={"trial": made["trial"]}).json()
    assert again["number"] == made["number"]
    assert len(client.get(root).json()["items"]) == 1
    other = client.post(root, json={"trial": made["trial"], "exporter": "fake_quant"}).json()
    assert other["number"] == 1


def test_exporters_take_parameters(client, done):
    cut = {"name": "packed", "params": {"max_shard_size": "30KB"}}
    for given in (cut, "packed:max_shard_size=30KB"):
        body = {"at": "5bpw", "exporter": given}
        made = client.post(f"/v1/studies/{done.id}/checkpoints", json=body).json()
        assert made["exporter"] == "packed:max_shard_size=30KB"
        assert made["number"] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"trial": 0, "at": "4bpw"}, 422),
        ({"trial": 999}, 404),
        ({"trial": -1}, 422),
        ({"at": "1bpw"}, 422),
        ({"at": "4"}, 422),
        ({"trial": 0, "exporter": "pickle"}, 422),
        ({"trial": 0, "exporter": "packed:shards=2"}, 422),
        ({"trial": 0, "exporter": "packed:max_shard_size=2"}, 422),
        ({"trial": 0, "exporter": f"packed:max_shard_size={'9' * 60}GB"}, 422),
        ({"trial": 0, "directory": "/etc"}, 422),
    ],
)
def test_points_that_are_none_are_refused(client, done, body, status):
    assert client.post(f"/v1/studies/{done.id}/checkpoints", json=body).status_code == status


@pytest.mark.parametrize("at", ["3ms", "3ms@b1c512", "3Gbops", "4bpw,3ms"])
def test_budgets_of_what_no_point_states_are_refused_by_name(client, done, at):
    answer = client.post(f"/v1/studies/{done.id}/checkpoints", json={"at": at})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_argument")
    assert f"state no {'bops' if 'bops' in at else 'latency_ns'}" in answer.json()["detail"]


def test_a_trial_without_values_cannot_be_written(client, bench):
    study = bench.study()
    bench.work(2)
    answer = client.post(f"/v1/studies/{study.id}/checkpoints", json={"trial": 0})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_files_arrive_as_they_were_stored(client, place):
    files = client.get(place).json()["files"]
    assert [file["name"] for file in files] == ["config.json", "model.safetensors"]
    for file in files:
        answer = client.get(file["links"]["self"])
        assert answer.status_code == 200
        assert len(answer.content) == file["size"] == int(answer.headers["Content-Length"])
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        again = client.get(file["links"]["self"], headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304


WHOLE = bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=300-", 300, 10239),
        ("bytes=-5", 10235, 10239),
        ("bytes=0-999999", 0, 10239),
        ("bytes=-999999", 0, 10239),
        ("bytes=10239-10239", 10239, 10239),
    ],
)
def test_a_range_is_that_part_of_the_file(client, place, asked, first, last):
    answer = client.get(f"{place}/files/model.safetensors", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, WHOLE[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/10240"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "x"])
def test_what_is_no_range_gives_the_whole_file(client, place, asked):
    answer = client.get(f"{place}/files/model.safetensors", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WHOLE)


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(client, place, asked):
    answer = client.get(f"{place}/files/model.safetensors", headers={"Range": asked})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10240")
    assert answer.json()["code"] == "no_such_range"


def test_a_range_of_another_file_gives_the_whole_one(client, place):
    headers = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert client.get(f"{place}/files/model.safetensors", headers=headers).content == WHOLE


@pytest.mark.parametrize(
    "name", ["none", "../config.json", "..%2fconfig.json", "/etc/passwd", "%2e%2e/x", "a%00b", "%"]
)
def test_only_names_that_were_stored_are_files(client, place, name):
    assert client.get(f"{place}/files/{name}").status_code == 404


def test_a_manifest_vouches_for_point_and_files(client, bench, place):
    manifest = client.get(f"{place}/manifest").json()
    detail = client.get(place).json()
    assert [f["sha256"] for f in manifest["files"]] == [f["sha256"] for f in detail["files"]]
    assert manifest["trial"] == detail["trial"]
    key = bench.settings.home / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    said = client.get("/v1/manifests/key").json()
    public = bytes.fromhex(said["public_key"])
    assert said["key_id"] == manifest["signature"]["key_id"]
    assert is_signed(manifest, public)
    assert not is_signed({**manifest, "trial": 0}, public)
    assert not is_signed(manifest, bytes(32))
    assert not is_signed(manifest, signing.public_key(b"another".ljust(32)))
    assert not is_signed({**manifest, "signature": {}}, public)


def test_what_is_no_signature_is_none(client, place):
    manifest = client.get(f"{place}/manifest").json()
    public = bytes.fromhex(client.get("/v1/manifests/key").json()["public_key"])
    signature = manifest["signature"]
    changed = {**manifest, "values": {**manifest["values"], "kl": 0.0}}
    others = [
        {**signature, "value": "0" * 128},
        {**signature, "value": "ü\ud800"},
        {**signature, "algorithm": "none"},
        3,
        [manifest],
    ]
    bodies = [changed, {}, *({**manifest, "signature": other} for other in others)]
    assert not any(is_signed(body, public) for body in bodies)


def test_a_checkpoint_is_running_while_a_worker_has_it(client, done, bench):
    place = client.post(f"/v1/studies/{done.id}/checkpoints", json={"trial": 0}).headers["Location"]

    def states():
        listed = client.get(f"/v1/studies/{done.id}/checkpoints").json()["items"][-1]["state"]
        return client.get(place).json()["state"], listed

    assert states() == ("WAITING", "WAITING")
    claim = bench.store.queue.claim("worker-1", ("cpu",))
    assert states() == ("RUNNING", "RUNNING")
    bench.store.queue.release(claim)
    assert states() == ("WAITING", "WAITING")
    bench.work()
    assert states() == ("COMPLETE", "COMPLETE")


def test_a_checkpoint_that_is_not_written_has_no_manifest(client, done):
    place = client.post(f"/v1/studies/{done.id}/checkpoints", json={"trial": 0}).headers["Location"]
    assert client.get(f"{place}/manifest").status_code == 409
    assert client.get(place).json()["files"] == []
    assert client.get(f"/v1/studies/{done.id}/checkpoints/7").status_code == 404


def test_a_table_has_a_row_for_every_layer_in_every_format(client, bench, done):
    names = client.get(f"/v1/studies/{done.id}/tables").json()["items"]
    assert [item["name"] for item in names] == ["fisher_directional"]
    table = client.get(names[0]["links"]["self"]).json()
    assert (table["quantity"], table["source"], table["reduction"]) == ("kl", "Fisher()", "sum")
    assert [row["value"] for row in table["rows"]] == list(range(9))
    assert table["rows"][4] == {
        "layer": "model.layers.0.self_attn.k_proj",
        "format": "int4_g64",
        "value": 4.0,
    }


@pytest.mark.parametrize("name", ["none", "fisher_directional.npz", "x" * 300, "a%2fb"])
def test_a_table_that_is_none_is_not_found(client, done, name):
    assert client.get(f"/v1/studies/{done.id}/tables/{name}").status_code == 404


def test_a_report_is_a_page_without_rights(client, bench, done):
    answer = client.get(f"/v1/studies/{done.id}/report")
    assert answer.status_code == 200
    assert all(word in answer.text for word in ("plotly", "int4_g64", "self_attn.k_proj"))
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-scripts;")


def test_a_study_without_points_has_no_report(client, bench):
    study = bench.study()
    assert client.get(f"/v1/studies/{study.id}/report").status_code == 404


def test_the_signing_key_is_made_once(tmp_path):
    keys = {signing.private_key(tmp_path / "new") for _ in range(3)}
    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["signing.key"]
    assert json.loads(json.dumps(signing.signed({"a": 1.5}, keys.pop())))["a"] == 1.5


def test_a_file_that_is_no_signing_key_is_said(tmp_path):
    (tmp_path / "signing.key").write_text("abcd")
    with pytest.raises(StorageError, match=r"signing\.key.*2 bytes, not 32"):
        signing.private_key(tmp_path)
