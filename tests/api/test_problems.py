"""Every error is a problem document."""

import gzip
import json
import time

import pytest

from bitfront.api.app import create_app
from bitfront.api.problems import MEDIA_TYPE
from bitfront.artifacts import Artifacts
from bitfront.store import Store

DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
FIELDS = {"type", "title", "status", "detail", "instance", "code", "errors"}

ZIPPED = gzip.compress(b"{}", mtime=0)


def post(client, content, **headers):
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"} | headers
    return client.post("/v1/studies", content=content, headers=headers)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "malformed"),
        (b"\xff\xfe", {}, 400, "malformed"),
        (b'{"model": "\xe9"}', {}, 400, "malformed"),
        (b"9" * 5_000, {}, 400, "malformed"),
        ("{}".encode("utf-16"), {}, 400, "malformed"),
        ('{"model": "a"}'.encode("utf-16-be"), {}, 400, "malformed"),
        ("{}".encode("utf-32-le"), {}, 400, "malformed"),
        (b"", {}, 422, "invalid_request"),
        (b"[]", {}, 422, "invalid_request"),
        (b"null", {}, 422, "invalid_request"),
        (DEEP, {}, 422, "nested_too_deep"),
        (b"[" * 400_000, {}, 422, "nested_too_deep"),
        (b'"' + b"x" * 1_000_001, {}, 413, "body_too_large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "media_type_not_supported"),
        (
            b"{}",
            {"Content-Type": "application/x-www-form-urlencoded"},
            415,
            "media_type_not_supported",
        ),
        (
            gzip.compress(b"{}", mtime=0),
            {"Content-Encoding": "gzip"},
            415,
            "encoding_not_supported",
        ),
        (b"{}", {"Content-Encoding": "br"}, 415, "encoding_not_supported"),
    ],
)
def test_bodies_that_are_none(client, content, headers, status, code):
    answer = post(client, content, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    assert set(answer.json()) == FIELDS
    assert "Traceback" not in answer.text


def test_a_body_in_pieces_is_measured_as_it_comes(client):
    answer = post(client, (b"x" * 100_000 for _ in range(30)))
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1", "/v1/", "/v1/studies/", "/v2/studies"])
def test_addresses_that_are_none(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["instance"] == path


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/studies", "GET, HEAD, POST"),
        ("PATCH", "/v1/studies/" + "0" * 32, "DELETE, GET, HEAD"),
        ("GET", f"/v1/studies/{'0' * 32}/cancel", "POST"),
        ("TRACE", "/healthz", "GET, HEAD"),
        ("HEAD", f"/v1/studies/{'0' * 32}/cancel", "POST"),
    ],
)
def test_other_methods_are_told_those_that_are(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert method == "HEAD" or answer.json()["code"] == "method_not_allowed"


def test_head_is_get_without_its_body(client, bench, done):
    root = f"/v1/studies/{done.id}"
    for path in ("/healthz", "/v1/studies", root, f"{root}/front", f"{root}/events", "/ui/"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    whole = client.get(f"{root}/front")
    assert client.head(f"{root}/front").headers["ETag"] == whole.headers["ETag"]
    assert int(client.head(f"{root}/front").headers["Content-Length"]) == len(whole.content)
    assert client.head(root[:-1]).status_code == 404


@pytest.mark.parametrize(
    ("change", "told", "pointer"),
    [
        (None, "The body is missing: send JSON", "#/"),
        ({"budget": "4"}, "budget: Cannot read budget '4': give a positive number", "#/budget"),
        ({"budget": "4 bpw"}, "budget: Cannot read budget '4 bpw': write it", "#/budget"),
        ({"calibration": ""}, "calibration: String should have at least 1", "#/calibration"),
        ({"calibration": {"source": "a", "x": 1}}, "calibration/x: Extra", "#/calibration/x"),
        ({"searches": ["amq:"]}, "Cannot read 'amq:'", None),
        ({"searches": [{"name": 3}]}, "searches/0/name: Input should", "#/searches/0/name"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_of_the_field(client, change, told, pointer):
    body = b"" if change is None else json.dumps({"model": "a/b@c", "budget": "4bpw", **change})
    answer = post(client, body).json()
    assert answer["status"] == 422
    assert told in answer["detail"]
    assert "^" not in json.dumps(answer)
    assert "constrained" not in json.dumps(answer)
    if pointer is not None:
        assert pointer in {place["pointer"] for place in answer["errors"]}


def test_each_wrong_field_is_named_by_its_place(client):
    body = {"model": 3, "budget": "4bpw", "searches": ["random", {"name": "tpe", "x": 1}], "id": 1}
    answer = post(client, json.dumps(body).encode()).json()
    pointers = {place["pointer"] for place in answer["errors"]}
    assert {"#/model", "#/id"} <= pointers
    assert any(pointer.startswith("#/searches/1") for pointer in pointers)


@pytest.mark.parametrize("path", ["/v1/studies", "/readyz", "/v1/studies/" + "0" * 32])
def test_a_database_that_is_down_is_a_503_within_three_seconds(bench, path):
    url = "postgresql+psycopg://nobody:x@127.0.0.1:1/none"
    app = create_app(Store(url), Artifacts(bench.settings.artifacts), bench.settings)
    began = time.monotonic()
    answer = bench.client(app).get(path)
    assert time.monotonic() - began < 3
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
    assert int(answer.headers["Retry-After"]) > 0


def test_readiness_asks_for_the_schema_of_this_version(bench, client, tmp_path):
    assert client.get("/readyz").json() == {"status": "ok"}
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    answer = bench.client(create_app(other, bench.artifacts, bench.settings)).get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")


def test_what_nobody_expected_is_told_without_a_trace(bench, monkeypatch, caplog):
    client = bench.client()
    monkeypatch.setattr("bitfront.store.studies.Studies.page", lambda *_: 1 / 0)
    answer = client.get("/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
    assert "ZeroDivision" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
