"""The life of a study over HTTP."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bitfront import runtimes
from bitfront.api.pace import seconds_each
from bitfront.store.records import Stage

BODY = {
    "model": "org/tiny@main",
    "budget": "4.25bpw",
    "formats": ["int2_g64", "int4_g64", "int8_g64"],
    "n_trials": 5,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request):
    return request.param


def submit(client, key="k1", **changes):
    return client.post("/v1/studies", json={**BODY, **changes}, headers={"Idempotency-Key": key})


def test_a_study_lives_from_submission_to_deletion(client, bench):
    answer = submit(client)
    assert answer.status_code == 202, answer.text
    study = answer.json()
    assert answer.headers["Location"] == study["links"]["self"] == f"/v1/studies/{study['id']}"
    assert (study["state"], study["stage"], study["owner"]) == ("WAITING", "prepare", "local")

    bench.work(4)
    study = client.get(study["links"]["self"]).json()
    assert (study["state"], study["stage"]) == ("RUNNING", "search")
    assert study["progress"] == {"done": 2, "total": 5}
    # three more on the calibration text, then again at most what was measured there
    pace = seconds_each(bench.store.activity.finished(study["id"], Stage.EVALUATE))
    assert study["seconds_left"] == pytest.approx(pace * (3 + 5))

    bench.work()
    study = client.get(study["links"]["self"]).json()
    assert (study["state"], study["seconds_left"]) == ("COMPLETE", None)
    front = client.get(study["links"]["front"]).json()
    assert sorted(front[0]) == ["allocation", "number", "origin", "values"]

    assert client.post(study["links"]["cancel"]).status_code == 409
    assert client.post(study["links"]["resume"]).status_code == 409
    longer = client.post(study["links"]["extend"], json={"n_trials": 7})
    assert (longer.status_code, longer.json()["state"]) == (202, "RUNNING")
    assert client.delete(study["links"]["self"]).status_code == 409
    bench.work()
    assert client.get(study["links"]["self"]).json()["progress"]["total"] > 0
    n_calibration = len(client.get(study["links"]["trials"] + "?text=calibration").json()["items"])
    assert n_calibration == 7

    assert client.delete(study["links"]["self"]).status_code == 204
    assert client.get(study["links"]["self"]).status_code == 404


def test_a_runtime_brings_its_menu_and_refuses_what_it_cannot_load(client):
    plain = {key: value for key, value in BODY.items() if key != "formats"}
    asked = {**plain, "runtime": "vllm", "tensor_parallel": 2}
    headers = {"Idempotency-Key": "k1"}
    request = client.post("/v1/studies", json=asked, headers=headers).json()["request"]
    assert (request["runtime"], request["tensor_parallel"]) == ("vllm", 2)
    assert request["formats"] == list(runtimes.named("vllm").menu)
    assert request["pinned"] is None
    refused = (
        ({"formats": ["int4_g64"]}, "cannot load int4_g64"),
        ({"pinned": "int8_g64_sym"}, "embedding or head"),
        ({"runtime": "vlm"}, "Did you mean 'vllm'"),
        ({"runtime": "llama_cpp"}, "takes only 1"),
    )
    for number, (changes, said) in enumerate(refused):
        headers = {"Idempotency-Key": f"refused-{number}"}
        answer = client.post("/v1/studies", json={**asked, **changes}, headers=headers)
        assert answer.status_code == 422
        assert said in answer.text


def test_a_kv_cache_is_searched_within_bytes_alone(client):
    cache = {"formats": ["int4_g32", "bf16"], "batch": 2, "context": 512}
    request = submit(client, budget="90MB", kv_cache=cache).json()["request"]
    assert request["kv_cache"] == cache | {"window": 32, "sinks": 4, "pre_rope": False}
    answer = submit(client, "k2", kv_cache=cache)
    assert answer.status_code == 422
    assert "does not bound the KV cache" in answer.text


def test_a_cancelled_study_can_be_resumed(client, bench):
    study = submit(client).json()
    bench.work(3)
    cancelled = client.post(study["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "CANCELLED")
    assert client.post(study["links"]["resume"]).json()["state"] == "RUNNING"
    bench.work()
    assert client.get(study["links"]["self"]).json()["state"] == "COMPLETE"


def test_the_request_of_an_answer_is_a_request(client):
    first = submit(client, searches=["random", "nsga2:population_size=20"], max_minutes=3.5).json()
    again = client.post(
        "/v1/studies", json=first["request"], headers={"Idempotency-Key": "another"}
    )
    assert again.status_code == 202, again.text
    assert again.json()["request"] == first["request"]


def test_the_same_key_makes_one_study_however_often_it_comes(client, bench):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: submit(client), range(20)))
    early = [answer for answer in answers if answer.status_code == 409]
    assert {answer.json()["code"] for answer in early} <= {"in_flight"}
    answers = [answer for answer in answers if answer not in early]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers["Idempotency-Replayed"] for answer in answers).count("false") == 1
    assert len(bench.store.studies.page()) == 1


def test_the_same_key_with_another_body_is_refused(client, bench):
    submit(client)
    other = submit(client, n_trials=6)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert len(bench.store.studies.page()) == 1


def test_a_study_needs_a_key_for_being_made_once(client):
    answer = client.post("/v1/studies", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (400, "header_missing")


def test_an_owner_has_only_so_many_unfinished_studies(bench):
    client = bench.client(key=bench.key("a", max_running=2))
    assert [submit(client, str(n)).status_code for n in range(3)] == [202, 202, 429]
    assert submit(client, "1").status_code == 202


def test_an_owner_has_only_so_many_device_hours(bench):
    key = bench.key("a", max_device_hours=0.0)
    answer = submit(bench.client(key=key), "1")
    assert (answer.status_code, answer.json()["code"]) == (429, "over_quota")
    assert answer.json()["detail"].startswith("a has used 0 device hours of at most 0: ")
    assert submit(bench.client(key=bench.key("a")), "1").status_code == 202


def test_pages_hold_every_study_once_and_the_newest_first(client, bench):
    ids = [bench.study().id for _ in range(7)]
    found, token = [], ""
    while token is not None:
        page = client.get("/v1/studies", params={"page_size": 3, "page_token": token or None})
        found += [study["id"] for study in page.json()["items"]]
        token = page.json()["next_page_token"]
    assert sorted(found, reverse=True) == found
    assert sorted(found) == sorted(ids)
    client.post(f"/v1/studies/{ids[0]}/cancel")
    cancelled = client.get("/v1/studies?state=CANCELLED").json()["items"]
    assert [study["id"] for study in cancelled] == [ids[0]]


@pytest.mark.parametrize("token", ["x", "YWZ0ZXI6MQ", "%00", "a" * 200])
def test_a_token_of_no_page_is_refused(client, token):
    assert client.get("/v1/studies", params={"page_token": token}).status_code == 422


def test_trials_are_listed_by_text_and_read_with_their_formats(client, done):
    links = client.get(f"/v1/studies/{done.id}").json()["links"]
    pages, token = [], ""
    while token is not None:
        page = client.get(links["trials"], params={"page_size": 3, "page_token": token or None})
        pages += page.json()["items"]
        token = page.json()["next_page_token"]
    assert [trial["number"] for trial in pages] == list(range(len(pages)))
    texts = {
        trial["text"] for trial in client.get(links["trials"] + "?text=evaluation").json()["items"]
    }
    assert texts == {"evaluation"}
    whole = client.get(f"{links['trials']}/0").json()
    assert whole["allocation"]["model.layers.0.mlp.up_proj"] == "int2_g64"
    assert client.get(f"{links['trials']}/999").status_code == 404
    assert client.get(f"{links['trials']}/{2**40}").status_code == 404
    assert client.get(f"{links['trials']}/x").status_code == 404


@pytest.mark.parametrize(
    ("asked", "usual", "queue"),
    [
        ("auto", "auto", "cpu"),
        ("cuda", "auto", "gpu"),
        ("auto", "cuda", "gpu"),
        ("cpu", "cuda", "cpu"),
    ],
)
def test_a_study_begins_where_its_device_is(asked, usual, queue, bench):
    bench.settings = bench.settings.model_copy(update={"device": usual})
    with bench.client() as client:
        submit(client, device=asked)
    assert [task.queue for task in bench.store.activity.tasks()] == [queue]
