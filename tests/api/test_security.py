"""Who may do what, and what is written down of it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from bitfront.api import recent
from bitfront.store.tables import audit

BODY = {"model": "org/tiny@main", "budget": "4.25bpw"}
FILLED = {"number": "0", "name": "fisher_directional", "path": "config.json"}


def request(client, method, path, study_id):
    """Any request to a path of the document that names a study."""
    url = path.replace("{study_id}", study_id)
    url = re.sub(r"{(\w+)(:path)?}", lambda match: FILLED[match.group(1)], url)
    bodies = {"extend": {"n_trials": 9}, "checkpoints": {"trial": 0}}
    body = bodies.get(path.rpartition("/")[2]) if method == "post" else None
    return client.request(method.upper(), url, json=body)


def routes_of_a_study(app):
    paths = app.openapi()["paths"]
    found = [(m, path) for path, by_method in paths.items() for m in by_method if "{" in path]
    return sorted(found, key=lambda found: (found[0] == "delete", found))


def test_another_owners_study_does_not_exist_on_any_route(bench):
    done = bench.study("a", n_trials=5)
    bench.work()
    app = bench.app()
    other = bench.client(app, bench.key("b"))
    routes = routes_of_a_study(app)
    assert len(routes) >= 9
    for method, path in routes:
        answer = request(other, method, path, done.id)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
        assert done.id not in answer.json()["detail"] or "No study" in answer.json()["detail"]
    assert other.get("/v1/studies").json()["items"] == []
    assert bench.client(app, bench.key("a")).get(f"/v1/studies/{done.id}").status_code == 200


def test_an_administrator_sees_everyones_studies(bench):
    ids = {bench.study(owner).id for owner in "ab"}
    admin = bench.client(key=bench.key("root", "read", "admin"))
    assert {study["id"] for study in admin.get("/v1/studies").json()["items"]} == ids


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer bf_x_y",
        "Basic Zm9vOmJhcg==",
        "Bearer bf__",
        "x",
    ],
)
def test_without_a_right_key_nothing_is_to_be_had(bench, header):
    bench.key("a")
    answer = bench.client().get("/v1/studies", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_revoked_and_expired_keys_are_wrong_keys(bench):
    app, key = bench.app(), bench.key("a")
    assert bench.client(app, key).get("/v1/studies").status_code == 200
    bench.store.keys.revoke(bench.store.keys.all()[0].id)
    time.sleep(recent.SECONDS)
    assert bench.client(app, key).get("/v1/studies").status_code == 401
    assert bench.client(app, bench.key("a", seconds=1e-5)).get("/v1/studies").status_code == 401


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_key_counts_as_right_from_when_the_table_was_asked(bench):
    """Not from when it answered, which may be seconds later."""
    app, key = bench.app(), bench.key("a")
    waiting = sa.text("select 1 from pg_locks where not granted")
    with ThreadPoolExecutor(1) as pool:
        with bench.store.db.writing() as connection:
            connection.execute(sa.text("lock table api_keys in access exclusive mode"))
            asked = pool.submit(bench.client(app, key).get, "/v1/studies")
            while connection.execute(waiting).first() is None:
                time.sleep(0.02)
            time.sleep(recent.SECONDS)
        assert asked.result(30).status_code == 200
    bench.store.keys.revoke(bench.store.keys.all()[0].id)
    assert bench.client(app, key).get("/v1/studies").status_code == 401


def test_a_key_does_what_its_scopes_say(bench):
    app, done = bench.app(), bench.study("a")
    reader = bench.client(app, bench.key("a", "read"))
    answer = reader.post(f"/v1/studies/{done.id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    writer = bench.client(app, bench.key("a", "write"))
    assert writer.get(f"/v1/studies/{done.id}").status_code == 403
    assert writer.post(f"/v1/studies/{done.id}/cancel").status_code == 202


def test_ten_wrong_keys_close_an_address_to_keys_that_were_not_right_before(bench):
    app, good, new = bench.app(), bench.key("a"), bench.key("b")
    assert bench.client(app, good).get("/v1/studies").status_code == 200
    statuses = [bench.client(app, f"bf_{n}_x").get("/v1/studies").status_code for n in range(11)]
    assert statuses == [401] * 10 + [429]
    answer = bench.client(app, new).get("/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_wrong_keys")
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert bench.client(app, good).get("/v1/studies").status_code == 200
    elsewhere = bench.client(app, new, client=("10.0.0.9", 1))
    assert elsewhere.get("/v1/studies").status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"headers": {"Origin": "http://127.0.0.1"}}, 200),
        ({"headers": {"Origin": "https://evil.example"}}, 401),
        ({"headers": {"Origin": "null"}}, 401),
        ({"headers": {"Host": "evil.example"}}, 401),
        ({"headers": {"Host": "localhost:8000"}}, 200),
        ({"headers": {"Host": "[::1"}}, 401),
        ({"client": ("192.168.1.5", 1)}, 401),
        ({"client": ("::1", 1)}, 200),
    ],
)
def test_without_keys_only_this_machine_is_served(bench, change, status):
    assert bench.client(**change).get("/v1/studies").status_code == status


def test_every_change_is_written_down(bench):
    app = bench.app()
    writer = bench.client(app, bench.key("a"))
    made = writer.post("/v1/studies", json=BODY, headers={"Idempotency-Key": "1"}).json()
    writer.post(f"/v1/studies/{made['id']}/cancel")
    writer.post(f"/v1/studies/{made['id']}/cancel")
    writer.get(f"/v1/studies/{made['id']}")
    bench.client(app, bench.key("b", "read")).delete(f"/v1/studies/{made['id']}")
    with bench.store.db.reading() as connection:
        asked = sa.select(audit).where(audit.c.action != "create_key").order_by(audit.c.id)
        rows = connection.execute(asked).all()
    url = f"/v1/studies/{made['id']}"
    assert [(row.owner, row.action, row.target, row.status) for row in rows] == [
        ("a", "create_study", url, 202),
        ("a", "cancel_study", f"{url}/cancel", 202),
        ("a", "cancel_study", f"{url}/cancel", 409),
        ("b", "delete_study", url, 403),
    ]
    assert all(row.key_id for row in rows)


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_addresses_with_control_characters_are_none_and_stay_readable_in_the_audit(bench):
    """PostgreSQL stores no NUL, and a line feed would forge a line of whatever shows the log."""
    app, study = bench.app(), bench.study("a")
    client = bench.client(app, bench.key("a", "read", "write", "admin"))
    answers = {}
    for path, by_method in app.openapi()["paths"].items():
        for place in ("{study_id}", r"{(name|path|number)(:path)?}"):
            url = re.sub(place, "a%00b%0A%1B", path)
            if url != path:
                url = url.replace("{study_id}", study.id)
                for method in by_method:
                    answer = client.request(method, url, json={"n_trials": 9})
                    answers[method, url] = answer.status_code
    assert len(answers) >= 22
    assert set(answers.values()) <= {404, 422}, answers
    with bench.store.db.reading() as connection:
        asked = sa.select(audit.c.target).where(audit.c.action == "resume_study")
        assert connection.execute(asked).scalars().all() == [r"/v1/studies/a\x00b\n\x1b/resume"]


def test_what_the_audit_cannot_take_does_not_replace_an_answer(bench, monkeypatch, caplog):
    monkeypatch.setattr("bitfront.store.keys.Keys.note", lambda *_: 1 / 0)
    study = bench.study()
    answer = bench.client().post(f"/v1/studies/{study.id}/cancel")
    assert answer.status_code == 202
    assert "audit of cancel_study by local not stored" in caplog.text


@pytest.mark.parametrize("path", ["/v1/studies", "/healthz", "/nowhere", "/v1/studies/x"])
def test_every_answer_has_security_headers_and_none_lets_other_sites_read(client, path):
    headers = client.get(path, headers={"Origin": "http://127.0.0.1"}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not [name for name in headers if name.startswith("access-control-")]


def test_pages_of_others_scripts_are_not_served(client):
    assert [client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]
    assert client.get("/openapi.json").status_code == 200
