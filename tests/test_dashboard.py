"""The dashboard's process, started for real: what it shows, to whom, and what it refuses."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from chromium import CHROMIUM, FLAGS, needs_chromium
from playwright.sync_api import sync_playwright
from store.finished import add_finished, end, prepared
from store.studies import SPACE, request
from waiting import until

from bitfront.plugins import Choice
from bitfront.store import Store


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Answer:
    status: int
    headers: dict
    body: str

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Running:
    port: int

    def ask(self, method, path, body=None, **headers) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            return Answer(answer.status, dict(answer.getheaders()), text)
        finally:
            connection.close()

    def get(self, path, **headers) -> Answer:
        return self.ask("GET", path, **headers)

    def studies(self, **headers):
        return self.get("/api/studies", **headers).json["study_summaries"]


def settings(store, folder, **more):
    named = {"HOME": folder, "DATABASE_URL": store.url, "MIRROR_SECONDS": "0.2", **more}
    return os.environ | {f"BITFRONT_{name}": str(value) for name, value in named.items()}


def start(store, folder, **more):
    port = free_port()
    environment = settings(store, folder, DASHBOARD_PORT=port, **more)
    command = [sys.executable, "-m", "bitfront.dashboard"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), port


@contextmanager
def running(store, folder, **more):
    """A dashboard that answers; it must end in order and without a traceback."""
    process, port = start(store, folder, **more)
    with process:
        try:
            until(lambda: answers(Running(port), process))
            yield Running(port)
            process.send_signal(signal.SIGTERM)
            told = process.stderr.read()
            assert process.wait(30) == 0, told
            assert "Traceback" not in told, told
        finally:
            process.kill()


def answers(dashboard, process):
    assert process.poll() is None, process.stderr.read()
    try:
        return dashboard.get("/healthz").status == 200
    except OSError:
        return False


@pytest.fixture
def dashboard(store, tmp_path):
    with running(store, tmp_path) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):
    """An empty store without keys and its dashboard, which several tests ask."""
    folder = tmp_path_factory.mktemp("guarded")
    store = Store(f"sqlite:///{folder / 'bitfront.db'}")
    store.db.upgrade()
    with running(store, folder) as dashboard:
        yield store, dashboard
    store.db.pool.dispose()


@pytest.fixture(scope="module")
def guarded(on_sqlite):
    return on_sqlite[1]


@pytest.fixture
def study_id(store):
    study_id = prepared(store, request(searches=(Choice("sweep"),)), SPACE)
    add_finished(store, study_id, 40)
    end(store, study_id)
    return study_id


def shown(dashboard, study_id, **headers):
    """Its number, once all of its trials are there."""

    def found():
        for study in dashboard.studies(**headers):
            if study["study_name"] == study_id:
                place = f"/api/studies/{study['study_id']}"
                if len(dashboard.get(place, **headers).json["trials"]) >= 40:
                    return study["study_id"]
        return None

    return until(found)


def test_it_shows_and_changes_nothing(store, study_id, dashboard):
    number = shown(dashboard, study_id)
    place = f"/api/studies/{number}"
    assert dashboard.get("/").headers["Location"] == "/dashboard"
    assert '<div id="dashboard">' in dashboard.get("/dashboard").body
    assert dashboard.get(f"/dashboard/studies/{number}/trialTable").status == 200
    assert len(dashboard.get("/static/bundle.js").body) > 100_000
    assert dashboard.get("/api/meta").status == 200
    assert dashboard.get(f"{place}/param_importances").status == 200
    assert dashboard.get(f"/csv/{number}").body.startswith("Number,State,kl,bytes")
    assert dashboard.get(f"/study/{study_id}").headers["Location"].endswith(f"studies/{number}")
    assert dashboard.get(f"/study/{'0' * 32}").status == 404
    assert dashboard.ask("HEAD", "/api/studies").body == ""
    changes = [
        ("DELETE", place),
        ("POST", "/api/studies"),
        ("POST", f"{place}/rename"),
        ("PUT", f"{place}/note"),
        ("POST", "/api/trials/1/tell"),
        ("PATCH", place),
        ("OPTIONS", place),
        ("TRACE", place),
        ("POST", "/incompatible-rdb-schema"),
    ]
    for method, path in changes:
        answer = dashboard.ask(method, path, body="{}", Content_Type="application/json")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD"), path
        assert answer.json["title"] == "Method Not Allowed"
    assert shown(dashboard, study_id) == number
    keys_are_asked_for_from_the_first_one_on(store, dashboard, number)


def keys_are_asked_for_from_the_first_one_on(store, dashboard, number):
    assert dashboard.get("/api/studies").status == 200
    _, admin = store.keys.create("root", ("admin",))
    _, reader = store.keys.create("ann", ("read", "write"))
    over, gone = store.keys.create("old", ("admin",))
    store.keys.revoke(over.id)
    assert dashboard.get("/healthz").status == 200
    for path in ("/", "/dashboard", "/api/studies", "/csv/1", "/static/bundle.js", "/favicon.ico"):
        assert dashboard.get(path).status == 401, path
    page = dashboard.get("/dashboard", Accept="text/html")
    assert page.status == 401
    assert 'action="/sign-in"' in page.body
    assert dashboard.get("/api/studies", Cookie=f"bitfront_key={admin}").status == 200
    refused = dashboard.get("/api/studies", Authorization=f"Bearer {reader}")
    assert (refused.status, "admin is needed" in refused.body) == (403, True)
    for text in (gone, f"{admin}0", "", "bf__"):
        assert dashboard.get("/api/studies", Authorization=f"Bearer {text}").status == 401
    place = f"/api/studies/{number}"
    assert dashboard.ask("DELETE", place, Authorization=f"Bearer {admin}").status == 405
    assert len(dashboard.studies(Authorization=f"Bearer {admin}")) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/1/0",
        "/api/studies/1/plot/contour",
        "/api/studies/1e9",
        "/api/llm/trial_filter_query",
        "/static/../__init__.py",
        "/static/%2e%2e/_app.py",
        "/static/bundle.js.gz",
        "/api/studies/",
        "/dashboard/%0d%0aSet-Cookie:a=b",
        "/metrics",
        "/%00",
    ],
)
def test_paths_that_are_not_listed_are_refused(guarded, path):
    answer = guarded.get(path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_every_answer_protects_the_browser(guarded):
    for path in ("/", "/dashboard", "/api/studies", "/static/bundle.js", "/sign-in", "/no"):
        headers = guarded.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers
    assert guarded.get("/api/studies").headers["Cache-Control"] == "no-store"


def test_without_keys_another_name_of_this_machine_is_refused(guarded):
    assert guarded.get("/api/studies", Host="rebound.example").status == 401
    assert guarded.get("/api/studies", Host=f"localhost:{guarded.port}").status == 200


def a_browser_signs_in_and_out(dashboard, admin, reader):
    here = f"http://127.0.0.1:{dashboard.port}"

    def sent(key, origin=here, path="/sign-in"):
        body = urllib.parse.urlencode({"key": key})
        kind = "application/x-www-form-urlencoded"
        return dashboard.ask("POST", path, body, Origin=origin, Content_Type=kind)

    assert sent(admin, "http://elsewhere.example").status == 403
    assert sent(admin, "").status == 403
    assert sent(reader).status == 403
    answer = sent(admin)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert dashboard.get("/api/studies", Cookie=cookie.partition(";")[0]).status == 200
    assert "bitfront_key=;" in sent("", path="/sign-out").headers["Set-Cookie"]
    for text in ("no\r\nX: y", "ü", "x" * 5000):
        assert sent(text).status == 401
    assert {sent(f"bf_{'0' * 32}_{i}").status for i in range(12)} == {401, 429}
    # Who was right before is not locked out by who guesses from the same address.
    assert dashboard.get("/api/studies", Authorization=f"Bearer {admin}").status == 200


def test_beyond_this_machine_it_listens_with_keys_only(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'bitfront.db'}")
    store.db.upgrade()
    for host in ("0.0.0.0", "192.0.2.1"):
        process, _ = start(store, tmp_path, DASHBOARD_HOST=host)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 2
        assert f"Host {host} can be reached from other machines" in told
        assert "or give BITFRONT_DASHBOARD_HOST 127.0.0.1" in told
    _, admin = store.keys.create("root", ("admin",))
    _, reader = store.keys.create("ann", ("read",))
    with running(store, tmp_path, DASHBOARD_HOST="0.0.0.0") as dashboard:
        a_browser_signs_in_and_out(dashboard, admin, reader)
    store.db.pool.dispose()


@needs_chromium
def test_its_page_draws_history_front_and_bits(on_sqlite, tmp_path):
    store, dashboard = on_sqlite
    study_id = prepared(store, request(searches=(Choice("sweep"),)), SPACE)
    add_finished(store, study_id, 60)
    end(store, study_id)
    shown(dashboard, study_id)
    here = f"http://127.0.0.1:{dashboard.port}"
    wrong, asked = [], []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(f"{here}/study/{study_id}")
        page.get_by_text(re.compile("Bits of trial")).wait_for(timeout=60_000)
        page.locator(".heatmaplayer image").first.wait_for(state="attached", timeout=60_000)
        text = page.locator("body").inner_text()
        page.screenshot(path=str(tmp_path / "study.png"), full_page=True)
        browser.close()
    assert "History" in text
    assert "Pareto" in text
    assert all(url.startswith((here, "data:", "blob:")) for url in asked)
    assert not wrong
