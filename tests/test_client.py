"""The client against the API in this process, and against servers that lose answers."""

import hashlib
import json
import socket

import httpx2
import pytest

from bitfront import errors
from bitfront.client import Client
from bitfront.errors import InvalidArgument, MismatchedArtifact, NotFound, Unreachable
from tests.api.conftest import BODY, bench_at

ID = "0" * 31 + "1"


@pytest.fixture
def bench(tmp_path):
    made = bench_at(tmp_path)
    made.store.db.upgrade()
    yield made
    made.store.db.pool.dispose()


@pytest.fixture
def client(bench):
    with bench.client() as http:
        yield Client("http://127.0.0.1", http=http)


def scripted(*answers, patience=30.0, **options):
    """A client of a server that gives these answers in turn; a callable gets the request."""
    left, seen = list(answers), []

    def answer(request):
        seen.append(request)
        given = left.pop(0)
        given = given(request) if callable(given) else given
        if isinstance(given, Exception):
            raise given
        return given

    http = httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://server")
    return Client("http://server", http=http, patience=patience, **options), seen


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("bitfront.client.connection.time.sleep", lambda seconds: None)


def study_json(**changes):
    fields = {"id": ID, "owner": "local", "state": "RUNNING", "stage": "search", "error": None}
    fields |= {"progress": {"done": 3, "total": 8}, "seconds_left": 1.5, "created_at": "2026"}
    return {**fields, "request": {"budget": "4bpw"}, "links": {}, "later": True, **changes}


def problem(status, code, detail="One line.", **headers):
    return httpx2.Response(status, json={"code": code, "detail": detail}, headers=headers)


def test_a_study_goes_from_submission_to_its_front(client, bench):
    study = client.submit(BODY)
    assert (study.state, study.is_over, study.done) == ("WAITING", False, 0)
    bench.work()
    ended = client.get(study.id)
    assert (ended.state, ended.is_over) == ("COMPLETE", True)
    assert ended.request["budget"] == "4.25bpw"
    assert [s.id for s in client.list()] == [study.id]
    assert list(client.list("FAIL")) == []
    trials = list(client.trials(study.id))
    assert {t.text for t in trials} == {"calibration", "evaluation"}
    assert all(t.state == "COMPLETE" and "kl" in t.values for t in trials)
    measured = list(client.trials(study.id, "evaluation", finished=True))
    points = json.loads(client.front(study.id))
    assert {p["number"] for p in points} <= {t.number for t in measured}
    assert client.front(study.id, "csv").startswith(b"number,")
    assert client.front(study.id, "parquet")[:4] == b"PAR1"


