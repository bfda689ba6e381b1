"""Keys in browsers: a cookie in the place of a header, and only pages of this site may use it."""

import pytest
from starlette.testclient import TestClient

from bitfront.api.cookie import COOKIE
from tests.ui.filled import request

HERE = {"Origin": "http://127.0.0.1"}
ELSEWHERE = [{}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:81"},
             {"Origin": "http://127.0.0.1.evil.example"}, {"Origin": "http://[broken"}]  # fmt: skip


def key(of, owner="anna", *scopes):
    return of.store.keys.create(owner, scopes or ("read", "write"))[1]


def sign_in(client, text, place="", **headers):
    form = {"key": text, "place": place}
    return client.post("/ui/sign-in", data=form, headers={**HERE, **headers})


def test_pages_ask_for_a_key_where_keys_exist(empty, browse):
    text = key(empty)
    client = browse(empty)
    for path in ("/ui/", "/ui/workers", "/ui/new", f"/ui/studies/{'0' * 32}"):
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/ui/sign-in?place=")
        assert "Sign in" in client.get(answer.headers["location"]).text
    data = client.get(f"/ui/studies/{'0' * 32}/data.json")
    assert data.status_code == 401
    assert sign_in(client, text).status_code == 303
    assert client.get("/ui/").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(empty, browse):
    client = browse(empty)
    answer = sign_in(client, key(empty))
    flags = answer.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert "path=/;" in flags
    assert "secure" not in flags.replace("samesite", "")
    assert answer.headers["location"] == "/ui/"


def test_over_https_the_cookie_is_secure(empty):
    with TestClient(empty.app, "https://127.0.0.1", follow_redirects=False) as client:
        answer = sign_in(client, key(empty), Origin="https://127.0.0.1")
    assert "; secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("wrong", ["", "x", "bf_x_y", "bf_" + "0" * 32 + "_" + "1" * 48, "ä\n"])
def test_a_wrong_key_is_refused_and_not_kept(empty, browse, wrong):
    key(empty)
    answer = sign_in(browse(empty), wrong)
    assert answer.status_code in {401, 422}
    assert "set-cookie" not in answer.headers


def test_guessing_is_slowed(empty, browse):
    text = key(empty)
    client = browse(empty)
    answers = [sign_in(client, f"bf_{n:032}_{n:048}").status_code for n in range(12)]
    assert answers[0] == 401
    assert answers[-1] == 429
    assert sign_in(client, text).status_code == 429


def test_the_cookie_works_on_the_api_too(empty, browse):
    client = browse(empty)
    study = empty.store.studies.create(request(), "anna")[0]
    sign_in(client, key(empty))
    assert client.get(f"/v1/studies/{study.id}").status_code == 200
    assert client.post(f"/v1/studies/{study.id}/cancel", headers=HERE).status_code == 202


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_a_page_of_another_site_changes_nothing(empty, browse, headers):
    client = browse(empty)
    study = empty.store.studies.create(request(), "anna")[0]
    sign_in(client, key(empty))
    answer = client.post(f"/v1/studies/{study.id}/cancel", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert empty.store.studies.get(study.id).state == "WAITING"
    assert client.post("/ui/sign-out", headers=headers).status_code == 403
    assert client.post("/ui/sign-in", data={"key": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", ELSEWHERE[2:], ids=str)
def test_nor_does_it_where_no_key_is_needed(empty, browse, headers):
    study = empty.store.studies.create(request(), "local")[0]
    answer = browse(empty).post(f"/v1/studies/{study.id}/cancel", headers=headers)
    assert answer.status_code in {401, 403}
    assert empty.store.studies.get(study.id).state == "WAITING"


def test_a_header_wins_over_the_cookie(empty, browse):
    client = browse(empty)
    mine = empty.store.studies.create(request(), "anna")[0]
    sign_in(client, key(empty))
    other = {"Authorization": f"Bearer {key(empty, 'berta')}"}
    assert client.get(f"/v1/studies/{mine.id}", headers=other).status_code == 404


def test_another_owners_study_is_not_there(empty, browse):
    study = empty.study(owner="berta", n_trials=8)
    client = browse(empty)
    sign_in(client, key(empty))
    number = empty.store.trials.front(study.id).trials[0].number
    for path in ("", "/data.json", "/compare", f"/strips/{number}"):
        assert client.get(f"/ui/studies/{study.id}{path}").status_code == 404
    assert study.id[:12] not in client.get("/ui/").text


def test_workers_are_for_administrators(empty, browse):
    client = browse(empty)
    sign_in(client, key(empty))
    assert client.get("/ui/workers").status_code == 403
    sign_in(client, key(empty, "root", "read", "admin"))
    assert client.get("/ui/workers").status_code == 200


def test_a_key_that_only_reads_is_told_so(empty, browse):
    client = browse(empty)
    sign_in(client, key(empty, "anna", "read"))
    assert "Your key may read and not submit" in client.get("/ui/new").text


def test_signing_out_forgets_the_key(empty, browse):
    client = browse(empty)
    sign_in(client, key(empty))
    assert "Sign out" in client.get("/ui/").text
    assert client.post("/ui/sign-out", headers=HERE).status_code == 303
    assert COOKIE not in client.cookies
    assert client.get("/ui/").status_code == 303


@pytest.mark.parametrize(
    ("place", "goes"),
    [
        ("workers", "/ui/workers"),
        (f"studies/{'a' * 32}?point=3", f"/ui/studies/{'a' * 32}?point=3"),
        ("//evil.example", "/ui/"),
        ("https://evil.example", "/ui/"),
        ("\\evil.example", "/ui/"),
        ("../v1/studies", "/ui/"),
    ],
)
def test_signing_in_leads_back_to_a_page_of_this_site(empty, browse, place, goes):
    assert sign_in(browse(empty), key(empty), place).headers["location"] == goes


def test_the_page_that_was_wanted_is_remembered(empty, browse):
    key(empty)
    client = browse(empty)
    answer = client.get(client.get("/ui/workers?x=1").headers["location"])
    assert 'name="place" value="workers?x=1"' in answer.text


def test_without_keys_there_is_nothing_to_sign_in_to(empty, browse):
    answer = browse(empty).get("/ui/sign-in")
    assert (answer.status_code, "No key is needed" in answer.text) == (200, True)


def test_another_machine_is_told_that_keys_are_needed(empty, browse):
    answer = browse(empty, client=("10.0.0.9", 5000)).get("/ui/")
    assert answer.status_code == 303
    text = browse(empty, client=("10.0.0.9", 5000)).get(answer.headers["location"]).text
    assert "serves this machine alone" in text