def test_a_watcher_sees_every_event_and_the_end(client, bench):
    study = client.submit(BODY)
    bench.work()
    events = list(client.watch(study.id))
    assert [e.id for e in events] == sorted({e.id for e in events})
    assert {"state", "stage", "proposed", "trial"} <= {e.kind for e in events}
    assert events[-1].body["state"] == "COMPLETE"
    later = events[len(events) // 2].id
    assert list(client.watch(study.id, later)) == [e for e in events if e.id > later]


def test_a_study_is_cancelled_resumed_and_extended(client, bench):
    study = client.submit(BODY)
    bench.work(4)
    assert client.cancel(study.id).state == "CANCELLED"
    assert client.resume(study.id).state == "RUNNING"
    bench.work()
    assert client.extend(study.id, n_trials=5).state == "RUNNING"
    bench.work()
    assert client.get(study.id).request["n_trials"] == 5
    with pytest.raises(errors.Conflict, match="nothing to cancel"):
        client.cancel(study.id)


def test_a_checkpoint_is_written_once_and_arrives_whole(client, bench, tmp_path):
    study = client.submit(BODY)
    bench.work()
    made = client.materialise(study.id, at="4.25bpw")
    assert (made.state, made.is_over, made.files) == ("WAITING", False, ())
    assert client.materialise(study.id, trial=made.trial).number == made.number
    bench.work()
    assert [c.state for c in client.checkpoints(study.id)] == ["COMPLETE"]
    manifest = client.manifest(study.id, made.number)
    assert client.is_signed(manifest)
    assert not client.is_signed({**manifest, "trial": made.trial + 1})
    written, shown = client.checkpoint(study.id, made.number), []
    folder = tmp_path / "checkpoint"
    client.download(written, folder, lambda done, total: shown.append((done, total)))
    for file in written.files:
        data = (folder / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
    total = sum(file.size for file in written.files)
    assert shown[-1] == (total, total)
    assert shown == sorted(shown)


def test_plugins_are_those_of_the_server(client):
    assert {each["name"] for each in client.plugins()["kinds"]["exporters"]} >= {"packed"}


def test_an_id_may_be_short_where_it_is_the_only_one(client):
    first, second = client.submit(BODY).id, client.submit(BODY).id
    assert client.find(first[-6:]) == first
    assert client.find(second) == second
    with pytest.raises(NotFound, match="2 studies"):
        client.find(first[:4])
    with pytest.raises(NotFound, match="No study"):
        client.find("abcdef")
    for text in ("abc", "results", "../admin"):
        with pytest.raises(InvalidArgument, match="is not the id"):
            client.find(text)
    with pytest.raises(NotFound):
        client.get("../../healthz")


def test_a_key_opens_what_is_its_owners(bench):
    keys = {owner: bench.key(owner) for owner in ("anna", "otto")}
    app = bench.app()
    with bench.client(app) as http:
        anna, otto = (Client("http://127.0.0.1", key, http=http) for key in keys.values())
        study = anna.submit(BODY)
        assert [s.owner for s in anna.list()] == ["anna"]
        assert list(otto.list()) == []
        with pytest.raises(NotFound):
            otto.get(study.id)
        with pytest.raises(errors.Unauthorised, match="BITFRONT_API_KEY"):
            Client("http://127.0.0.1", "bf_wrong", http=http).get(study.id)
        with pytest.raises(errors.Unauthorised, match="A key is needed"):
            Client("http://127.0.0.1", http=http).get(study.id)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", errors.NotFound),
        (409, "conflict", errors.Conflict),
        (422, "key_reused", errors.KeyReused),
        (422, "unknown_plugin", errors.UnknownPlugin),
        (422, "infeasible_budget", errors.InvalidArgument),
        (422, "invalid_request", errors.InvalidArgument),
        (403, "forbidden", errors.Unauthorised),
        (429, "over_quota", errors.OverQuota),
        (429, "too_many_wrong_keys", errors.OverQuota),
        (500, "unexpected", errors.InvalidArgument),
    ],
)
def test_a_problem_is_the_error_that_the_server_met(status, code, kind):
    client, _ = scripted(problem(status, code, "Given a,\nallowed b."))
    with pytest.raises(kind, match=r"^Given a, allowed b\.$") as raised:
        client.get(ID)
    assert type(raised.value) is kind


def test_an_unknown_field_is_named(client):
    with pytest.raises(InvalidArgument, match="n_trails"):
        client.submit({**BODY, "n_trails": 3})


NOT_OURS = {
    "page": httpx2.Response(200, text="<html>"),
    "other json": httpx2.Response(200, json={"hello": 1}),
    "list": httpx2.Response(200, json=[1]),
    "error page": httpx2.Response(502, text="Bad Gateway"),
    "other error": httpx2.Response(404, json={"detail": "Not Found"}),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_another_server_is_recognised(name):
    client, _ = scripted(NOT_OURS[name])
    with pytest.raises(Unreachable, match="BITFRONT_URL"):
        client.get(ID)


def test_a_server_that_is_not_there_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Client(url) as client:
            for ask in (lambda: client.get(ID), lambda: next(client.watch(ID))):
                with pytest.raises(Unreachable, match=f"{url}: start one with `bitfront serve`"):
                    ask()


@pytest.mark.parametrize("url", ["localhost:8765", "ftp://host", "http://", ""])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidArgument, match="http://HOST:PORT"):
        Client(url)


def test_a_lost_answer_makes_no_second_study(bench):
    with bench.client() as inner:

        def passed(request):
            headers = {k: v for k, v in request.headers.items() if k != "host"}
            return inner.post(request.url.path, content=request.content, headers=headers)

        def losing(request):
            assert passed(request).status_code == 202
            return httpx2.ReadError("gone")

        client, seen = scripted(losing, losing, passed)
        study = client.submit(BODY)
        keys = {request.headers["idempotency-key"] for request in seen}
    assert len(keys) == 1
    assert [s.id for s in bench.store.studies.page()] == [study.id]


def test_what_cannot_be_asked_twice_is_not():
    client, seen = scripted(httpx2.ReadError("gone"))
    with pytest.raises(Unreachable, match="was lost"):
        client.extend(ID, n_trials=9)
    assert len(seen) == 1


def test_a_server_that_cannot_work_now_is_asked_again():
    told = []
    busy = problem(503, "storage_error", "The database cannot be used now.")
    client, seen = scripted(
        busy, busy, httpx2.Response(200, json=study_json()), waiting=told.append
    )
    study = client.get(ID)
    assert (study.stage, study.done, study.total, study.seconds_left) == ("search", 3, 8, 1.5)
    assert len(seen) == 3
    why = "http://server cannot answer now (The database cannot be used now.): trying again"
    assert told == [why] * 2
    client, _ = scripted(*[busy] * 3, patience=-1.0)
    with pytest.raises(Unreachable, match="cannot be used now"):
        client.get(ID)


def test_a_server_that_was_there_is_waited_for():
    there = httpx2.Response(200, json=study_json())
    client, seen = scripted(there, *[httpx2.ConnectError("refused")] * 3, there)
    client.get(ID)
    assert client.get(ID).id == ID
    assert len(seen) == 5


def stream(*events, cut=False):
    """An answer with events; `cut` breaks it off after them."""

    def body():
        yield b"retry: 1000\n\n: still here\n\n"
        for number, kind, data in events:
            yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
        if cut:
            raise httpx2.ReadError("broken off")

    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, content=body())


def test_a_submission_in_flight_is_sent_again_with_its_key():
    early = problem(409, "in_flight", "A request with this key is being answered.")
    client, seen = scripted(early, early, httpx2.Response(202, json=study_json()))
    assert client.submit({"model": "org/tiny@main", "budget": "4bpw"}).id == ID
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert len(seen) == 3


def test_a_stream_that_breaks_off_is_taken_up_where_it_ended():
    first = stream((1, "state", {"state": "WAITING"}), (4, "trial", {"number": 0}), cut=True)
    restarting = [httpx2.ConnectError("refused")] * 5
    restarting += [problem(503, "storage_error"), httpx2.ReadTimeout("quiet")]
    second = stream((6, "state", {"state": "COMPLETE"}))
    client, seen = scripted(first, *restarting, second, httpx2.Response(204))
    events = list(client.watch(ID))
    assert [(e.id, e.kind) for e in events] == [(1, "state"), (4, "trial"), (6, "state")]
    assert "last-event-id" not in seen[0].headers
    assert {r.headers["last-event-id"] for r in seen[1:-1]} == {"4"}
    assert seen[-1].headers["last-event-id"] == "6"


def test_a_watcher_gives_a_server_up_after_a_while():
    client, _ = scripted(
        stream((1, "state", {}), cut=True), httpx2.ConnectError("refused"), patience=-1.0
    )
    with pytest.raises(Unreachable, match="any more"):
        list(client.watch(ID))


def checkpoint_json(**files):
    listed = [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in files.items()
    ]
    fields = {"study_id": ID, "number": 0, "trial": 2, "exporter": "packed", "error": None}
    return httpx2.Response(200, json={**fields, "state": "COMPLETE", "files": listed})


def test_a_download_that_breaks_off_goes_on_with_the_rest(tmp_path):
    data = bytes(range(256)) * 8

    def cut():
        yield data[:700]
        raise httpx2.ReadError("broken off")

    def rest(request):
        assert request.headers["range"] == "bytes=700-"
        return httpx2.Response(206, content=data[700:])

    whole = httpx2.Response(200, content=data)
    client, seen = scripted(
        checkpoint_json(weights=data), httpx2.Response(200, content=cut()), rest
    )
    found = client.checkpoint(ID, 0)
    client.download(found, tmp_path)
    assert (tmp_path / "weights").read_bytes() == data
    client.download(found, tmp_path)
    assert len(seen) == 3
    client, _ = scripted(httpx2.Response(200, content=cut()), whole)
    client.download(found, tmp_path / "again")
    assert (tmp_path / "again" / "weights").read_bytes() == data


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ""])
def test_a_server_cannot_write_outside_the_folder(name, tmp_path):
    client, seen = scripted(checkpoint_json(**{name: b"data"}))
    found = client.checkpoint(ID, 0)
    with pytest.raises(MismatchedArtifact, match="not brought"):
        client.download(found, tmp_path / "folder")
    assert len(seen) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_the_servers_are_refused(tmp_path):
    client, _ = scripted(checkpoint_json(weights=b"data"), httpx2.Response(200, content=b"dato"))
    with pytest.raises(MismatchedArtifact, match="weights"):
        client.download(client.checkpoint(ID, 0), tmp_path)
    assert list(tmp_path.iterdir()) == []
